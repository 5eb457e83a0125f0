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

import _thread
import atexit
import collections
import contextlib
import contextvars
import itertools
import operator
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy as np

from scratch.core import checks, cores, environment, forks
from scratch.core.jit import JIT_OFF, kernel
from scratch.core.vectors import look

WORTH_A_THREAD = 1 << 17  # values to go through: with fewer, a core is done before another one has begun
# Looks at a flag before a thread falls asleep: some 0.2 ms where looking means a pause (x86), else a few microseconds. Without
# the JIT it looks once: a loop in Python would hold the GIL that the others need.
LINGER = 1 if JIT_OFF else 1 << 13
# More looks after the flag is set, before the thread asks for the GIL: the caller, who holds it, is in its own kernel by then.
GRACE = 200
FOREVER = 1 << 62  # looks


def get_num_threads() -> int:
    """How many threads a kernel is split over."""
    return _pools[-1].size


def set_num_threads(n: SupportsIndex) -> None:
    """Split kernels over ``n`` threads, for the whole process.

    At the start it is SCRATCH_NUM_THREADS, or where that is not set one for each core this process may use.

    Raises:
        TypeError: ``n`` is not an int.
        ValueError: ``n`` is below 1.
    """
    environment.check()
    _pools.append(_Pool(checks.integer("set_num_threads", "n", n, low=1)))
    for pool in _pools[:-1]:  # a pool leaves the list when it is closed: where this is interrupted, the next call closes it
        pool.close()
        with contextlib.suppress(ValueError):  # another thread was faster
            _pools.remove(pool)


def for_each(run: Callable[..., None], n: int, *arguments: Any, ranges_per_thread: int = 4, values: int | None = None) -> None:
    """Call ``run(first, last, *arguments)`` over ranges that together make up ``range(n)``, on all threads at once.

    Whoever is done with a range takes the next, so a few of them a thread keep all busy to the end; one is for work whose
    every range has a price of its own. ``values`` is how many a piece goes through, where so few may be in all of them that
    they are not worth a thread; without it every piece is.
    """
    environment.check()
    pool = _pools[-1]
    threads = min(pool.size, n)
    if values is not None:
        threads = min(threads, n * values // WORTH_A_THREAD)
    if threads > 1:
        count = min(n, ranges_per_thread * threads)
        _split(run, [n * i // count for i in range(count + 1)], arguments, pool, threads - 1)
    elif n > 0:
        run(0, n, *arguments)


def _split(run: Callable[..., None], bounds: list[int], arguments: tuple[Any, ...], pool: _Pool, helpers: int) -> None:
    ranges = iter(list(itertools.pairwise(bounds)))  # a list's iterator hands each range out exactly once
    context = contextvars.copy_context()  # np.errstate and use_rung hold in the other threads too
    errors: list[BaseException] = []

    def work() -> None:
        for first, last in ranges:
            run(first, last, *arguments)

    def help_out() -> None:
        try:
            context.copy().run(work)
        except BaseException as error:
            list(ranges)  # no thread begins another
            errors.append(error)

    call = _Call(help_out, helpers)
    # Other threads write to arrays until the end, so no exception may get past it. One may come between any two steps in
    # Python, but not within a call in C. So the end is one: begin no range, take the places left, wait for the others.
    end = map(list, (ranges, call.taking, call.waiting))
    try:
        try:
            for _ in range(helpers):
                pool.give(call)
            work()
            pool.take_back(call)
        finally:
            list(end)
        if call.lost:
            raise RuntimeError("for_each: the process forked in the middle of a kernel, and the child lacks its other threads")
        if errors:
            raise errors[0]
    finally:
        list(end)  # for an exception just before the line above; else there is nothing left
        errors.clear()  # or else a frame and the error keep each other, and all arrays, alive


_UNUSED = np.zeros(1, np.int64)  # where it does not matter what is written
_FOREVER, _NO_GRACE, _NOWHERE = itertools.repeat(FOREVER), itertools.repeat(0), itertools.repeat(_UNUSED)


class _Call:
    """What other threads see of a call of for_each: places, of which each thread that helps takes one.

    It may wait for a thread longer than the call lasts, so it keeps no array.
    """

    def __init__(self, help_out: Callable[[], None], places: int) -> None:
        self.help_out = weakref.ref(help_out)
        self.places = iter(range(places))  # hands each out exactly once
        self.ended = np.zeros(places, np.int64)  # 1 where nobody is at work (any more), or holds the GIL
        self.bells: queue.SimpleQueue[None] = queue.SimpleQueue()  # one for each thread that is done
        self.taking = map(self.ended.__setitem__, self.places, itertools.repeat(1))
        # Twice without the JIT, where it is no call in C, and an exception may end it once.
        self.watched = iter([self.ended] * (1 + JIT_OFF))
        self.waiting = map(_watch, self.watched, _FOREVER, _NO_GRACE, _NOWHERE)
        self.lost = False  # in a forked child

    def help(self) -> None:
        """By a thread that has taken a place: until it has ended, the caller waits, and the function is there."""
        help_out = self.help_out()
        assert help_out is not None
        help_out()


class _Pool:
    """Threads, and calls that wait for them.

    Like memory.py it has no lock: what is handed over changes hands by one call in C. A thread takes its work by itself, so
    waking it too often does no harm; and it is woken before it is nobody's to wake.
    """

    def __init__(self, size: int) -> None:
        self.size = size  # threads, with the one that calls
        # A seat is the arguments of _begin. Each step of the last takes one and begins a thread, in one call in C.
        self.seats = itertools.repeat((self,), size - 1)
        self.returned: collections.deque[tuple[_Pool]] = collections.deque()  # where a thread could not begin
        seats = itertools.chain(self.seats, iter(self.returned.popleft, None))
        self.beginning = map(_thread.start_new_thread, itertools.repeat(_begin), seats)
        self.threads: list[_Thread] = []
        self.idle: collections.deque[_Rest] = collections.deque()  # the last to rest is the first
        self.waiting: collections.deque[_Call] = collections.deque()  # as often as threads are wanted
        self.closed = False

    def give(self, call: _Call) -> None:
        """To an idle thread or a new one; if there are enough, to the first that has nothing else to do.

        To no thread where the pool is closed or the system has no more: the caller does it all then.
        """
        self.waiting.append(call)
        while self.idle:
            try:
                rest = self.idle[0]
                rest.wake()
                self.idle.remove(rest)
            except (IndexError, ValueError):  # another call was faster: it goes on with the next
                continue
            return
        if not self.closed:
            # Compiled here: no thread is there yet, and no fork has to wait for one.
            _watch(_UNUSED, 1, 0, _UNUSED)
            try:
                next(self.beginning)
            except IndexError:  # all seats are taken
                pass
            except RuntimeError:  # the system has no more threads
                self.returned.append((self,))

    def take_back(self, call: _Call) -> None:
        """The places that no thread has taken; then sleep until the others are done, or about to be."""
        left = len(list(call.taking))
        try:
            for _ in range(left):
                self.waiting.remove(call)
        except ValueError:  # threads that found no place have been here
            pass
        if left == len(call.ended) or _watch(call.ended, LINGER, 0, _UNUSED):
            list(call.watched)  # nobody need wait again
        else:
            for _ in range(len(call.ended) - left):
                call.bells.get()

    def next(self) -> _Call | None:
        try:
            return self.waiting.popleft() if self.waiting else None
        except IndexError:  # another thread was faster
            return None

    def close(self) -> None:
        """Let the threads come to their end, and wait for those that are idle."""
        self.closed = True
        for rest in list(self.idle):
            rest.wake()
            rest.thread.join()


class _Rest:
    """A thread's rest, from one call to the next."""

    def __init__(self, thread: _Thread) -> None:
        self.thread = thread
        self.called = np.zeros(1, np.int64)  # 1 when it is called, for whoever is awake to see it
        self.asleep = threading.Lock()
        self.asleep.acquire()

    def wake(self) -> None:
        self.called[0] = 1
        try:  # noqa: SIM105 - a microsecond faster
            self.asleep.release()
        except RuntimeError:  # it was woken before
            pass


class _Thread(threading.Thread):
    """Helps one call after the other, until its pool is closed."""

    def __init__(self, pool: _Pool) -> None:
        super().__init__(name="scratch", daemon=True)
        self.pool = pool
        self.call: _Call | None = None  # the last one

    def run(self) -> None:
        pool, place = self.pool, None
        pool.threads.append(self)
        rest = _Rest(self)
        while True:
            pool.idle.appendleft(rest)  # before its caller goes on, who may want this thread again
            if self.call is None or place is None:
                ended = np.empty(1, np.int64)
            else:
                ended = self.call.ended[place : place + 1]
                self.call.bells.put(None)
            call = pool.next()  # one that comes later finds this thread idle
            if call is not None or pool.closed:
                ended[0] = 1
            elif not _watch(rest.called, LINGER, GRACE, ended):
                rest.asleep.acquire()
            try:  # noqa: SIM105 - a microsecond faster
                pool.idle.remove(rest)
            except ValueError:  # the call that woke it was faster
                pass
            self.call = call or pool.next()
            if self.call is None and pool.closed:
                return
            rest = _Rest(self)  # another one: whoever still knows the last may wake that
            place = None if self.call is None else next(self.call.places, None)
            if self.call is not None and place is not None:
                self.call.help()


def _begin(pool: _Pool) -> None:
    """Begin a thread, in one that no signal interrupts: an interrupted Thread.start leaves locks of Python's that hang it."""
    try:
        _Thread(pool).start()
    except Exception:  # the system has no more threads, or memory for one
        pool.returned.append((pool,))


@kernel
def _watch(flags: np.ndarray, looks: int, grace: int, without_gil: np.ndarray) -> bool:
    """Whether all ``flags`` become 1 while this thread looks at them, neither holding the GIL nor asleep.

    ``without_gil`` becomes 1 at once: compiled code runs when the GIL is gone, so whoever waits for that can tell.
    """
    without_gil[0] = 1
    seen = 0
    for _ in range(looks):
        if look(flags[seen:]) == 1:
            seen += 1
            if seen == flags.size:
                for _ in range(grace):
                    look(flags)
                return True
    return False


def _after_fork() -> None:
    """In a child: a pool of its own, and no waiting for threads that it does not have."""
    for pool in _pools:
        for thread in pool.threads:
            call = thread.call
            if call is not None:
                list(call.taking)
                call.lost = not call.ended.all()
                call.ended[:] = 1
                for _ in call.ended:
                    call.bells.put(None)
    _pools[:] = [_Pool(get_num_threads())]


def _end_threads() -> None:
    for pool in list(_pools):
        pool.close()
        while pool.size - 1 - operator.length_hint(pool.seats) > len(pool.threads) + len(pool.returned):  # one is about to begin
            time.sleep(0.001)
    for thread in threading.enumerate():
        if isinstance(thread, _Thread) and thread.is_alive():
            thread.join()


def _threads_at_the_start() -> int:
    return environment.choice("SCRATCH_NUM_THREADS", range(1, 10**9), "a positive int", cores.available_cores)


_pools = [_Pool(_threads_at_the_start())]  # the last is in use; a list, whose changes are atomic
atexit.register(_end_threads)  # a thread that comes back from compiled code when the interpreter is gone would abort
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
    forks.wait_for_compilers()
