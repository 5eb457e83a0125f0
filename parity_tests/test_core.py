"""What all operations share: the ladder and the choice of a rung, threads, memory that is used again, checks of arguments."""

from __future__ import annotations

import contextvars
import gc
import math
import os
import shutil
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratch
from parity_tests.specs import SPECS
from scratch import modules, sgd
from scratch.core import checks, exponential, jit, memory, threads, vectors

relu: Any = scratch.relu  # Any: what the types forbid must raise, too
conv2d: Any = scratch.conv2d
X = np.array([-1.0, 2.0])


def rung_of(operation: Any) -> str:
    """The rung that runs."""
    _, cache = operation.forward(X) if operation is relu else operation.forward(np.ones((1, 2, 3)), np.ones((4, 1, 1, 1)))
    return cache.rung.name


# --- the ladder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_rung_has_an_idea(spec):
    for name, rung in spec.scratch.RUNGS.items():
        assert rung.name == name
        assert rung.idea.endswith("."), name


def test_a_ladder_reads_from_slow_to_fast():
    assert repr(relu.RUNGS) == "<relu: naive → numpy → numba>"
    assert len(relu.RUNGS) == 3


def test_an_optimizers_rung_has_no_backward():
    with pytest.raises(TypeError, match="it has no backward pass"):
        scratch.sgd.RUNGS["numba"].backward()


def test_backward_wants_its_own_forwards_cache():
    out, cache = relu.forward(X)
    with pytest.raises(TypeError, match=r"softmax.backward: cache must come from softmax.forward, got relu.forward's"):
        scratch.softmax.backward(out, cache)
    with pytest.raises(TypeError, match=r"relu.backward: cache must come from relu.forward, got dict"):
        relu.backward(out, {})


def test_backward_checks_its_gradient():
    _, cache = relu.forward(X)
    with pytest.raises(ValueError, match=r"relu.backward: grad_out must have the output's shape \(2,\), got \(3,\)"):
        relu.backward(np.ones(3), cache)
    with pytest.raises(TypeError, match=r"relu.backward: grad_out must be float64 like the input, got float32"):
        relu.backward(np.ones(2, np.float32), cache)


# --- use_rung ---------------------------------------------------------------------------------------------------------


def test_a_choice_ends_with_its_block():
    assert rung_of(relu) == "numba"
    with scratch.use_rung("naive"):
        assert rung_of(relu) == "naive"
        with scratch.use_rung(relu="numpy"):
            assert rung_of(relu) == "numpy"
            assert rung_of(conv2d) == "naive"
        assert rung_of(relu) == "naive"
    assert rung_of(relu) == "numba"


def test_a_choice_for_all_replaces_those_for_single_operations():
    with scratch.use_rung(relu="naive"), scratch.use_rung("numpy"):
        assert rung_of(relu) == "numpy"


def test_an_operation_without_the_rung_keeps_its_default():
    with scratch.use_rung("im2col"):
        assert rung_of(relu) == "numba"
        assert rung_of(conv2d) == "im2col"


def test_a_choice_is_the_threads_own_or_the_processs():
    def in_another_thread() -> str:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(rung_of, relu).result()

    with scratch.use_rung("naive"):
        assert in_another_thread() == "numba"
    with scratch.use_rung("naive", process=True):
        assert in_another_thread() == "naive"
        with scratch.use_rung("numpy"):  # a thread's own choice goes before the process's
            assert rung_of(relu) == "numpy"
    assert in_another_thread() == "numba"


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda: scratch.use_rung("fastest"), "no operation has a rung 'fastest'; the rungs are .*'naive'"),
        (lambda: scratch.use_rung(relu="im2col"), r"relu has no rung 'im2col'; its rungs are \['naive', 'numpy', 'numba'\]"),
        (lambda: scratch.use_rung(rule="naive"), "no operation 'rule'; the operations are .*'relu'"),
    ],
)
def test_a_rung_that_is_not_there(choose, message):
    with pytest.raises(ValueError, match=f"use_rung: {message}"):
        choose()


# --- threads ----------------------------------------------------------------------------------------------------------


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
def test_an_interrupt_waits_for_the_others(monkeypatch):
    scratch.set_num_threads(3)
    caller, all_three = threading.get_ident(), threading.Barrier(3, timeout=60)
    end = threads._Share.end
    interrupted: list[Any] = []
    done: list[int] = []

    def run(first: int, last: int) -> None:
        all_three.wait()
        if threading.get_ident() != caller:
            time.sleep(0.1)
            done.append(first)

    def end_when_asked_twice(share: Any) -> BaseException | None:
        if len(interrupted) < 2:
            interrupted.append(share)
            raise KeyboardInterrupt
        return end(share)

    monkeypatch.setattr(threads._Share, "end", end_when_asked_twice)
    with pytest.raises(KeyboardInterrupt):
        threads.for_each(run, 3)
    assert len(done) == 2


@pytest.mark.usefixtures("_threads")
def test_without_a_new_thread_the_caller_does_it_all(monkeypatch):
    scratch.set_num_threads(2)
    done: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(threads._Thread, "start", lambda thread: (_ for _ in ()).throw(RuntimeError("can't start new thread")))
        threads.for_each(lambda first, last: done.extend(range(first, last)), 8)
    assert done == list(range(8))
    both = threading.Barrier(2, timeout=60)

    def run(first: int, last: int) -> None:
        both.wait()

    threads.for_each(run, 2)  # the next may have one


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
        assert len([thread for thread in threading.enumerate() if thread.name == "scratch"]) == n - 1


@pytest.mark.usefixtures("_threads")
def test_a_thread_that_sleeps_is_woken_up():
    scratch.set_num_threads(2)
    for pause in (0, 0.05, 0):
        time.sleep(pause)
        both = threading.Barrier(2, timeout=60)

        def run(first: int, last: int, both: threading.Barrier = both) -> None:
            both.wait()

        threads.for_each(run, 2)  # ends only when two threads take part


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
    assert pool_in_use.threads == len([thread for thread in threading.enumerate() if thread.name == "scratch"])


def test_a_fork_finds_no_thread_that_compiles_and_the_end_no_thread_that_runs():
    code = """
import atexit, sys, threading
def look_for_threads():
    left = [thread for thread in threading.enumerate() if thread.name == "scratch"]
    if left:
        print(left, file=sys.stderr)
atexit.register(look_for_threads)  # before scratch is imported, so it is called after scratch's own
import scratch
from scratch.core import jit, threads

start = threads._Thread.start
def start_checked(thread):
    assert jit.JIT_OFF or threads._watch.signatures  # or else the thread would compile it, which a fork must not meet
    start(thread)
threads._Thread.start = start_checked
scratch.set_num_threads(3)
threads.LINGER = 1 << 34  # minutes
threads.for_each(lambda first, last: None, 8)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.usefixtures("_threads")
def test_threads_may_be_numpys_int():
    scratch.set_num_threads(np.int64(2))
    assert type(scratch.get_num_threads()) is int


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "at least 1, got 0"),
        (-1, ValueError, "at least 1, got -1"),
        (1.5, TypeError, "an int, got 1.5"),
        (True, TypeError, "an int, got True"),
        ("2", TypeError, "an int, got '2'"),
        (None, TypeError, "an int, got None"),
    ],
)
def test_threads_are_a_positive_int(n, error, message):
    with pytest.raises(error, match=f"set_num_threads: n must be {message}"):
        scratch.set_num_threads(n)


def test_at_the_start_there_is_a_thread_for_each_core(monkeypatch):
    monkeypatch.delenv("SCRATCH_NUM_THREADS", raising=False)
    assert 1 <= threads._threads_at_the_start() <= (os.cpu_count() or 1)


# --- memory -----------------------------------------------------------------------------------------------------------

LARGE = (memory.SMALL // 4 + 1,)  # float32 elements


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_block_is_used_again_once_nobody_looks_at_it():
    first = memory.empty(LARGE, np.dtype(np.float32))
    view, place = first[1:], address(first)
    del first
    second = memory.empty(LARGE, np.dtype(np.float32))
    assert address(second) != place  # the view still looks at it
    del view
    gc.collect()
    third = memory.empty(LARGE, np.dtype(np.float32))
    assert address(third) == place
    assert place % memory.ALIGNMENT == 0
    assert third.flags.writeable
    assert third.flags.c_contiguous


def test_the_shelf_is_not_endless(monkeypatch):
    monkeypatch.setattr(memory._shelf, "limit", 0)
    before = memory._shelf.bytes
    del_me = memory.empty((LARGE[0] + 1,), np.dtype(np.float32))
    del del_me
    gc.collect()
    assert memory._shelf.bytes <= before


def test_an_array_may_outlive_the_modules() -> None:
    # What a module of C code holds ends after the names of modules that came later, and that somebody holds, are gone.
    code = "import torch, numpy, scratch; torch.held = scratch.core.memory, scratch.relu.forward(numpy.zeros(1 << 20))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""


def test_cleared_memory_is_gone() -> None:
    del_me = memory.empty((LARGE[0] + 2,), np.dtype(np.float32))
    del del_me
    assert memory._shelf.bytes > 0
    memory.clear()
    assert memory._shelf.bytes == 0
    assert memory._shelf.take((LARGE[0] + 2) * 4) is None


def test_a_cleared_workspace_is_another():
    with ThreadPoolExecutor(1) as pool:
        for call in (lambda *wanted: memory.workspace(*wanted), lambda *wanted: pool.submit(memory.workspace, *wanted).result()):
            before = call("test_core", 10, np.dtype(np.float32))
            assert call("test_core", 10, np.dtype(np.float32)) is before
            memory.clear()
            assert call("test_core", 10, np.dtype(np.float32)) is not before


def test_a_workspace_grows_and_stays():
    name, dtype = "test_core", np.dtype(np.float32)
    small = memory.workspace(name, 10, dtype)
    assert small.size >= 10
    assert address(memory.workspace(name, 5, dtype)) == address(small)
    assert memory.workspace(name, 1000, dtype).size >= 1000
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(memory.workspace, name, 10, dtype).result()
    assert address(other) != address(memory.workspace(name, 10, dtype))


# --- checks -----------------------------------------------------------------------------------------------------------


def test_numbers_of_numpys_count():
    assert checks.integer("f", "n", np.int8(3)) == 3
    assert checks.real("f", "x", np.float32(0.5)) == 0.5
    assert checks.flag("f", "yes", np.bool_(True)) is True


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (lambda: checks.integer("f", "n", 2**63), ValueError, "f: n must fit into 64 bits, got 9223372036854775808"),
        (lambda: checks.integer("f", "n", np.bool_(True)), TypeError, "f: n must be an int, got"),
        (lambda: checks.pair("f", "n", (1, 2, 3), low=0), ValueError, r"f: n must be an int or a pair of ints, got \(1, 2, 3\)"),
        (lambda: checks.probability("f", "p", float("nan")), ValueError, "f: p must lie between 0 and 1, got nan"),
    ],
)
def test_what_checks_refuse(check, error, message):
    with pytest.raises(error, match=message):
        check()


def test_a_pair_of_one_counts_twice():
    assert checks.pair("f", "n", (3,), low=0) == (3, 3)


# --- kernels ----------------------------------------------------------------------------------------------------------


@jit.kernel
def exp_of(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.size):
        out[i] = exponential.exp(x[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_errs_by_less_than_it_says(dtype):
    precise = np.longdouble if np.finfo(np.longdouble).nmant > np.finfo(dtype).nmant else None
    if precise is None:
        pytest.skip("nothing here is more precise than float64")
    lowest = np.log(np.finfo(dtype).tiny)
    rng = np.random.default_rng(0)
    count = 2_000 if jit.JIT_OFF else 300_000
    x = np.concatenate([rng.uniform(low, 0, count).astype(dtype) for low in (lowest, -2, -1e-3)])
    out = np.empty_like(x)
    exp_of(x, out)
    expected = np.exp(x.astype(precise))
    assert (np.abs(out - expected) / np.spacing(expected.astype(dtype))).max() < 1.3


def test_exp_at_the_edges():
    x = np.array([0, -0.0, -100, -np.inf, np.nan], np.float32)
    out = np.empty_like(x)
    with np.errstate(all="ignore"):  # not compiled, NumPy would warn
        exp_of(x, out)
    np.testing.assert_array_equal(out, np.array([1, 1, 0, 0, np.nan], np.float32))


@jit.kernel
def sums(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    return vectors.total(a), vectors.dot(a, 2, b, 1, a.size - 2)


@jit.kernel
def largest(row: np.ndarray) -> float:
    return vectors.largest(row)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reductions_take_every_element_once(dtype):
    rng = np.random.default_rng(0)
    for n in [*range(2, 40), 127, 128, 129, 1000, 4099]:
        a, b = rng.integers(-50, 50, (2, n)).astype(dtype)  # sums of whole numbers are exact
        assert sums(a, b) == (a.sum(), a[2:] @ b[1 : n - 1])
        assert largest(a) == a.max()
        for i in range(n):
            row = np.full(n, -np.inf, dtype)
            row[i - 1], row[i] = np.nan, i
            assert largest(row) == i
    assert largest(np.full(2, -np.inf, dtype)) == largest(np.empty(0, dtype)) == -np.inf


@pytest.mark.skipif(jit.JIT_OFF, reason="nothing is compiled")
@jit.kernel
def _woven(source: np.ndarray, even_at: int, odd_at: int, addend: Any, target: np.ndarray, target_at: int, count: int) -> None:
    vectors.weave(source, even_at, odd_at, addend, target, target_at, count)


@pytest.mark.parametrize("dtype", checks.FLOATS, ids=str)
def test_two_vectors_are_woven_as_far_as_they_are_wanted(dtype):
    source = np.arange(80, dtype=dtype)
    side = vectors.lanes(source)
    for count in range(2 * side + 1):
        target = np.full(2 * side + 2, -1, dtype)
        _woven(source, 3, 40, dtype.type(0.5), target, 1, count)
        wanted = np.stack([source[3 : 3 + side], source[40 : 40 + side]], 1).ravel() + 0.5
        np.testing.assert_array_equal(target, [-1, *wanted[:count], *[-1] * (2 * side - count + 1)])


def test_words_for_vectors_want_neighbours():
    with pytest.raises(TypeError, match="take 1-D, C-contiguous arrays, got array\\(float64, 1d, A\\)"):
        largest(np.zeros((4, 4))[:, 0])


@pytest.mark.skipif(jit.JIT_OFF, reason="nothing is compiled")
def test_a_kernel_is_compiled_anew_when_a_file_of_its_words_changed(tmp_path):
    shutil.copytree(Path(scratch.__file__).parent, tmp_path / "scratch", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "SCRATCH_VECTOR_BITS")}

    def log_of_half() -> float:
        code = "import numpy, scratch.log_softmax as it; print(it.forward(numpy.zeros(2), dim=0)[0][0])"
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return float(run.stdout)

    assert log_of_half() == pytest.approx(math.log(1 / 2))
    file = tmp_path / "scratch" / "core" / "exponential.py"  # whose exp rows.py uses, and log_softmax.py that
    file.write_text(file.read_text().replace("series * power", "2 * series * power"))
    assert log_of_half() == pytest.approx(math.log(1 / 4))


def test_large_blocks_begin_at_different_places():
    starts = set()
    for _ in range(memory.PLACES):
        block = memory._aligned(memory.LARGE, np.dtype(np.uint8))
        assert block.base is not None
        starts.add((block.ctypes.data - block.base.ctypes.data) // memory.ALIGNMENT)
    assert len(starts) == memory.PLACES


def test_what_kernels_read_at_every_step_begins_at_a_cache_line():
    layer = modules.Linear(300, 200)
    layer.weight.grad = memory.copy(np.ones((200, 300), np.float32))
    optimizer = sgd.SGD([layer.weight], lr=0.1, momentum=0.9)
    optimizer.step()
    first = [layer.weight.data, layer.weight.grad, optimizer._velocities[0]]
    optimizer.load_state_dict(optimizer.state_dict())
    for array in (*first, optimizer._velocities[0]):
        assert array is not None
        assert array.ctypes.data % memory.ALIGNMENT == 0
