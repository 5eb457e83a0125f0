"""What a forked child inherits: memory as it was, but only one of the threads, the one that forked.

If another thread held a lock, that lock stays locked in the child forever, and the work that it protects stays half done.
scratch has no such lock, but Numba and LLVM have one each, and hold it for seconds while they compile. So a fork first takes
both locks: it waits until no thread compiles. (``products.py`` does the same for BLAS; ``threads.py`` gives the child a new
pool.)
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
import threading
from typing import Any

# Private names, which another release of Numba or llvmlite may lack. Then forks do not wait for compilers.
LOCKS = (
    ("llvmlite.binding.ffi", "lib._lock._lock"),
    ("numba.core.compiler_lock", "global_compiler_lock._lock"),
)
_RLock = type(threading.RLock())


def _renew(lock: Any) -> None:
    """In a child: release the lock.

    If an interrupt ended the parent's wait for the lock, a thread that does not exist in the child may hold it. Then reset it.
    """
    if lock._is_owned():
        lock.release()
    else:
        lock._at_fork_reinit()


def hold_through_forks(lock: Any) -> None:
    """From now on, every fork takes the lock first. So in a child no other thread holds it."""
    # The lock's own methods, not our functions: Python swallows an interrupt that arrives in a Python function during a fork.
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lambda: _renew(lock))


def wait_for_compilers() -> None:
    """From now on, forks wait for compilers.

    A fork takes the locks in the reverse order of LOCKS, as Numba's compiler does: first its own, then LLVM's.
    """
    for module, name in LOCKS:
        with contextlib.suppress(ImportError, AttributeError):
            lock = operator.attrgetter(name)(importlib.import_module(module))
            if isinstance(lock, _RLock):
                hold_through_forks(lock)
