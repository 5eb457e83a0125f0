"""While a command is still importing, Ctrl-C or a missing package gives one line and an exit code, just as later.

The packages import this first, but only if Python is about to run one of their modules: a library must not change how
errors are printed.
"""

from __future__ import annotations

import _thread
import os
import sys
import time
from types import TracebackType

from alexnet_from_scratch.packages import advice

INTERRUPTED = 130  # the exit code that shells give for Ctrl-C


def end_plainly() -> None:
    """From now on, print no traceback for Ctrl-C or a missing package that nothing catches.

    If the working directory was deleted, end the command at once: not every package can be imported there.
    """
    sys.excepthook = _excepthook
    sys.unraisablehook = _unraisablehook
    try:
        os.getcwd()
    except FileNotFoundError:
        print("error: the working directory was deleted; change to another one", file=sys.stderr)
        raise SystemExit(1) from None


def is_interrupt(error: BaseException | None) -> bool:
    """Whether the error comes from Ctrl-C. A compiled module that is interrupted during its import raises an ImportError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _unraisablehook(unraisable: sys.UnraisableHookArgs) -> None:
    """Interrupt the command once more if Ctrl-C came in a function that C calls, such as LLVM: Python loses it there."""
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        _thread.start_new_thread(_interrupt, ())
    else:
        sys.__unraisablehook__(unraisable)


def _interrupt() -> None:
    time.sleep(0.01)  # until that function has ended
    _thread.interrupt_main()


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if is_interrupt(error):
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED)
    # An ImportError named "numba" is scratch's, and says that Numba cannot read its settings.
    if not isinstance(error, ModuleNotFoundError) and not (isinstance(error, ImportError) and error.name == "numba"):
        return sys.__excepthook__(kind, error, trace)
    print(f"error: {advice(error, error.name)}", file=sys.stderr)
    raise SystemExit(1)
