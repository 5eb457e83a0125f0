"""What ends a command while it still imports, Ctrl-C or an absent package: a line and an exit code, as afterwards.

Both sides' packages import this first, and only where Python is about to run one of their modules: a library leaves that alone.
"""

from __future__ import annotations

import sys
from types import TracebackType

INTERRUPTED = 130  # as shells call the exit code of Ctrl-C


def end_plainly() -> None:
    """From now on these print no traceback where nothing catches them."""
    sys.excepthook = _excepthook


def is_interrupt(error: BaseException | None) -> bool:
    """Whether it comes from Ctrl-C: a compiled module that is interrupted while it is imported makes an ImportError of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if is_interrupt(error):
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    if not isinstance(error, ModuleNotFoundError):
        return sys.__excepthook__(kind, error, trace)
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(1)
