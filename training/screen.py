"""How commands talk to whoever started them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


def plain_console(*, quiet: bool = False, stderr: bool = False) -> Console:
    """A console that prints text as it is, in whole lines, brackets and all."""
    return Console(quiet=quiet, stderr=stderr, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def failing_plainly() -> Iterator[None]:
    """What a user can put right is a line on standard error and exit code 1, with no traceback."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        plain_console(stderr=True).print(f"error: {error}")
        raise SystemExit(1) from error
