"""An exception at every single step of memory.py, threads.py and products.py, one run for each: nothing may be left behind.

``python -m parity_tests.sweeps NAME`` runs in its own process, since tracing steps disturbs coverage.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import CodeType

import numpy as np

import scratch
from parity_tests.steps import Steps
from scratch.compiled import memory, products, threads

FILES = (memory.__file__, threads.__file__, products.__file__)
LIMIT = 60  # seconds for anything that may hang


class Interrupt(BaseException):
    pass


def follows(code: CodeType) -> bool:
    return code.co_filename in FILES and code.co_name != "_watch"  # _watch is compiled


def interrupted(action: Callable[[], None]) -> Iterator[bool]:
    """Run the action again and again, with an exception at its first step, its second, and so on; yields whether the exception
    got out.
    """
    for number in itertools.count(1):
        steps, came = Steps(number, Interrupt, follows), False
        sys.settrace(steps)
        try:
            next(_apart(action))
        except Interrupt:
            came = True
        finally:
            sys.settrace(None)
        assert not steps.lost, f"no exception would come at {steps.lost}"
        if steps.left > 0:
            print(f"{number - 1} steps")
            return
        yield came


def _apart(action: Callable[[], None]) -> Iterator[None]:
    """A generator handles its own exceptions: if one comes just after another was handled, Python keeps the other one."""
    action()
    yield


def _meet(barrier: threading.Barrier) -> None:
    barrier.wait()


def all_take_part(count: int) -> None:
    together = threading.Barrier(count, timeout=LIMIT)
    threads.for_each(lambda first, last: _meet(together), count, ranges_per_thread=1)


def pool_threads() -> list[threads._Thread]:
    """Those that run: Python also lists one whose start was interrupted, though it never begins."""
    return [thread for thread in threading.enumerate() if isinstance(thread, threads._Thread) and thread.is_alive()]


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.0001)


def calls(count: int = 3) -> None:
    """Once the exception is out, no range is being computed and no array is kept; all threads take part in the next call."""
    scratch.set_num_threads(count)
    all_take_part(count)
    at_work = [0]
    arrays: list[weakref.ref[np.ndarray]] = []

    def run(first: int, last: int, array: np.ndarray) -> None:
        at_work.append(0)
        time.sleep(0.0002)
        array[first:last] += 1
        at_work.pop()

    def action() -> None:
        array = np.zeros(9)
        arrays.append(weakref.ref(array))
        threads.for_each(run, 9, array)
        assert (array == 1).all()

    for number, came in enumerate(interrupted(action)):
        assert came, "an exception was swallowed"
        assert len(at_work) == 1, "a thread is still at work"
        assert arrays.pop()() is None, "an array outlived its call"
        if number % 2:
            time.sleep(0.001)  # let them fall asleep
        all_take_part(count)
        [pool] = threads._pools
        assert not pool.waiting
        wait_until(lambda pool=pool: len(pool.idle) == count - 1)  # type: ignore[misc]
        assert len(pool.threads) == count - 1


def errors() -> None:
    """An exception in another thread, and one in the caller."""
    scratch.set_num_threads(2)
    caller, both = threading.get_ident(), threading.Barrier(2, timeout=LIMIT)
    arrays: list[weakref.ref[np.ndarray]] = []

    def run(first: int, last: int, array: np.ndarray) -> None:
        if threading.get_ident() != caller:
            raise MemoryError
        time.sleep(0.0002)

    def action() -> None:
        array = np.zeros(9)
        arrays.append(weakref.ref(array))
        with contextlib.suppress(MemoryError):
            threads.for_each(run, 9, array)

    all_take_part(2)
    gc.freeze()  # Numba's objects, which the first call makes; all would be visited at each step
    for _ in interrupted(action):
        gc.collect()  # an error and its frames, if the exception came just before they were separated
        assert arrays.pop()() is None, "an array outlived its call"
        threads.for_each(lambda first, last: _meet(both), 2)


def pools() -> None:
    """set_num_threads: no sleeping thread is left behind."""

    def action() -> None:
        scratch.set_num_threads(3)
        scratch.set_num_threads(2)

    for _ in interrupted(action):
        scratch.set_num_threads(3)
        all_take_part(3)
        assert len(threads._pools) == 1
        wait_until(lambda: len(pool_threads()) == 2)


def blocks() -> None:
    """No block is lent twice, none is lost, and the shelf counts correctly."""
    float32 = np.dtype(np.float32)
    shelf = memory._shelf
    shelf.limit = 1 << 21

    def action() -> None:
        size = memory.SMALL // 4 + next(sizes)
        first, second = memory.empty((size,), float32), memory.workspace(size, float32)
        view = first[1:]
        del first
        third, fourth = memory.copy(view), memory.workspace(size, float32)
        assert len({array.ctypes.data for array in (view, second, third, fourth)}) == 4
        del view, third
        memory.empty((size,), float32)

    def none_is_lost(free: int) -> bool:
        return sum(type(thing) is memory._Block for thing in gc.get_objects()) == free

    def lying() -> int:
        return sum(size * len(some) for size, some in shelf.blocks.items())

    sizes = itertools.cycle(range(1, 20))
    for came in interrupted(action):
        assert came, "an exception was swallowed"
        assert shelf.bytes >= lying()
        free = [*shelf.freed, *itertools.chain(*shelf.blocks.values())]
        assert len(set(free)) == len(free)
        wait_until(functools.partial(none_is_lost, len(free)))  # a block that is neither free nor lent would stay so forever
        memory.empty((memory.SMALL,), float32)
        assert lying() <= shelf.limit
    shelf.bytes = shelf.limit + 1
    memory.empty((memory.SMALL,), float32)
    assert shelf.bytes == lying()


def multiplying() -> None:
    """No fork waits for a product that is gone, and no product for a fork."""

    def action() -> None:
        for _ in range(2):
            products._gate.multiply = products._wait_for_fork  # as a fork leaves it
            product = products.matmul(np.ones((2, 3)), np.ones((3, 2)))
            assert (product == 3).all()

    def another() -> None:
        free.append(products._forking.acquire(blocking=False))
        products._forking.release()

    free: list[bool] = []
    for came in interrupted(action):
        assert came, "an exception was swallowed"
        products._open()
        assert sys.getrefcount(products._multiply) == products._UNUSED + 1, "a product that is gone is counted"
        thread = threading.Thread(target=another)
        thread.start()
        thread.join(LIMIT)
        assert free.pop(), "the lock is still taken"


if __name__ == "__main__":
    gc.freeze()  # makes collecting quick
    if sys.version_info >= (3, 13):  # a thread that is not traced ends the tracing of a function for all threads
        threading.settrace(Steps(0, Interrupt, follows))
    globals()[sys.argv[1]]()
