"""NumPy's matrix products, for which a fork waits.

OpenBLAS stops its threads before a fork, even in the middle of a product, which then never ends: the process hangs. So a fork
waits for the products that have begun, and a product that would begin meanwhile waits for the end of the fork.

A product takes no lock, for the reasons given in memory.py. Every call holds a reference to the function that multiplies, so
the number of references tells whether a product is being computed. A fork replaces that function with one that waits. No wait is
longer than LIMIT.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from scratch.compiled import forks

LIMIT = 60.0  # seconds; then a fork waits no longer, nor does a product


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """``a @ b``, for which a fork waits."""
    # The call itself is in C, so no signal handler runs while it holds its reference. A fork in such a handler would wait for
    # itself.
    product: np.ndarray = _gate.multiply(a, b, out)
    return product


def _wait_for_fork(a: np.ndarray, b: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """Open the gate once no thread forks; then multiply."""
    steps: tuple[Callable[[], object], ...] = (functools.partial(_forking.acquire, timeout=LIMIT), _open, _forking.release)
    with contextlib.suppress(RuntimeError):  # the time was up, so there is nothing to release
        list(map(operator.call, steps))  # one call in C, or else an interrupt could leave the lock taken
    return matmul(a, b, out)


def _close() -> None:
    """Before a fork: let no product begin, and wait for those that have begun."""
    _gate.multiply = _wait_for_fork
    end = time.monotonic() + LIMIT
    while sys.getrefcount(_multiply) > _UNUSED and time.monotonic() < end:
        time.sleep(0.0002)


def wait_for_products() -> None:
    """From now on, forks wait for products. Before a fork, functions that were registered later than this one run first."""
    os.register_at_fork(before=_close)
    forks.hold_through_forks(_forking)


_multiply = functools.partial(np.matmul)  # an object of its own, so that all its references are known
_gate = SimpleNamespace(multiply=_wait_for_fork)
_open = functools.partial(setattr, _gate, "multiply", _multiply)
_UNUSED = sys.getrefcount(_multiply)  # while the gate is closed
_forking = threading.RLock()  # held by the thread that forks
_open()
