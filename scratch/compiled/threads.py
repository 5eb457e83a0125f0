"""The threads that run kernels, and how they stay awake between one kernel and the next.

:func:`for_each` splits a kernel's ``range(n)`` among threads. Three rules keep the bits of a result the same for any number of
threads. What a work item computes depends only on its index. Two items may write the same element only if they write the same
value. Sums over items are added up afterwards, in the order of the items.

A sleeping thread takes about 0.1 ms to wake up in a virtual machine, which is longer than many kernels run. So a thread without
work does what every runtime of this kind does. For a moment it watches a number in memory, without the GIL (the lock that only
one Python thread can hold), until another thread changes it. Only then does it go to sleep.

Why not Numba's ``prange``: Numba's threading layers abort the process when two Python threads call it at once (workqueue) or in
a forked child (omp), and a kernel with ``parallel=True`` takes seconds to compile.
"""

from __future__ import annotations

import _thread
import atexit
import collections
import contextlib
import contextvars
import functools
import itertools
import math
import operator
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, SupportsIndex

import numpy as np

from scratch.compiled import cores, environment, forks, products
from scratch.compiled.jit import JIT_OFF, kernel
from scratch.compiled.vectors import load_acquire
from scratch.core import checks

MOST = 1024  # threads: more than any machine has cores for; a typing error would otherwise ask for millions
WORTH_A_THREAD = 1 << 17  # values to process: with fewer, one core is done before another has begun
# The shortest range is an eighth of a thread's share. So one thread works at most that much longer than another. Each range has a
# price: some microseconds, and 0.05 ms if its thread then has to wait for the GIL. So no range is shorter than that. And none
# has fewer values than WORTH_A_RANGE, for which a simple kernel takes 0.1 ms, unless a thread would get no range.
SHORTEST = 8
WORTH_A_RANGE = 2 * WORTH_A_THREAD
LINGER = 2e-4  # seconds that a thread watches a flag before it goes to sleep
# Seconds for which the thread waits, after the flag is set, before it asks for the GIL. By then the caller, which held the GIL,
# is in its own kernel. A thread that asks earlier falls asleep, and wakes up late.
GRACE = 8e-6
FOREVER = 1 << 62  # loads
AT_EXIT = 10.0  # seconds: how long the end of the process waits for threads that are in a kernel


def get_num_threads() -> int:
    """The number of threads that a kernel is split over."""
    return _pools[-1].size


def set_num_threads(n: SupportsIndex) -> None:
    """Split kernels over ``n`` threads, for the whole process.

    The number starts as SCRATCH_NUM_THREADS or, if that is not set, as the number of cores this process may use.

    Raises:
        TypeError: ``n`` is not an int.
        ValueError: ``n`` is below 1 or above 1024.
    """
    environment.check()
    _pools.append(_Pool(checks.integer("set_num_threads", "n", n, low=1, high=MOST)))
    for pool in _pools[:-1]:  # a pool leaves the list once it is closed: if this is interrupted, the next call closes it
        pool.close()
        with contextlib.suppress(ValueError):  # another thread was faster
            _pools.remove(pool)


def for_each(
    run: Callable[..., None], n: int, *arguments: Any, ranges_per_thread: int | None = None, values: int | None = None
) -> None:
    """Call ``run(first, last, *arguments)`` over ranges that together make up ``range(n)``, on all threads at once.

    A thread that is done with a range takes the next one. The first ranges are long, because work items of one range can share
    what is in the cache. The last ranges are short, so that all threads finish together. ``ranges_per_thread`` asks for that
    many ranges per thread instead, all about equally long. Use 1 if every range has a fixed cost.

    ``values`` is about the number of simple steps that a work item takes, such as one element of relu. If all items together
    take too few steps, no other threads are used. Without ``values``, every item is worth a thread.
    """
    environment.check()
    pool = _pools[-1]
    threads, most = min(pool.size, n), n
    if values is not None:
        threads = min(threads, n * values // WORTH_A_THREAD)
        most = min(n, max(threads, n * values // WORTH_A_RANGE))
    if threads > 1:
        _split(run, _bounds(n, threads, most, ranges_per_thread), arguments, pool, threads - 1)
    elif n > 0:
        run(0, n, *arguments)


def _bounds(n: int, threads: int, most: int, ranges_per_thread: int | None) -> list[int]:
    """Where the ranges begin and end; there are ``most`` at most."""
    if ranges_per_thread is None and most < min(n, SHORTEST * threads):
        ranges_per_thread = most // threads  # a few equal ranges, as many for each thread, end together
    if ranges_per_thread is not None:
        count = min(most, ranges_per_thread * threads)
        return [n * i // count for i in range(count + 1)]
    shortest = max(math.ceil(n / most), n // (SHORTEST * threads))
    bounds = [0]
    while bounds[-1] < n:  # half of what is left, shared evenly among the threads
        bounds.append(min(n, bounds[-1] + max(shortest, (n - bounds[-1]) // (2 * threads))))
    return bounds


def _split(run: Callable[..., None], bounds: list[int], arguments: tuple[Any, ...], pool: _Pool, helpers: int) -> None:
    ranges = iter(list(itertools.pairwise(bounds)))  # a list's iterator hands each range out exactly once
    context = contextvars.copy_context()  # np.errstate and use_rung apply in the other threads too
    errors: list[BaseException] = []

    def work() -> None:
        for first, last in ranges:
            run(first, last, *arguments)

    def help_out() -> None:
        try:
            context.copy().run(work)
        except BaseException as error:
            list(ranges)  # so no thread begins another range
            errors.append(error)

    call = _Call(help_out, helpers)
    # Other threads may write to the arrays until they are done, so no exception may leave this function before that. An
    # exception may come between any two steps in Python, but not within a call in C. So cleaning up is a single call in C. It
    # uses up the ranges and the free places, then waits for the other threads.
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
        list(end)  # in case an exception came just before the same line above; else nothing is left to do
        errors.clear()  # or else a frame and the error keep each other, and all arrays, alive


_UNUSED = np.zeros(1, np.int64)  # where it does not matter what is written
_FOREVER, _NO_GRACE, _NOWHERE = itertools.repeat(FOREVER), itertools.repeat(0), itertools.repeat(_UNUSED)


class _Call:
    """A call of for_each as other threads see it: it has places, and each thread that helps takes one.

    This object may stay in a queue after the call has ended, so it keeps no array alive.
    """

    def __init__(self, help_out: Callable[[], None], places: int) -> None:
        self.help_out = weakref.ref(help_out)
        self.places = iter(range(places))  # hands each out exactly once
        self.ended = np.zeros(places, np.int64)  # 1 at a place once no thread works there or holds the GIL for it
        self.bells: queue.SimpleQueue[None] = queue.SimpleQueue()  # one for each thread that is done
        self.taking = map(self.ended.__setitem__, self.places, itertools.repeat(1))
        # Twice without the JIT: there _watch is not a call in C, and an exception may end it once.
        self.watched = iter([self.ended] * (1 + JIT_OFF))
        self.waiting = map(_watch, self.watched, _FOREVER, _NO_GRACE, _NOWHERE)
        self.lost = False  # True in a forked child, if it lacks threads of the call

    def help(self) -> None:
        """Called by a thread that has taken a place. for_each waits for that thread, so the function still exists."""
        help_out = self.help_out()
        assert help_out is not None
        help_out()


class _Pool:
    """Threads, and calls that wait for them.

    Like memory.py it has no lock: everything changes hands in one call in C. A thread takes its work by itself, so waking it too
    often does no harm. A thread is first woken and then removed from the idle ones, so none is forgotten asleep.
    """

    def __init__(self, size: int) -> None:
        self.size = size  # threads, including the one that calls for_each
        # A seat is a tuple of arguments for _begin. Each next(self.beginning) takes one and begins a thread, in one call in C.
        self.seats = itertools.repeat((self,), size - 1)
        self.returned: collections.deque[tuple[_Pool]] = collections.deque()  # of threads that could not begin
        seats = itertools.chain(self.seats, iter(self.returned.popleft, None))
        self.beginning = map(_thread.start_new_thread, itertools.repeat(_begin), seats)
        self.threads: list[_Thread] = []
        self.idle: collections.deque[_Rest] = collections.deque()  # the thread that became idle last comes first
        self.waiting: collections.deque[_Call] = collections.deque()  # each call once for every thread that it wants
        self.closed = False

    def give(self, call: _Call) -> None:
        """Give a call to an idle thread or a new one; if all are busy, to the first that becomes idle.

        If the pool is closed or the system has no more threads, no thread gets it, and the caller does all the work.
        """
        self.waiting.append(call)
        self.wake_one()

    def wake_one(self) -> None:
        """Wake an idle thread; if there is none, begin a new one."""
        while self.idle:
            try:
                rest = self.idle[0]
                rest.wake()
                self.idle.remove(rest)
            except (IndexError, ValueError):  # another call was faster: try the next thread
                continue
            return
        if not self.closed:
            _loads(LINGER)  # compiles _watch now, while there is no thread that a fork would wait for
            try:
                next(self.beginning)
            except IndexError:  # all seats are taken
                pass
            except (RuntimeError, MemoryError):  # the system has no more threads, or no memory for one
                self.returned.append((self,))

    def take_back(self, call: _Call) -> None:
        """Take the places that no thread has taken; then wait until the other threads are done, or nearly so."""
        left = len(list(call.taking))
        try:
            for _ in range(left):
                self.waiting.remove(call)
        except ValueError:  # threads that found no place have removed some
            pass
        if left == len(call.ended) or _watch(call.ended, _loads(LINGER), 0, _UNUSED):
            list(call.watched)  # all are done, so the end need not wait again
        else:
            for _ in range(len(call.ended) - left):
                call.bells.get()

    def next(self) -> _Call | None:
        try:
            return self.waiting.popleft() if self.waiting else None
        except IndexError:  # another thread was faster
            return None

    def dismiss(self) -> list[_Thread]:
        """Let the threads end; return those that were idle."""
        self.closed = True
        idle = list(self.idle)
        for rest in idle:
            rest.wake()
        return [rest.thread for rest in idle]

    def close(self) -> None:
        """Let the threads end, and wait for those that were idle."""
        for thread in self.dismiss():
            thread.join()


class _Rest:
    """A thread's rest between one call and the next."""

    def __init__(self, thread: _Thread) -> None:
        self.thread = thread
        self.called = np.zeros(1, np.int64)  # 1 when the thread is called; it sees this while it is awake
        self.asleep = threading.Lock()
        self.asleep.acquire()

    def wake(self) -> None:
        self.called[0] = 1
        try:  # noqa: SIM105 - a microsecond faster
            self.asleep.release()
        except RuntimeError:  # it was woken before
            pass


class _Thread(threading.Thread):
    """Helps one call after the other until its pool is closed."""

    def __init__(self, pool: _Pool) -> None:
        super().__init__(name="scratch", daemon=True)
        self.pool = pool
        self.call: _Call | None = None  # the last one

    def run(self) -> None:
        self._help_until_closed()
        if threading.main_thread() is self:  # this thread has forked: in the child it is the only one
            with contextlib.suppress(Exception):
                print("error: for_each: a thread of a kernel forked, and the child lacks the one that called it", file=sys.stderr)
            os._exit(1)

    def _help_until_closed(self) -> None:
        pool, place = self.pool, None
        pool.threads.append(self)
        rest = _Rest(self)
        _at_work[self] = None
        while True:
            pool.idle.appendleft(rest)  # before the caller continues: it may need this thread again
            if self.call is None or place is None:
                ended = np.empty(1, np.int64)
            else:
                ended = self.call.ended[place : place + 1]
                self.call.bells.put(None)
            call = pool.next()  # a call that comes later finds this thread idle
            if call is not None or pool.closed:
                ended[0] = 1
            elif not _watch(rest.called, _loads(LINGER), _loads(GRACE), ended):
                rest.asleep.acquire()
            try:
                pool.idle.remove(rest)
            except ValueError:  # the call that woke it was faster
                if call is not None:  # that call expects this thread, which took another one: wake one more
                    pool.wake_one()
            self.call = call or pool.next()
            if self.call is None and pool.closed:
                _at_work.pop(self, None)
                return
            rest = _Rest(self)  # a new one: a caller that still holds the last one may wake that
            place = None if self.call is None else next(self.call.places, None)
            if self.call is not None and place is not None:
                self.call.help()


def _begin(pool: _Pool) -> None:
    """Begin a thread, from one that no signal interrupts: an interrupted Thread.start leaves Python's locks held and hangs."""
    try:
        _Thread(pool).start()
    except Exception:  # the system has no more threads, or memory for one
        pool.returned.append((pool,))


@kernel
def _watch(flags: np.ndarray, looks: int, grace: int, without_gil: np.ndarray) -> bool:
    """Whether all ``flags`` become 1 while this thread watches them, without the GIL and awake.

    ``without_gil`` becomes 1 at once: compiled code runs only after the GIL is released, so another thread can wait for that.
    """
    without_gil[0] = 1
    seen = 0
    for _ in range(looks):
        if load_acquire(flags[seen:]) == 1:
            seen += 1
            if seen == flags.size:
                for _ in range(grace):
                    load_acquire(flags)
                return True
    return False


def _loads(seconds: float) -> int:
    """How many loads of a flag take that long. Without the JIT only 1: a loop in Python would hold the GIL that others need."""
    return 1 if JIT_OFF else max(1, int(seconds / _load()))


@functools.cache
def _load() -> float:
    """Seconds of one load in :func:`_watch`: 10 to 60 ns on x86, where a load includes a pause, and 1 or 2 ns elsewhere."""
    times, flag = [], np.zeros(1, np.int64)
    for _ in range(10):
        began = time.perf_counter()
        _watch(flag, 1000, 0, _UNUSED)
        times.append(time.perf_counter() - began)
    return min(times) / 1000


def _after_fork() -> None:
    """In a child: make a new pool, and do not wait for threads that the child does not have."""
    for thread in list(_at_work):
        call = thread.call
        if call is not None:
            list(call.taking)
            if not call.ended.all():  # all are 1 if this loop has met another thread of this call
                call.lost = True
            call.ended[:] = 1
            for _ in call.ended:
                call.bells.put(None)
    for pool in _pools:  # the thread that forked may belong to a pool: then it ends
        pool.closed = True
        pool.waiting.clear()
    _at_work.clear()
    _pools[:] = [_Pool(get_num_threads())]


def _end_threads() -> None:
    end = time.monotonic() + AT_EXIT
    for pool in list(_pools):
        pool.dismiss()
        while time.monotonic() < end:
            taken = pool.size - 1 - operator.length_hint(pool.seats)
            if taken <= len(pool.threads) + len(pool.returned):  # none is about to begin
                break
            time.sleep(0.001)
    for thread in threading.enumerate():
        if isinstance(thread, _Thread) and thread is not threading.current_thread() and thread.is_alive():
            thread.join(max(0.0, end - time.monotonic()))


def _threads_at_the_start() -> int:
    return environment.choice("SCRATCH_NUM_THREADS", range(1, MOST + 1), f"an int from 1 to {MOST}", cores.available_cores)


_at_work: dict[_Thread, None] = {}  # of all pools, closed ones too: their threads may still be in a kernel
_pools = [_Pool(_threads_at_the_start())]  # the last is in use; a list, whose changes are atomic
atexit.register(_end_threads)  # a thread that leaves compiled code after the interpreter's end would abort
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
    products.wait_for_products()
    forks.wait_for_compilers()  # comes first at a fork and may take seconds; products are stopped only after it
