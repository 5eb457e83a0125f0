"""Memory that is reused: by one array at a time, and no more of it stays free than the limit."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest

from scratch import modules, sgd
from scratch.compiled import jit, memory

LARGE = (memory.SMALL // 4 + 1,)  # float32 elements


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_block_is_used_again_once_nobody_looks_at_it():
    first = memory.empty(LARGE, np.dtype(np.float32))
    view, place = first[1:], address(first)
    del first
    second = memory.empty(LARGE, np.dtype(np.float32))
    assert address(second) != place  # the view still uses it
    del view
    gc.collect()
    third = memory.empty(LARGE, np.dtype(np.float32))
    assert address(third) == place
    assert place % memory.ALIGNMENT == 0
    assert third.flags.writeable
    assert third.flags.c_contiguous


@pytest.fixture
def shelf(monkeypatch):
    """An empty shelf for a test's calls."""
    shelf = memory._Shelf()
    monkeypatch.setattr(memory, "_shelf", shelf)
    return shelf


def test_the_least_recently_used_goes_when_too_much_lies_free(shelf):
    shelf.limit = 10 * LARGE[0] * 4
    sizes = [LARGE[0] + i for i in range(20)]
    for size in sizes:
        memory.empty((size,), np.dtype(np.float32))
        memory.empty((sizes[0],), np.dtype(np.float32))  # is always in use
    memory.empty((1 << 20,), np.dtype(np.float32))
    kept = [size // 4 for size, blocks in shelf.blocks.items() if blocks]
    assert shelf.limit / 2 < sum(size * len(blocks) for size, blocks in shelf.blocks.items()) <= shelf.limit
    assert kept == [*sizes[-len(kept) + 1 :], sizes[0]]


def test_a_shelf_of_one_size_keeps_what_fits(shelf):
    shelf.limit = 4 * LARGE[0] * 4
    arrays = [memory.empty(LARGE, np.dtype(np.float32)) for _ in range(9)]
    del arrays
    memory.empty(LARGE, np.dtype(np.float32))
    assert 2 <= len(shelf.blocks[LARGE[0] * 4]) + len(shelf.freed) <= 4


def test_sizes_that_are_never_asked_for_again_leave_room(shelf):
    shelf.limit = 1 << 22
    for size in range(100):
        memory.empty((LARGE[0] + 1000 * size,), np.dtype(np.float32))
    place = address(memory.empty(LARGE, np.dtype(np.float32)))
    memory.empty((LARGE[0] + 1,), np.dtype(np.float32))
    assert address(memory.empty(LARGE, np.dtype(np.float32))) == place
    assert len(shelf.blocks) < 32  # nothing is left of those that were dropped


def test_a_finalizer_may_take_a_block_while_blocks_are_counted(shelf):
    """Where Python collects garbage whenever something is made (before 3.12), it is called in the middle of a call in C."""
    took: list[int] = []

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            took.append(memory.empty((LARGE[0] + 1,), np.dtype(np.float32)).size)

    thresholds = gc.get_threshold()
    gc.freeze()  # collecting is quick then
    for made in range(1, 100):
        arrays = [memory.empty((LARGE[0] + i,), np.dtype(np.float32)) for i in range(50)]
        del arrays
        memory.empty((1 << 20,), np.dtype(np.float32))
        gc.collect()
        gc.disable()
        Cycle()
        gc.set_threshold(made, 10, 10)
        gc.enable()
        try:
            shelf._evict()
        finally:
            gc.set_threshold(*thresholds)
    gc.collect()
    gc.unfreeze()
    assert len(took) == 99


def test_an_array_may_outlive_the_modules() -> None:
    # What a C module holds is freed only after the names of later modules that are still held are gone.
    code = "import torch, numpy, scratch; torch.held = scratch.compiled.memory, scratch.relu.forward(numpy.zeros(1 << 20))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b""


def test_cleared_memory_is_gone(shelf) -> None:
    memory.empty(LARGE, np.dtype(np.float32))
    [block] = shelf.freed
    gone = weakref.ref(block.array)
    del block
    memory.clear()
    assert gone() is None
    assert not shelf.freed
    memory.empty(LARGE, np.dtype(np.float32))
    memory.empty(LARGE, np.dtype(np.float32))
    assert shelf.take(LARGE[0] * 4).array.nbytes == LARGE[0] * 4
    memory.clear()
    assert shelf.bytes == 0
    assert not shelf.blocks


@pytest.mark.parametrize("size", [0, 10, memory.SMALL, memory.LARGE])
def test_two_that_look_at_a_workspace_do_not_look_at_the_same(size):
    dtype = np.dtype(np.float32)
    first, second = memory.workspace(size, dtype), memory.workspace(size, dtype)
    assert first.size == second.size == size
    assert not np.shares_memory(first, second)
    assert {address(first) % memory.ALIGNMENT, address(second) % memory.ALIGNMENT} == {0}


def test_workspaces_of_nearly_one_size_are_one_block(shelf):
    dtype = np.dtype(np.float32)
    for most in (1 << 12, 1 << 20):
        memory.clear()
        places = []
        for size in (1, 100, 1000):
            places.append(address(memory.workspace(most - size, dtype)))
            elsewhere = [np.empty(size, np.uint8) for size in range(4 * most, 4 * most + 200, 10)]  # in that place, were it free
        assert len(set(places)) == 1
        del elsewhere


def test_a_view_keeps_a_workspace():
    dtype = np.dtype(np.float32)
    view = memory.workspace(1000, dtype)[500:].reshape(50, 10)
    for _ in range(100):
        assert not np.shares_memory(memory.workspace(1000, dtype), view)


@pytest.mark.posix
@pytest.mark.skipif(jit.JIT_OFF, reason="minutes in plain Python")
def test_a_kernel_may_run_in_a_signals_handler_in_the_middle_of_another():
    """In its own process: a timer would interrupt the tests' own waiting."""
    code = """
import signal, numpy as np, scratch
rng = np.random.default_rng(0)
x, weight = rng.random((4, 16, 24, 24), np.float32), rng.random((32, 16, 3, 3), np.float32)
rows, matrix = rng.random((32, 256), np.float32), rng.random((300, 256), np.float32)
def results(x, rows):
    with scratch.use_rung("winograd"):  # the handler is called in the other block too
        out, cache = scratch.conv2d.forward(x, weight, padding=1)
        grads = scratch.conv2d.backward(out, cache)
    with scratch.use_rung("implicit_gemm"):
        gemm, cache = scratch.conv2d.forward(x, weight, padding=1)
        more = scratch.conv2d.backward(gemm, cache)
    product, cache = scratch.linear.forward(rows, matrix)
    pooled, _ = scratch.max_pool2d.forward(x, kernel_size=3, stride=2)
    gradients = grads[:2] + more[:2] + scratch.linear.backward(product, cache)[:2]
    return [array.tobytes() for array in (out, gemm, product, pooled, *gradients)]
expected, nested = results(x, rows), []
inside = results(-x, -rows)
def handle(number, frame):
    nested.append(results(-x, -rows) == inside)
    if len(nested) < 50:
        signal.setitimer(signal.ITIMER_REAL, 0.0007)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0007)
while len(nested) < 50:
    assert results(x, rows) == expected, len(nested)
assert all(nested), nested
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stderr) == (0, "")


def test_large_blocks_begin_at_different_places():
    starts = set()
    for _ in range(memory.PLACES):
        block = memory._Block(memory.LARGE).array
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
