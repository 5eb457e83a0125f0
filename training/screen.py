"""How commands talk to whoever started them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from training.data_packages import optional
from training.interrupts import INTERRUPTED, is_interrupt
from training.text import print_any_text, shown

if TYPE_CHECKING:  # a command that finds rich absent says so
    from rich.console import Console

PLAIN = (ValueError, OSError, FloatingPointError, ModuleNotFoundError, MemoryError)  # a user can put it right


def plain_console(*, quiet: bool = False) -> Console:
    """A console that prints text as it is, in whole lines, brackets and all.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    console: type[Console] = optional("rich.console", "rich", extra="train").Console
    stream: Any = _Screen(sys.stdout)
    return console(file=stream, quiet=quiet, markup=False, emoji=False, highlight=False, soft_wrap=True)


class _Screen:
    """A stream to write to that fails no run: what cannot be shown, as the terminal is closed or the pipe cut, is not shown."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()  # Python has none where the descriptor was closed from the start

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, do: Callable[[], object]) -> None:
        try:
            do()
        except OSError:
            _drop(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def tell(text: str) -> None:
    """A line on standard error, if anything is there to read it."""
    screen = _Screen(sys.stderr)
    screen.write(f"{text}\n")
    screen.flush()


def complain(error: Exception) -> None:
    """Say on standard error what is wrong; of what the system refuses, first the file, then the reason."""
    if isinstance(error, OSError) and error.filename:
        text = f"{shown(error.filename)}: {error.strerror}"
    else:
        text = shown(error, lines=True)
    tell(f"error: {text}")


def _drop(stream: TextIO) -> None:
    """Write what is left in the stream, and all that comes, to nowhere: or Python fails in it when it ends."""
    with contextlib.suppress(OSError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@contextmanager
def failing_plainly() -> Iterator[None]:
    """What a user can put right is a line on standard error and exit code 1, with no traceback."""
    print_any_text()
    try:
        yield
        print(end="", flush=True)
    except BrokenPipeError as error:  # who read the output has read enough
        _drop(sys.stdout)
        raise SystemExit(1) from error
    except (Exception, KeyboardInterrupt) as error:
        if is_interrupt(error):
            tell("interrupted")
            raise SystemExit(INTERRUPTED) from None
        if not isinstance(error, PLAIN):
            raise
        complain(error)
        raise SystemExit(1) from error
