"""The threads that run kernels: every work item is done once, no array outlives its call, no thread is lost."""

from __future__ import annotations

import _thread
import contextvars
import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import scratch
from parity_tests.sweeps import pool_threads
from scratch.compiled import jit, threads


@pytest.fixture
def _threads():
    before = scratch.get_num_threads()
    yield
    scratch.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("n", [1, 2, 7])
def test_for_each_does_every_piece_once(n):
    scratch.set_num_threads(n)
    assert scratch.get_num_threads() == n
    for pieces in (0, 1, 5, 100):
        done = np.zeros(pieces, np.int64)

        def run(first: int, last: int, done: np.ndarray = done) -> None:
            done[first:last] += 1

        threads.for_each(run, pieces)
        assert (done == 1).all()


@pytest.mark.usefixtures("_threads")
def test_an_error_in_a_thread_reaches_the_caller_and_keeps_no_array():
    scratch.set_num_threads(2)
    caller, both = threading.get_ident(), threading.Barrier(2, timeout=60)

    def run(first: int, last: int, array: np.ndarray) -> None:
        both.wait()
        if threading.get_ident() != caller:
            raise MemoryError

    def call() -> weakref.ref[np.ndarray]:
        array = np.empty(1 << 20)
        with pytest.raises(MemoryError):
            threads.for_each(run, 2, array)
        return weakref.ref(array)

    gc.disable()
    try:
        assert call()() is None
    finally:
        gc.enable()


@pytest.mark.usefixtures("_threads")
def test_an_interrupt_waits_for_the_others():
    scratch.set_num_threads(3)
    caller, all_three = threading.get_ident(), threading.Barrier(3, timeout=60)
    done: list[int] = []

    def run(first: int, last: int) -> None:
        all_three.wait()
        if threading.get_ident() == caller:
            raise KeyboardInterrupt
        time.sleep(0.1)
        done.append(first)

    with pytest.raises(KeyboardInterrupt):
        threads.for_each(run, 3)
    assert len(done) == 2


@pytest.mark.parametrize("sweep", ["calls", "errors", "pools", "blocks", "multiplying"])
def test_an_exception_at_any_step_leaves_nothing_behind(sweep):
    run = subprocess.run([sys.executable, "-m", "parity_tests.sweeps", sweep], capture_output=True, text=True, timeout=600)
    assert (run.returncode, run.stderr) == (0, "")
    assert int(run.stdout.split()[0]) > 0


@pytest.mark.usefixtures("_threads")
def test_without_a_new_thread_the_caller_does_it_all(monkeypatch):
    start, asked = _thread.start_new_thread, []

    def fail_once(*arguments: Any) -> int:
        asked.append(arguments)
        if len(asked) == 1:
            raise RuntimeError("can't start new thread")
        return start(*arguments)

    monkeypatch.setattr(_thread, "start_new_thread", fail_once)
    scratch.set_num_threads(2)
    done: list[int] = []
    threads.for_each(lambda first, last: done.extend(range(first, last)), 8)
    assert done == list(range(8))
    both = threading.Barrier(2, timeout=60)

    def run(first: int, last: int) -> None:
        both.wait()

    threads.for_each(run, 2)  # the next call may have one


@pytest.mark.usefixtures("_threads")
def test_after_an_error_the_others_end_what_they_began_and_begin_nothing():
    scratch.set_num_threads(2)
    caller, both = threading.get_ident(), threading.Barrier(2, timeout=60)
    done: list[int] = []

    def run(first: int, last: int) -> None:
        if not done:
            both.wait()
        if threading.get_ident() == caller:
            raise MemoryError
        time.sleep(0.1)
        done.append(first)

    with pytest.raises(MemoryError):
        threads.for_each(run, 8)
    assert len(done) == 1


@pytest.mark.usefixtures("_threads")
def test_threads_end_when_fewer_are_wanted():
    for n in (5, 2, 1):
        scratch.set_num_threads(n)
        threads.for_each(lambda first, last: time.sleep(0.01), 40)
        assert len(pool_threads()) == n - 1


@pytest.mark.usefixtures("_threads")
def test_a_thread_that_sleeps_is_woken_up():
    scratch.set_num_threads(2)
    for pause in (0, 0.05, 0):
        time.sleep(pause)
        both = threading.Barrier(2, timeout=60)

        def run(first: int, last: int, both: threading.Barrier = both) -> None:
            both.wait()

        threads.for_each(run, 2)  # ends only when two threads take part


@pytest.mark.usefixtures("_threads")
def test_a_thread_that_was_woken_while_it_took_another_call_wakes_the_next(monkeypatch):
    """Two calls, two threads: one of them takes the first call, and is then woken for the second."""
    scratch.set_num_threads(3)
    all_three, together, both = (threading.Barrier(count, timeout=20) for count in (3, 2, 2))

    def run(first: int, last: int) -> None:
        all_three.wait()

    threads.for_each(run, 3)
    [pool] = threads._pools
    while len(pool.idle) < 2:
        time.sleep(0.001)

    def meet() -> None:
        both.wait()

    calls = [threads._Call(meet, 1) for _ in range(2)]
    take = threads._Pool.next

    def take_and_give(self: Any) -> Any:
        call = take(self)
        if call is calls[0]:
            self.give(calls[1])  # while the thread is still among the idle ones
        return call

    def first_one(first: int, last: int) -> None:
        together.wait()
        if threading.current_thread() is not threading.main_thread():
            pool.waiting.append(calls[0])  # no thread is woken for it, as when none was idle

    monkeypatch.setattr(threads._Pool, "next", take_and_give)
    threads.for_each(first_one, 2)
    end = time.monotonic() + 20
    while not all(call.ended.all() for call in calls):
        assert time.monotonic() < end
        time.sleep(0.001)


def test_who_watches_sees_the_flag():
    flag, left = np.zeros(1, np.int64), np.zeros(1, np.int64)
    assert not threads._watch(flag, 5, 5, left)
    assert left == 1
    with ThreadPoolExecutor(1) as pool:
        left[0] = 0
        looks = 1 if jit.JIT_OFF else 1 << 34  # minutes
        flag[0] = jit.JIT_OFF
        watching = pool.submit(threads._watch, flag, looks, 5, left)
        while not left:
            time.sleep(0.001)
        flag[0] = 1
        assert watching.result(timeout=60)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("begun", [False, True])
def test_no_array_outlives_its_call(monkeypatch, begun):
    scratch.set_num_threads(2)
    given: list[Any] = []
    both = threading.Barrier(1 + begun, timeout=60)
    give = threads._Pool.give

    def give_or_keep(pool: Any, share: Any) -> None:
        given.append(share)
        if begun:
            give(pool, share)

    monkeypatch.setattr(threads._Pool, "give", give_or_keep)

    def run(first: int, last: int, array: np.ndarray) -> None:
        both.wait()

    array = np.empty(1 << 20)
    gone = weakref.ref(array)
    context = contextvars.copy_context()
    context.run(contextvars.ContextVar[np.ndarray]("array").set, array)
    context.run(threads.for_each, run, 2, array)
    del array, context
    assert given
    assert gone() is None


@pytest.mark.usefixtures("_threads")
def test_many_callers_leave_nothing_behind():
    scratch.set_num_threads(3)

    def call() -> None:
        for _ in range(200):
            threads.for_each(lambda first, last: None, 8)

    with ThreadPoolExecutor(4) as pool:
        for caller in [pool.submit(call) for _ in range(4)]:
            caller.result(timeout=120)
    [pool_in_use] = threads._pools
    assert not pool_in_use.waiting
    assert len(pool_in_use.threads) == len([thread for thread in threading.enumerate() if thread.name == "scratch"])


def test_a_fork_finds_no_thread_that_compiles_and_the_end_no_thread_that_runs():
    code = """
import atexit, sys, threading
def look_for_threads():
    left = [thread for thread in threading.enumerate() if thread.name == "scratch"]
    if left:
        print(left, file=sys.stderr)
atexit.register(look_for_threads)  # before scratch is imported, so it is called after scratch's own
import scratch
from parity_tests.sweeps import pool_threads
from scratch.compiled import jit, threads

start = threads._Thread.start
def start_checked(thread):
    assert jit.JIT_OFF or threads._watch.signatures  # or else the thread would compile it, which a fork must not meet
    start(thread)
threads._Thread.start = start_checked
scratch.set_num_threads(3)
threads.LINGER = 600.0
threads.for_each(lambda first, last: None, 8)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_end_of_a_process_passes_over_a_thread_whose_start_was_interrupted():
    code = """
import threading
import scratch
from scratch.compiled import threads
scratch.set_num_threads(2)
thread = threads._Thread(threads._pools[0])
threading._limbo[thread] = thread  # start() does this first, and an exception just after it leaves it there
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")


def test_the_end_of_a_process_does_not_wait_for_a_thread_without_an_end():
    code = """
import threading, time, scratch
from scratch.compiled import threads
scratch.set_num_threads(2)
threads.AT_EXIT = 0.1
begun = threading.Barrier(3, timeout=60)
def run(first, last):
    begun.wait()
    time.sleep(1000)
threading.Thread(target=threads.for_each, args=(run, 2), daemon=True).start()
begun.wait()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.usefixtures("_threads")
def test_threads_that_may_begin_cost_nothing():
    scratch.set_num_threads(threads.MOST)
    done: list[int] = []
    threads.for_each(lambda first, last: done.extend(range(first, last)), 2)
    assert sorted(done) == [0, 1]
    assert scratch.get_num_threads() == threads.MOST


@pytest.mark.usefixtures("_threads")
def test_threads_may_be_numpys_int():
    scratch.set_num_threads(np.int64(2))
    assert type(scratch.get_num_threads()) is int


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "at least 1, got 0"),
        (-1, ValueError, "at least 1, got -1"),
        (1025, ValueError, "at most 1024, got 1025"),
        (10**100, ValueError, "at most 1024, got an int of 333 bits"),
        (1.5, TypeError, "an int, got 1.5"),
        (True, TypeError, "an int, got True"),
        ("2", TypeError, "an int, got '2'"),
        (None, TypeError, "an int, got None"),
    ],
)
def test_threads_are_a_positive_int(n, error, message):
    with pytest.raises(error, match=f"set_num_threads: n must be {message}"):
        scratch.set_num_threads(n)
