"""The threads that run kernels, and how they are kept from falling asleep between one kernel and the next.

:func:`for_each` splits a kernel's ``range(n)`` among threads. Three rules keep results the same bits for any number of them:
what a piece computes depends on its index alone, no two pieces write different bits to the same place, and sums over pieces
are added up afterwards in the order of the pieces.

A thread that sleeps takes some 0.1 ms to wake up, in a virtual machine, which is longer than many a kernel takes. So one that
has nothing left to do does what every runtime of this kind does: for a moment it watches a number in memory, without the GIL
(the lock that only one Python thread can hold), for somebody to change it, and only then goes to sleep.

Why our own threads and not Numba's ``prange``: Numba's threading layers abort the process when two Python threads call in
at once (workqueue) or in a forked child (omp); and a kernel with ``parallel=True`` takes seconds to compile.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import contextvars
import functools
import itertools
import os
import threading
from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy as np

from scratch.core import checks, cores, environment
from scratch.core.jit import JIT_OFF, kernel
from scratch.core.vectors import look

WORTH_A_THREAD = 1 << 17  # values to go through: with fewer, a core is done before another one has begun
# Looks at a flag before a thread falls asleep: some 0.2 ms where looking means a pause (x86), else a few microseconds. Without
# the JIT it looks once: a loop in Python would hold the GIL that the others need.
LINGER = 1 if JIT_OFF else 1 << 13
# More looks after the flag is set, before the thread asks for the GIL: the caller, who holds it, is in its own kernel by then.
GRACE = 200


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
    environment.check()
    _num_threads = checks.integer("set_num_threads", "n", n, low=1)
    _pools.append(_Pool())
    _pools.pop(0).close()  # one of the pools before: each call of several at once closes another one


def for_each(run: Callable[..., None], n: int, *arguments: Any, ranges_per_thread: int = 4, values: int | None = None) -> None:
    """Call ``run(first, last, *arguments)`` over ranges that together make up ``range(n)``, on all threads at once.

    Whoever is done with a range takes the next, so a few of them a thread keep all busy to the end; one is for work whose
    every range has a price of its own. ``values`` is how many a piece goes through, where so few may be in all of them that
    they are not worth a thread; without it every piece is.
    """
    environment.check()
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
        try:
            for first, last in ranges:
                run(first, last, *arguments)
        except BaseException:
            collections.deque(ranges, maxlen=0)  # nobody begins another
            raise

    pool = _pools[-1]
    shares = [_Share(work, pool) for _ in range(threads - 1)]
    errors: list[BaseException | None] = []
    try:
        for share in shares:
            pool.give(share)
        work()
    finally:
        _end(shares, errors)
    error = next(filter(None, errors), None)
    if error is not None:
        try:
            raise error
        finally:
            errors.clear()
            del error  # or else a frame and the error keep each other, and all arrays, alive


def _end(shares: list[_Share], errors: list[BaseException | None]) -> None:
    """Wait for all shares, and note their errors and what interrupts the waiting: until all have ended, arrays are written to."""
    while shares:
        try:
            while shares:
                errors.append(shares[-1].end())
                shares.pop()
        except BaseException as interrupt:
            errors.insert(0, interrupt)  # the first to be raised


class _Share:
    """What another thread is to do of the caller's work: as many ranges as it can get."""

    def __init__(self, work: Callable[[], None], pool: _Pool) -> None:
        # np.errstate and use_rung hold in the other thread too.
        self.work: Callable[..., None] = functools.partial(contextvars.copy_context().run, work)
        self.pool = pool
        self.held = threading.Lock()  # by the thread that does the share, until it is done; by the caller who ends it
        self.begun = False
        self.without_gil = np.zeros(1, np.int64)  # 1 when the thread has done the share, and let go of the GIL
        self.error: BaseException | None = None

    def do(self) -> bool:
        """Whether it is this thread that holds the share now, and has done what there was to do."""
        if not self.held.acquire(blocking=False):
            return False
        self.begun, work, self.work = True, self.work, _nothing
        try:
            work()
        except BaseException as error:
            self.error = error
        return True

    def end(self) -> BaseException | None:
        """Wait until the share is done, if it was begun. Afterwards it keeps neither work, and with it arrays, nor error.

        Whoever is interrupted may call this again.
        """
        if self.held.locked():
            _watch(self.without_gil, LINGER, 0, np.empty(1, np.int64))
        with self.held:
            self.work = _nothing
            error, self.error = self.error, None
        if not self.begun:
            self.pool.forget(self)
        return error


def _nothing() -> None:
    pass


class _Pool:
    """Threads, and shares that wait for one. A share waits only while no thread is idle."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # taken again where a signal's handler, or a finalizer, calls a kernel meanwhile
        self.threads = 0
        self.closed = False
        self.idle: list[_Thread] = []
        self.waiting: list[_Share] = []

    def give(self, share: _Share) -> None:
        """To an idle thread or a new one; if there are enough, to the first that has nothing else to do.

        To nobody where the pool is closed or the system has no more threads: the caller does it all then.
        """
        with self.lock:
            thread = self.idle.pop() if self.idle else None
            new = thread is None and not self.closed and self.threads < _num_threads - 1
            self.threads += new
            if thread is None and not new and not self.closed:
                self.waiting.append(share)
        if thread is not None:
            thread.wake(share)
        elif new:
            try:
                # Compiled here: if this process forked while another thread compiles, the child would wait for Numba's lock
                # forever.
                _watch(np.ones(1, np.int64), 1, 0, np.empty(1, np.int64))
                _Thread(self, share).start()
            except BaseException as error:
                with self.lock:
                    self.threads -= 1
                if not isinstance(error, RuntimeError):  # the system has no more threads
                    raise

    def forget(self, share: _Share) -> None:
        """The share, unless a thread has taken it."""
        with self.lock, contextlib.suppress(ValueError):
            self.waiting.remove(share)

    def more_for(self, thread: _Thread) -> _Share | None:
        """The next share; if there is none the thread is idle from now on."""
        with self.lock:
            if self.waiting:
                return self.waiting.pop()
            if self.closed:
                thread.wake(None)
            else:
                self.idle.append(thread)
            return None

    def close(self) -> None:
        """Let the threads come to their end, and wait for those that are idle."""
        with self.lock:
            self.closed = True
            idle, self.idle = self.idle, []
        for thread in idle:
            thread.wake(None)
            thread.join()


class _Thread(threading.Thread):
    """Does one share after the other, until it is woken up for None."""

    def __init__(self, pool: _Pool, share: _Share) -> None:
        super().__init__(name="scratch", daemon=True)
        self.pool = pool
        self.share: _Share | None = share
        self.called = np.zeros(1, np.int64)  # 1 when it is called, for whoever is awake to see it
        self.asleep = threading.Lock()
        self.asleep.acquire()

    def wake(self, share: _Share | None) -> None:
        """Let it do the share; for None, end. Whoever was interrupted may call this again."""
        self.share = share
        self.called[0] = 1
        with contextlib.suppress(RuntimeError):  # it was awake already
            self.asleep.release()

    def run(self) -> None:
        while (share := self.share) is not None:
            begun = share.do()
            self.called[0] = 0
            more = self.pool.more_for(self)
            if begun:
                share.held.release()  # its caller may go on, and finds this thread idle
            if more is not None:
                share.without_gil[0] = 1
                self.share = more
            else:
                _watch(self.called, LINGER, GRACE, share.without_gil)
                self.asleep.acquire()


@kernel
def _watch(flag: np.ndarray, looks: int, grace: int, without_gil: np.ndarray) -> bool:
    """Whether ``flag`` becomes 1 while this thread looks at it, neither holding the GIL nor asleep.

    ``without_gil`` becomes 1 at once: compiled code runs when the GIL is gone, so whoever waits for that can tell.
    """
    without_gil[0] = 1
    for _ in range(looks):
        if look(flag) == 1:
            for _ in range(grace):
                look(flag)
            return True
    return False


def _forget_pool() -> None:
    _pools[:] = [_Pool()]


def _end_threads() -> None:
    for pool in _pools:
        pool.close()
    for thread in threading.enumerate():
        if isinstance(thread, _Thread):
            thread.wake(None)  # it may be nobody's: a caller was interrupted before it woke it
            thread.join()


def _threads_at_the_start() -> int:
    return environment.choice("SCRATCH_NUM_THREADS", range(1, 10**9), "a positive int", cores.available_cores)


_num_threads = _threads_at_the_start()
_pools = [_Pool()]  # the last is in use; a list, whose changes are atomic
atexit.register(_end_threads)  # a thread that comes back from compiled code when the interpreter is gone would abort
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # a forked child inherits the pool but none of its threads
