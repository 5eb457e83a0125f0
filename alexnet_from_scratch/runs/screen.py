"""How commands talk to the user."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

from alexnet_from_scratch.packages import optional
from alexnet_from_scratch.paths import naming
from alexnet_from_scratch.runs.interrupts import INTERRUPTED, is_interrupt
from alexnet_from_scratch.text import print_any_text, shown

if TYPE_CHECKING:  # if rich is missing, the command itself says so
    from rich.console import Console

PLAIN = (ValueError, OSError, FloatingPointError, ModuleNotFoundError, MemoryError)  # what a user can fix
OUTPUT = "standard output"


def plain_console(*, quiet: bool = False) -> Console:
    """A console that prints text verbatim, brackets included, in whole lines.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    console: type[Console] = optional("rich.console").Console
    stream: Any = _Screen(sys.stdout)
    return console(file=stream, quiet=quiet, markup=False, emoji=False, highlight=False, soft_wrap=True)


class _Screen:
    """A stream that never fails a run: what cannot be shown, because the terminal or the pipe is closed, is dropped."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream or io.StringIO()  # Python has no stream if the descriptor was closed from the start

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


class _Output:
    """Standard output. Its errors name it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with naming(OUTPUT):
            return self._stream.write(text)

    def flush(self) -> None:
        with naming(OUTPUT):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def tell(text: str) -> None:
    """Print a line on standard error, if that is open."""
    screen = _Screen(sys.stderr)
    screen.write(f"{text}\n")
    screen.flush()


def complain(error: Exception) -> None:
    """Say on standard error what is wrong."""
    tell(f"error: {reason(error)}")


def reason(error: Exception) -> str:
    """What is wrong; for an OSError, first the file, then the reason."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{shown(error.filename) or repr('')}: {error.strerror}"
    return shown(error, lines=True)


def _drop(stream: TextIO) -> None:
    """Discard what is left in the stream and all later output: otherwise Python fails on it when it exits."""
    with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


@contextmanager
def failing_plainly() -> Iterator[None]:
    """Turn an error that a user can fix into a line on standard error and exit code 1, without a traceback."""
    print_any_text()
    try:
        with redirect_stdout(_Output(sys.stdout) if sys.stdout else None):
            yield
            print(end="", flush=True)
    except BrokenPipeError as error:  # the program that reads the output has stopped reading
        _drop(sys.stdout)
        raise SystemExit(1) from error
    except (Exception, KeyboardInterrupt) as error:
        if is_interrupt(error):
            tell("interrupted")
            raise SystemExit(INTERRUPTED) from None
        if not isinstance(error, PLAIN):
            raise
        if isinstance(error, OSError) and error.filename == OUTPUT:
            _drop(sys.stdout)
        complain(error)
        raise SystemExit(1) from error
