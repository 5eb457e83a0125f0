"""Two more witnesses for gradients, beside torch's autograd: central differences, and the adjoint identity. Neither knows torch.

For a direction v, the loss L(x) = ⟨g, f(x)⟩ changes by ⟨grad, v⟩ along it. The central difference with step h misses that by
h²/6 of a third derivative, so that the difference with step 2h misses by about four times as much, and by f's rounding over h. A
wrong gradient misses by the same amount with either step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import scratch
from parity_tests.bounds import Bounded, Rounding
from parity_tests.draws import Case, values
from parity_tests.specs import RUNGS, SPECS, Spec

FLOAT64 = np.dtype(np.float64)
STEP = 2.0**-12
SMOOTH = ["conv2d", "linear", "local_response_norm", "adaptive_avg_pool2d", "dropout", "softmax", "log_softmax", "cross_entropy"]
# Linear in their first array once the rest is fixed; conv2d and linear in the weight too.
LINEAR = {"conv2d": (0, 1), "linear": (0, 1), "adaptive_avg_pool2d": (0,), "dropout": (0,)}


def moved(case: Case, which: int, array: np.ndarray) -> list[Any]:
    return [array if i == which else other for i, other in enumerate(case.arrays)]


def loss(spec: Spec, arrays: list[Any], params: dict[str, Any], g: np.ndarray) -> np.longdouble:
    out, _ = spec.scratch.forward(*arrays, **params)
    return np.sum(g.astype(np.longdouble) * out)


def expected(spec: Spec, arrays: Any, params: dict[str, Any]) -> Bounded:
    with np.errstate(all="ignore"):
        (out, *_), _ = spec.reference(Rounding(FLOAT64), *arrays, **params)
    return out


@pytest.mark.parametrize(("spec", "rung"), [row for row in RUNGS if row[0].name in SMOOTH], ids=str)
@given(data=st.data())
def test_central_differences(spec, rung, data):
    case = data.draw(spec.cases(FLOAT64, palettes=("integers", "reals")))
    # Away from where the formula itself has no derivative, and from the mean of nothing.
    assume(case.params.get("k", 1) > 0)
    out = expected(spec, case.arrays, case.params)
    assume(np.isfinite(out.value).all())
    g = data.draw(values(FLOAT64, out.value.shape, "reals"))
    with scratch.use_rung(rung):
        _, cache = spec.scratch.forward(*case.arrays, **case.params)
        for which, gradient in enumerate(spec.scratch.backward(g, cache)):
            if gradient is not None:
                v = data.draw(values(FLOAT64, gradient.shape, "reals"))
                check_slope(spec, case, which, gradient, v, g)


def check_slope(spec: Spec, case: Case, which: int, gradient: np.ndarray, v: np.ndarray, g: np.ndarray) -> None:
    x = case.arrays[which]
    misses, rounding = [], 0.0
    for h in (STEP, 2 * STEP):
        ends = [x + h * v, x - h * v]
        up, down = (loss(spec, moved(case, which, end), case.params, g) for end in ends)
        # Along the way that was really gone: the ends are rounded.
        slope = np.sum(gradient * (ends[0].astype(np.longdouble) - ends[1]))
        misses.append(abs(up - down - slope) / (2 * h))
        for end in ends:
            rounding += float(np.sum(abs(g) * expected(spec, moved(case, which, end), case.params).error)) / (2 * h)
    # The gradient's own rounding is far below the difference's: some u of what it sums.
    assert misses[0] <= misses[1] / 2 + 2 * rounding + 1e-13 * np.sum(abs(gradient * v))


@pytest.mark.parametrize(("spec", "rung"), [row for row in RUNGS if row[0].name in LINEAR], ids=str)
@given(data=st.data())
def test_backward_is_the_adjoint(spec, rung, data):
    """⟨f(x), g⟩ = ⟨x, backward(g)⟩ for what is linear: exact for integers, which need no tolerance."""
    case = data.draw(spec.cases(FLOAT64, palettes=("integers",)))
    arrays = [*case.arrays[:2], *[None for _ in case.arrays[2:]]]  # without the bias, which is no linear part
    with scratch.use_rung(rung):
        out, cache = spec.scratch.forward(*arrays, **case.params)
        g = data.draw(values(FLOAT64, out.shape, "integers"))
        gradients = spec.scratch.backward(g, cache)
    for which in LINEAR[spec.name]:
        left, right = np.sum(out * g), np.sum(arrays[which] * gradients[which])
        exact = spec.name in ("conv2d", "linear")
        room = 0 if exact else 1e-13 * (np.sum(abs(out * g)) + np.sum(abs(arrays[which] * gradients[which])))
        assert abs(left - right) <= room


def test_every_operation_has_a_witness():
    """Relu and max_pool2d are exact: the generic test compares their gradients to the bit. SGD has none."""
    assert {spec.name for spec in SPECS} == {*SMOOTH, "relu", "max_pool2d", "sgd"}
