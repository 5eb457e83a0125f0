"""Every operation, on every rung, in both dtypes: outputs and all gradients, compared with torch and with the reference."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alexnet_from_scratch.proof.draws import FLOATS, Case, layouts, memories
from alexnet_from_scratch.proof.parity import ASSERTIONS, examine
from alexnet_from_scratch.proof.specs import RUNGS
from parity_tests import mutants_compiled
from parity_tests.mutants import planted
from parity_tests.verdicts import SPEC
from scratch import conv2d, cross_entropy, max_pool2d, use_rung
from scratch.convolution.geometry import geometry_of
from scratch.convolution.winograd_correlate import correlate
from scratch.convolution.winograd_tiles import Filters, limit_of


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("spec", "rung"), RUNGS, ids=str)
@given(data=st.data())
def test_parity(spec, rung, dtype, device, report, data):
    row = report.row(spec.name, rung, str(dtype))
    with row.watched():
        evidence = examine(spec, spec.call(data.draw, rung, dtype), data.draw, rung=rung, device=device)
        row.add(evidence)
        for assertion in ASSERTIONS:
            assertion(evidence)


SHAPES = {"x": (2, 2, 7, 8), "weight": (3, 2, 3, 3), "grad_out": (2, 3, 5, 6)}  # shapes of one convolution


@pytest.mark.parametrize("need_grad_x", [True, False])
@pytest.mark.parametrize("value", [np.inf, np.nan, np.finfo(np.float32).max])
@pytest.mark.parametrize("array", ["x", "weight", "grad_out"])
@pytest.mark.parametrize("rung", SPEC["conv2d"].rungs)
def test_a_number_without_bounds_reaches_what_sees_it_alone(rung, array, value, need_grad_x):
    """The generic test has such numbers in x, and then in other arrays too. Here they are in a single array, each in turn."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(1, 3, shape).astype(np.float32) for name, shape in SHAPES.items()}
    arrays[array][1, 1, 1, 1] = value

    def results() -> list[Any]:
        out, cache = conv2d.forward(arrays["x"], arrays["weight"])
        gradients = conv2d.backward(arrays["grad_out"], cache, need_grad_x=need_grad_x)
        return [out, *(gradient for gradient in gradients if gradient is not None)]

    with use_rung(conv2d=rung):
        found = results()
    with use_rung(conv2d="naive"), np.errstate(all="ignore"):
        wanted = results()
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.array_equal(np.isfinite(ours), np.isfinite(theirs))
        assert np.array_equal(np.isnan(ours), np.isnan(theirs))


def nan_wins(pool: Any, rung: str) -> bool:
    """Whether NaN wins in each window that has it, where it is the only one, in each cell of one plane in turn."""
    for cell in range(9):
        x = np.arange(9.0).reshape(1, 1, 3, 3)
        x.flat[cell] = np.nan
        with use_rung(rung):
            (out, index), _ = pool.forward(x, kernel_size=2, stride=1, return_indices=True)
        windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3))
        within = np.isnan(windows).any(axis=(4, 5))
        if not (np.array_equal(np.isnan(out), within) and np.all(index[within] == cell)):
            return False
    return True


@pytest.mark.parametrize("rung", SPEC["max_pool2d"].rungs)
def test_nan_wins_in_any_cell(rung):
    assert nan_wins(max_pool2d, rung)


@pytest.mark.parametrize("mutant", mutants_compiled.RARE_CELL, ids=str)
def test_nan_that_is_not_looked_for_is_found(mutant):
    with planted(mutant) as stand_ins:
        assert not nan_wins(stand_ins["scratch_module"], mutant.rung)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("rung", SPEC["conv2d"].rungs[2:])
def test_nothing_overflows_on_the_way_to_a_result_that_does_not(rung, dtype):
    """Numbers of all sizes up to the largest, different in each array: if the definition has a finite result, so has the rung."""
    rng, ran = np.random.default_rng(0), Counter[str]()
    room = np.finfo(dtype).maxexp - 4  # for products: no result is a sum of more than 60 products, of any signs
    for _ in range(100):
        x = int(rng.choice([0, room // 2 - int(rng.integers(4)), int(rng.integers(room))]))
        weight = int(rng.choice([0, room // 2, room - x]))
        weight = min(weight, room - x)
        exponents = {"x": x, "weight": weight, "grad_out": room - max(x, weight)}
        arrays = {name: np.ldexp(rng.uniform(-1, 1, shape).astype(dtype), exponents[name]) for name, shape in SHAPES.items()}

        def results(rung: str, arrays: dict[str, np.ndarray] = arrays) -> tuple[list[np.ndarray], str]:
            with use_rung(conv2d=rung), np.errstate(all="ignore"):
                out, cache = conv2d.forward(arrays["x"], arrays["weight"])
                gradients = conv2d.backward(arrays["grad_out"], cache)
                return [out, *(gradient for gradient in gradients if gradient is not None)], cache.rung.name

        found, name = results(rung)
        wanted, _ = results("im2col")
        ran[name] += 1
        for ours, theirs in zip(found, wanted, strict=True):
            assert np.array_equal(np.isfinite(ours), np.isfinite(theirs)), (name, exponents)
    assert ran[rung] >= 20  # it does not leave all of them to other rungs


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("side", [3, 5, 6])
@pytest.mark.parametrize("N", [1, 40])  # the longest of the three sums is over channels, or over tiles
def test_winograd_is_finite_up_to_its_limit(N, side, dtype):
    """With signs that let nothing cancel, at each position of the square in turn."""
    x, weight = np.empty((N, 8, 9, 9), dtype), np.empty((4, 8, side, side), dtype)
    geometry = geometry_of(x.shape, weight.shape, 1, 0, 1, 1)
    limit = limit_of(x, weight, geometry)
    grad_out = np.empty((N, 4, geometry.OH, geometry.OW), dtype)

    def signs(array: np.ndarray, row: int, column: int) -> None:
        h, w = np.ogrid[: array.shape[2], : array.shape[3]]
        array[...] = limit * np.array([1, -1])[(h * row + w * column) % 2]

    for row, column, of_x in itertools.product((0, 1), (0, 1), (0, 1)):
        signs(x, row, of_x)
        signs(weight, row, column)
        signs(grad_out, of_x, column)
        with use_rung(conv2d="winograd"):
            out, cache = conv2d.forward(x, weight)
            assert cache.rung.name == "winograd"
            assert all(array is not None and np.isfinite(array).all() for array in (out, *conv2d.backward(grad_out, cache)[:2]))
            beyond = x.copy()
            beyond[0, 0, 4, 4] = np.nextafter(limit, dtype.type(np.inf))
            assert conv2d.forward(beyond, weight)[1].rung.name == "implicit_gemm"


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_tap_too_small_to_be_halved_is_no_taps_worth_of_error(dtype):
    x, weight = np.full((1, 1, 4, 4), np.finfo(dtype).max / 2**20, dtype), np.zeros((1, 1, 3, 3), dtype)
    weight[0, 0, 0, 0] = np.finfo(dtype).smallest_subnormal
    x[0, 0, 2:] *= -3
    with use_rung(conv2d="winograd"):
        out, cache = conv2d.forward(x / 2**60, weight)
        gradients = conv2d.backward(out, cache)
    with use_rung(conv2d="naive"):
        expected, cache = conv2d.forward(x / 2**60, weight)
        wanted = conv2d.backward(out, cache)
    for ours, theirs in zip((out, *gradients[:2]), (expected, *wanted[:2]), strict=True):
        assert ours is not None
        assert theirs is not None
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(5, 7), (6, 7), (5, 8), (3, 41), (1, 1)])
def test_winograd_writes_its_outputs_and_nothing_beside_them(shape, dtype):
    OH, OW = shape
    rng = np.random.default_rng(0)
    x, weight = rng.integers(-3, 4, (1, 2, OH + 2, OW + 2)).astype(dtype), rng.integers(-3, 4, (2, 2, 3, 3)).astype(dtype)
    bias = np.array([1, -2], dtype)
    memory = np.full(2 * OH * OW + 64, 99, dtype)
    out = memory[32:-32].reshape(1, 2, OH, OW)
    correlate(x, 0, 0, Filters.of(weight, 1), bias, out, dtype.type(9))
    with use_rung(conv2d="im2col"):
        np.testing.assert_array_equal(out, conv2d.forward(x, weight, bias)[0])
    assert np.all(memory[:32] == 99)
    assert np.all(memory[-32:] == 99)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("rung", SPEC["cross_entropy"].rungs)
def test_the_mean_over_no_classes_is_that_of_nothing(rung, reduction):
    logits = np.zeros((2, 0), np.float32)
    with use_rung(rung):
        loss, cache = cross_entropy.forward(logits, logits, reduction=reduction)
        gradients = cross_entropy.backward(np.ones_like(loss), cache)
    theirs = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(logits), reduction=reduction)
    np.testing.assert_array_equal(loss, theirs.numpy())
    assert [gradient.shape for gradient in gradients] == [(2, 0)] * 2


# torch multiplies the gradient by small factors before large ones, and so loses bits that scratch keeps: the remainder of a few
# units of the smallest number is divided by a small total, or multiplied by a large -log p.
FEW_BITS = {
    "probabilities": (
        ([[4, -4, 2]], np.array([[1, 1, 0.5]], np.float32)),
        {"weight": [0.3, 0.3, 0.3], "reduction": "sum", "label_smoothing": 0.0},
        1,
    ),
    "smoothing": (
        ([[0, 0, 0]], np.array([0])),
        {"weight": [0.05, 1.9, 1.5], "reduction": "mean", "label_smoothing": 0.1},
        12,
    ),
}


@pytest.mark.parametrize("rung", SPEC["cross_entropy"].rungs)
@pytest.mark.parametrize("name", FEW_BITS)
def test_bits_that_torch_loses_are_counted(name, rung):
    (logits, target), params, units = FEW_BITS[name]
    arrays = (np.array(logits, np.float32), target)
    case = Case(arrays, {**params, "weight": np.array(params["weight"], np.float32)}, "subnormal")
    g = np.array(units * np.finfo(np.float32).smallest_subnormal)
    drawn = {layouts: "C", memories: "reused"}
    evidence = examine(SPEC["cross_entropy"], case, lambda strategy: drawn.get(strategy, g), rung=rung)
    for assertion in ASSERTIONS:
        assertion(evidence)
