"""What a forked child inherits: memory as it was, but only one of the threads, the one that forked.

If another thread held a lock, it stays locked forever, and the work under it stays half done. scratch has no such lock, but Numba
and LLVM have, and they hold theirs for seconds while they compile. So a fork first takes both locks, and thus waits until no
thread compiles. (``products.py`` does the same for BLAS; ``threads.py`` gives the child a new pool.)
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import os
import threading
from typing import Any

# Private names, which a release of Numba may lack. Then forks do not wait.
LOCKS = (
    ("llvmlite.binding.ffi", "lib._lock._lock"),
    ("numba.core.compiler_lock", "global_compiler_lock._lock"),
)
_RLock = type(threading.RLock())


def _renew(lock: Any) -> None:
    """In a child: release the lock.

    If an interrupt ended the wait for it, a thread that no longer exists holds it. Then reset it.
    """
    if lock._is_owned():
        lock.release()
    else:
        lock._at_fork_reinit()


def hold_through_forks(lock: Any) -> None:
    """Forks take the lock, so no other thread holds it in a child."""
    # The lock's own methods, not our functions: Python swallows an interrupt that arrives inside a Python function here.
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lambda: _renew(lock))


def wait_for_compilers() -> None:
    """From now on, forks wait. They take the locks in reverse of this order, as the compiler does: its own, then LLVM's."""
    for module, name in LOCKS:
        with contextlib.suppress(ImportError, AttributeError):
            lock = operator.attrgetter(name)(importlib.import_module(module))
            if isinstance(lock, _RLock):
                hold_through_forks(lock)
