"""Compiled kernels and the threads that run them.

A kernel is a plain Python loop over ``range(first, last)`` of independent pieces of work, compiled by Numba without the
GIL. :func:`for_each` splits ``range(n)`` among threads. Three rules keep results the same bits for any number of threads:
what a piece computes depends on its index alone, no two pieces write different bits to the same place, and sums over pieces
are added up afterwards in the order of the pieces.

Why our own threads and not Numba's ``prange``: Numba's threading layers abort the process when two Python threads call in
at once (workqueue) or in a forked child (omp); and a kernel with ``parallel=True`` takes seconds to compile.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, SupportsIndex, TypeVar, cast

import numba
from numba.core import config

from scratch.core import checks

_F = TypeVar("_F", bound=Callable[..., Any])

JIT_OFF: bool = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]  # set when Numba is imported
WORTH_A_THREAD = 1 << 17  # values to go through: with fewer, a core is done before another has woken up, some 0.1 ms later


def kernel(function: _F) -> _F:
    """Compile ``function`` at its first call, keep the result on disk, and let it run without the GIL."""
    # error_model: division by zero gives inf or nan, as in NumPy. Never fastmath: it breaks NaN and the order of sums.
    # The cache on disk does not know about a forced vector width, so there is none then.
    cache = "SCRATCH_VECTOR_BITS" not in os.environ
    compiled = numba.njit(cache=cache, nogil=True, error_model="numpy")(function)
    if cache and not JIT_OFF:
        # Numba compiles anew when the function's own file has changed. Its words come from other files too.
        index = compiled._cache._cache_file  # type: ignore[attr-defined]
        index._source_stamp = index._source_stamp, _words(function)
    return cast("_F", compiled)


def _words(function: Callable[..., Any]) -> tuple[Any, ...]:
    """The state of the files that a kernel may take its words from: those of core, and those that its module imports from."""
    modules = {getattr(value, "__module__", None) for value in function.__globals__.values()}
    files = {str(sys.modules[name].__file__) for name in modules if name and name.startswith("scratch.")}
    return tuple(_stamp(file) for file in sorted(files | {str(file) for file in Path(__file__).parent.glob("*.py")}))


@functools.cache
def _stamp(file: str) -> tuple[str, int, int]:
    state = Path(file).stat()
    return Path(file).name, state.st_mtime_ns, state.st_size


def get_num_threads() -> int:
    """How many threads a kernel is split over."""
    return _num_threads


def set_num_threads(n: SupportsIndex) -> None:
    """Split kernels over ``n`` threads, for the whole process.

    At the start it is SCRATCH_NUM_THREADS, or where that is not set one for each core this process may use.

    Raises:
        TypeError: ``n`` is not an int.
        ValueError: ``n`` is below 1.
    """
    global _num_threads
    _num_threads = checks.integer("set_num_threads", "n", n, low=1)
    _forget_pool()


def for_each(run: Callable[..., None], n: int, *arguments: Any, ranges_per_thread: int = 4, values: int | None = None) -> None:
    """Call ``run(first, last, *arguments)`` over ranges that together make up ``range(n)``, on all threads at once.

    Whoever is done with a range takes the next, so a few of them a thread keep all busy to the end; one is for work whose
    every range has a price of its own. ``values`` is how many a piece goes through, where so few may be in all of them that
    they are not worth a thread; without it every piece is.
    """
    threads = min(_num_threads, n)
    if values is not None:
        threads = min(threads, n * values // WORTH_A_THREAD)
    if threads <= 1:
        if n > 0:
            run(0, n, *arguments)
        return
    count = min(n, ranges_per_thread * threads)
    bounds = [n * i // count for i in range(count + 1)]
    ranges = iter(list(itertools.pairwise(bounds)))  # a list's iterator hands each range out exactly once

    def work() -> None:
        for first, last in ranges:
            run(first, last, *arguments)

    # Each helper in a copy of the caller's context: np.errstate and use_rung hold there too.
    helpers = [_pool().submit(contextvars.copy_context().run, work) for _ in range(threads - 1)]
    work()
    for helper in helpers:
        # Not begun means that other callers keep the pool busy; by now there is nothing left for it to do.
        if not helper.cancel():
            helper.result()


def _pool() -> ThreadPoolExecutor:
    global _threads
    if _threads is None:
        _threads = ThreadPoolExecutor(max(1, _num_threads - 1), thread_name_prefix="scratch")
    return _threads


def _forget_pool() -> None:
    global _threads
    _threads = None  # its threads end once the work they have is done


def _threads_at_the_start() -> int:
    asked = os.environ.get("SCRATCH_NUM_THREADS")
    if asked is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not asked.isdecimal() or int(asked) < 1:
        raise ValueError(f"SCRATCH_NUM_THREADS must be a positive int, got {asked!r}")
    return int(asked)


_num_threads = _threads_at_the_start()
_threads: ThreadPoolExecutor | None = None
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # a forked child inherits the pool but none of its threads
