"""Blocks of a matrix product: several in every direction, cut for caches of several sizes, and shared by many threads."""

from __future__ import annotations

import heapq
import itertools
import sys
from collections.abc import Callable, Iterable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import scratch
from alexnet_from_scratch import hardware
from alexnet_from_scratch.proof.parity import to_numpy
from parity_tests import mutants_compiled
from parity_tests.mutants import planted
from scratch.compiled import blocks, handover, threads
from scratch.compiled.blocks import KC
from scratch.compiled.microkernel import MR
from scratch.convolution.winograd_correlate import SHARE
from scratch.linear import STRIPE, STRIPES

RUNGS = ("implicit_gemm", "winograd")
# More taps and channels than a block of K, more channels of the result than a share, and pixels for several panels.
C, OC = KC + 30, SHARE * MR + 20
# (N,H,W), window, stride, padding, groups
SHAPES = [((2, 13, 9), 3, 1, 1, 1), ((1, 12, 11), 5, 1, 2, 2), ((2, 27, 26), 11, 4, 2, 1), ((1, 17, 18), 3, 2, 1, 2)]


def arrays(shape: tuple[int, int, int], window: int, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Small integers: every sum of their products is exact in float32, whatever its order."""
    rng = np.random.default_rng(0)
    N, H, W = shape
    channels = C * groups if window <= 5 else 3
    sizes = (N, channels, H, W), (OC * groups, channels // groups, window, window), (OC * groups,)
    x, weight, bias = (rng.integers(-2, 3, size).astype(np.float32) for size in sizes)
    return x, weight, bias


def of_scratch(conv2d: ModuleType, rung: str, x, weight, bias, **params):
    """The output and the gradients; the gradient of the output is the output's sign."""
    with scratch.use_rung(conv2d=rung):
        out, cache = conv2d.forward(x, weight, bias, **params)
        return out, *conv2d.backward(np.sign(out), cache)


def of_torch(x, weight, bias, **params):
    x, weight, bias = leaves = [torch.from_numpy(array).double().requires_grad_() for array in (x, weight, bias)]
    out = torch.nn.functional.conv2d(x, weight, bias, **params)
    out.backward(out.detach().sign())
    return [to_numpy(each).astype(np.float32) for each in (out, *(leaf.grad for leaf in leaves))]


def agree(conv2d: ModuleType, rung: str, row) -> bool:
    shape, window, stride, padding, groups = row
    given = arrays(shape, window, groups)
    params = {"stride": stride, "padding": padding, "groups": groups}
    pairs = zip(of_scratch(conv2d, rung, *given, **params), of_torch(*given, **params), strict=True)
    return all(np.array_equal(ours, theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("row", SHAPES, ids=str)
def test_integers_are_exact_over_several_blocks(rung, row):
    assert agree(scratch.conv2d, rung, row)


@pytest.mark.parametrize("mutant", mutants_compiled.SEVERAL_BLOCKS, ids=str)
def test_a_mistake_between_blocks_is_found(mutant):
    with planted(mutant) as stand_ins:
        assert not all(agree(stand_ins["scratch_module"], mutant.rung, row) for row in SHAPES)


def assert_same_bits(rung: str, row, choices: Iterable, choose: Callable[[Any], None]) -> None:
    """The convolution's results have the same bits after each of the choices."""
    shape, window, stride, padding, groups = row
    x, weight, bias = arrays(shape, window, groups)
    x, weight = x * np.float32(0.1), weight * np.float32(0.3)  # sums that round
    results = []
    for choice in choices:
        choose(choice)
        results.append(of_scratch(scratch.conv2d, rung, x, weight, bias, stride=stride, padding=padding, groups=groups))
    for arrays_of_one_kind in zip(*results, strict=True):
        assert len({array.tobytes() for array in arrays_of_one_kind}) == 1


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("row", SHAPES, ids=str)
def test_the_caches_decide_no_bit(rung, row, monkeypatch):
    sizes = (64, 256, 1024, 2048, 1 << 16)
    assert_same_bits(rung, row, sizes, lambda KiB: monkeypatch.setattr(blocks, "size_of_l2", lambda: KiB << 10))


def products(linear: ModuleType, factor: float) -> list[np.ndarray]:
    """The output and the gradients. With a small L2 the weight's rows are read in parts. With ``factor`` 1 all is exact."""
    rng = np.random.default_rng(0)
    sizes = (2 * 32 + 3, 5 * KC + 30), (STRIPES * STRIPE + MR + 3, 5 * KC + 30)
    x, weight = (np.float32(factor) * rng.integers(-2, 3, size).astype(np.float32) for size in sizes)
    with scratch.use_rung(linear="numba"):
        out, cache = linear.forward(x, weight)
        grad_x, grad_weight, _ = linear.backward(np.sign(out), cache)
    if factor == 1:
        exact = x.astype(np.float64) @ weight.T
        for ours, theirs in ((out, exact), (grad_x, np.sign(exact) @ weight), (grad_weight, np.sign(exact).T @ x)):
            assert np.array_equal(ours, theirs)
    return [out, grad_x, grad_weight]


@pytest.mark.parametrize("KiB", [64, 2048])
def test_linear_is_exact_over_several_parts_of_a_row(KiB, monkeypatch):
    monkeypatch.setattr(blocks, "size_of_l2", lambda: KiB << 10)
    products(scratch.linear, 1)


@pytest.mark.parametrize("mutant", mutants_compiled.SEVERAL_PARTS, ids=str)
def test_a_mistake_between_parts_of_a_row_is_found(mutant, monkeypatch):
    monkeypatch.setattr(blocks, "size_of_l2", lambda: 64 << 10)
    with planted(mutant) as stand_ins, pytest.raises(AssertionError):
        products(stand_ins["scratch_module"], 1)


def test_the_caches_decide_no_bit_of_linear(monkeypatch):
    results = []
    for KiB in (64, 256, 2048):
        monkeypatch.setattr(blocks, "size_of_l2", lambda KiB=KiB: KiB << 10)
        results.append([array.tobytes() for array in products(scratch.linear, 0.3)])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("rung", RUNGS)
@pytest.mark.parametrize("row", SHAPES, ids=str)
def test_past_the_caches_or_not_decides_no_bit(rung, row, monkeypatch):
    assert_same_bits(rung, row, (0, handover.PATIENCE), lambda slow: monkeypatch.setattr(handover, "_slow", slow))


def test_buffers_are_written_past_the_caches_after_some_slow_ones_in_succession(monkeypatch):
    buffer, clock, asked = np.empty(handover.MEASURABLE, np.uint8), [0.0], []
    monkeypatch.setattr(handover, "_slow", 0)
    monkeypatch.setattr(handover, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def fill(seconds: float, size: int = handover.MEASURABLE) -> None:
        def run(first: int, last: int, past: bool) -> None:
            clock[0] += seconds
            asked.append(past)

        handover.fill(run, 1, buffer[:size], values=1)

    slow = 2 * handover.FAR * handover.MEASURABLE / handover.LINE / scratch.get_num_threads()
    for seconds, size, times in (
        (slow, handover.MEASURABLE, handover.PATIENCE - 1),
        (slow / 4, handover.MEASURABLE, 1),
        (slow, handover.MEASURABLE - 1, handover.PATIENCE),  # too small to tell
        (slow, handover.MEASURABLE, handover.PATIENCE),
    ):
        for _ in range(times):
            fill(seconds, size)
    assert True not in asked
    fill(slow / 4)
    fill(slow / 4)
    assert asked[-2:] == [True, True], "it stays so"


@pytest.mark.parametrize(
    ("system", "told", "size"),
    [
        ("linux", {"L1": 32 << 10, "L2": 2 << 20}, 2 << 20),
        ("darwin", {"L2": 16 << 20}, 4 << 20),  # four cores share it
        ("linux", {"L2": 0}, blocks.GUESS),
        ("win32", {}, blocks.GUESS),
    ],
)
def test_the_size_of_l2_is_the_systems_or_a_guess(system, told, size, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(hardware, "caches", lambda: told)
    monkeypatch.setattr(blocks, "FORCED_L2", 0)
    assert blocks.size_of_l2.__wrapped__() == size


@pytest.mark.parametrize("count", [2, 4, 8, 16])
@pytest.mark.parametrize("items", [43, 169, 1000])
def test_the_work_divides_evenly(items, count):
    """If each thread takes the next range when it is done, none has much more than its share: an item, or a tenth."""
    bounds = threads._bounds(items, count, items, None)
    assert bounds[0] == 0
    assert bounds[-1] == items
    done = [0] * count
    for first, last in itertools.pairwise(bounds):
        assert first < last
        heapq.heappush(done, heapq.heappop(done) + last - first)
    assert max(done) <= max(items / count * 1.1, items // count + 1)


def test_ranges_of_one_length():
    assert threads._bounds(10, 2, 10, 1) == [0, 5, 10]
    assert threads._bounds(3, 2, 3, 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("items", [7, 256, 1000])
@pytest.mark.parametrize("most", [2, 3, 7])
@pytest.mark.parametrize("ranges_per_thread", [None, 4])
def test_small_work_has_few_ranges(items, most, ranges_per_thread):
    """Each range has a price. If the items together have values for ``most`` threads, there are no more ranges than that."""
    bounds = threads._bounds(items, 2, most, ranges_per_thread)
    assert bounds[0] == 0
    assert bounds[-1] == items
    assert 2 <= len(bounds) - 1 <= most
