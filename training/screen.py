"""How commands talk to whoever started them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from training.data_packages import optional
from training.text import print_any_text, shown

if TYPE_CHECKING:  # a command that finds rich absent says so
    from rich.console import Console


def plain_console(*, quiet: bool = False, stderr: bool = False) -> Console:
    """A console that prints text as it is, in whole lines, brackets and all.

    Raises:
        ModuleNotFoundError: rich is not installed.
    """
    console: type[Console] = optional("rich.console", "rich", extra="train").Console
    return console(quiet=quiet, stderr=stderr, markup=False, highlight=False, soft_wrap=True)


def complain(error: Exception) -> None:
    """Say on standard error what is wrong; of what the system refuses, first the file, then the reason."""
    if isinstance(error, OSError) and error.filename:
        text = f"{shown(error.filename)}: {error.strerror}"
    else:
        text = shown(error, lines=True)
    print(f"error: {text}", file=sys.stderr)


@contextmanager
def failing_plainly() -> Iterator[None]:
    """What a user can put right is a line on standard error and exit code 1, with no traceback."""
    print_any_text()
    try:
        yield
    except (ValueError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        complain(error)
        raise SystemExit(1) from error
