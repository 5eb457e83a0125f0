"""What a forked child inherits: memory as it was, but of all threads only the one that forked.

A lock that another thread held then stays locked forever, and what it did under the lock stays half done. scratch has no such
lock, but Numba and LLVM do, and compile for seconds under it. So a fork waits until nobody compiles, and holds both locks.
(``threads.py`` gives the child a pool of its own.)
"""

from __future__ import annotations

import os
from typing import Any

import llvmlite.binding.ffi
import numba.core.compiler_lock


def _renew(lock: Any) -> None:
    """Let go of the lock, in a child; where an interrupt ended the waiting for it, it is another thread's, which is gone."""
    if lock._is_owned():
        lock.release()
    else:
        lock._at_fork_reinit()


def _hold_through_forks(lock: Any) -> None:
    # The lock's own methods, not functions of ours: Python swallows interrupts that come in the middle of such a function.
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lambda: _renew(lock))


def wait_for_compilers() -> None:
    """From now on. The locks are taken in the reverse of this order, which is the compiler's: its own lock, then LLVM's."""
    _hold_through_forks(llvmlite.binding.ffi.lib._lock._lock)
    _hold_through_forks(numba.core.compiler_lock.global_compiler_lock._lock)
