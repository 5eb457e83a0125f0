"""Every operation, on every rung, in both dtypes: outputs and all gradients, beside torch and beside the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity_tests.draws import FLOATS, Case, layouts
from parity_tests.parity import ASSERTIONS, examine
from parity_tests.specs import RUNGS
from parity_tests.verdicts import SPEC
from scratch import conv2d, conv2d_winograd, use_rung


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("spec", "rung"), RUNGS, ids=str)
@given(data=st.data())
def test_parity(spec, rung, dtype, device, report, data):
    evidence = examine(spec, spec.call(data.draw, rung, dtype), data.draw, rung=rung, device=device)
    for assertion in ASSERTIONS:
        assertion(evidence)
    report.row(spec.name, rung, str(dtype)).add(evidence)


SHAPES = {"x": (2, 2, 7, 8), "weight": (3, 2, 3, 3), "grad_out": (2, 3, 5, 6)}  # of one convolution


@pytest.mark.parametrize("need_grad_x", [True, False])
@pytest.mark.parametrize("value", [np.inf, np.nan, np.finfo(np.float32).max])
@pytest.mark.parametrize("array", ["x", "weight", "grad_out"])
@pytest.mark.parametrize("rung", SPEC["conv2d"].rungs)
def test_a_number_without_bounds_reaches_what_sees_it_alone(rung, array, value, need_grad_x):
    """The generic test has such numbers in x, and then in other arrays too. Here they are in one array, whichever it is."""
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


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(5, 7), (6, 7), (5, 8), (3, 41), (1, 1)])
def test_winograd_writes_its_outputs_and_nothing_beside_them(shape, dtype):
    OH, OW = shape
    rng = np.random.default_rng(0)
    x, weight = rng.integers(-3, 4, (1, 2, OH + 2, OW + 2)).astype(dtype), rng.integers(-3, 4, (2, 2, 3, 3)).astype(dtype)
    bias = np.array([1, -2], dtype)
    memory = np.full(2 * OH * OW + 64, 99, dtype)
    out = memory[32:-32].reshape(1, 2, OH, OW)
    conv2d_winograd._correlate(x, 0, 0, conv2d_winograd.Filters.of(weight, 1), bias, out)
    with use_rung(conv2d="im2col"):
        np.testing.assert_array_equal(out, conv2d.forward(x, weight, bias)[0])
    assert np.all(memory[:32] == 99)
    assert np.all(memory[-32:] == 99)


# Where torch multiplies the gradient by small factors before the large ones, and so loses bits that scratch keeps: what is left
# of a few units of the smallest number is divided by a small total, or multiplied by a large -log p.
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
    evidence = examine(SPEC["cross_entropy"], case, lambda strategy: "C" if strategy is layouts else g, rung=rung)
    for assertion in ASSERTIONS:
        assertion(evidence)
