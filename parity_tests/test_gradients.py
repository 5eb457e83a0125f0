"""Two more checks of gradients, apart from torch's autograd: central differences and the adjoint identity. Neither uses torch.

For a direction v, the loss L(x) = ⟨g, f(x)⟩ changes by ⟨grad, v⟩ along it. The central difference with step h misses that by
h²/6 of a third derivative, so that the difference with step 2h misses by about four times as much, and by f's rounding over h. A
wrong gradient misses by the same amount with either step. Relu and max_pool2d have corners, where two values tie or one is zero:
their inputs are different integers, none of them zero, so that no step reaches a corner.

Where f is linear, L(x) is ⟨grad, x⟩ itself, without any steps: ⟨f(x), g⟩ = ⟨x, backward(g)⟩. This also holds for relu and
max_pool2d: doubling their input doubles the output, so they are linear along the direction x.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import scratch
from alexnet_from_scratch.proof.bounds import Bounded, Rounding
from alexnet_from_scratch.proof.draws import Case, fewer, values
from alexnet_from_scratch.proof.specs import RUNGS, Spec

FLOAT64 = np.dtype(np.float64)
STEP = 2.0**-12
CORNERS = ("relu", "max_pool2d")
# For each operation, the arrays in which it is linear, one at a time.
LINEAR = {
    "conv2d": (0, 1, 2),
    "linear": (0, 1, 2),
    "adaptive_avg_pool2d": (0,),
    "dropout": (0,),
    "relu": (0,),
    "max_pool2d": (0,),
}
WITH_GRADIENTS = [row for row in RUNGS if row[0].name != "sgd"]  # an optimizer has no gradients


def moved(case: Case, which: int, array: np.ndarray) -> list[Any]:
    return [array if i == which else other for i, other in enumerate(case.arrays)]


def loss(spec: Spec, arrays: list[Any], params: dict[str, Any], g: np.ndarray) -> np.longdouble:
    return np.sum(g.astype(np.longdouble) * values_of(spec.scratch.forward(*arrays, **params)[0]))


def values_of(out: Any) -> np.ndarray:
    """The output, without max pooling's indices."""
    return out[0] if isinstance(out, tuple) else out


def expected(spec: Spec, arrays: Any, params: dict[str, Any]) -> Bounded:
    with np.errstate(all="ignore"):
        (out, *_), _ = spec.reference(Rounding(FLOAT64), *arrays, **params)
    return out


@pytest.mark.parametrize(("spec", "rung"), WITH_GRADIENTS, ids=str)
@fewer
@given(data=st.data())
def test_central_differences(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=("integers", "reals")))
    assume(not any(isinstance(value, float) and math.isinf(value) for value in case.params.values()))  # alpha or k: no slope
    if spec.name in CORNERS:
        (x,) = case.arrays
        different = data.draw(st.permutations(range(1, x.size + 1)), label="absolute values")
        signs = np.where(x < 0, -1.0, 1.0)
        case = replace(case, arrays=(signs * np.reshape(different, x.shape),))
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
        # Along the step actually taken: the ends are rounded.
        slope = np.sum(gradient * (ends[0].astype(np.longdouble) - ends[1]))
        misses.append(abs(up - down - slope) / (2 * h))
        for end in ends:
            rounding += float(np.sum(abs(g) * expected(spec, moved(case, which, end), case.params).error)) / (2 * h)
    # The gradient's own rounding is far smaller than the difference's: a few u of the terms that it sums.
    assert misses[0] <= misses[1] / 2 + 2 * rounding + 1e-13 * np.sum(abs(gradient * v))


@pytest.mark.parametrize(("spec", "rung"), [row for row in RUNGS if row[0].name in LINEAR], ids=str)
@fewer
@given(data=st.data())
def test_backward_is_the_adjoint(spec, rung, data):
    """⟨f(x), g⟩ = ⟨x, backward(g)⟩: sums of integers, which need no tolerance, except averages and dropout's scale."""
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=("integers",)))
    for which in LINEAR[spec.name]:
        if case.arrays[which] is None:
            continue
        arrays = list(case.arrays)
        if which == 2:  # a bias alone: without the product that it is added to
            arrays[0] = np.zeros_like(arrays[0])
        elif len(arrays) == 3:
            arrays[2] = None
        with scratch.use_rung(rung):
            result, cache = spec.scratch.forward(*arrays, **case.params)
            out = values_of(result)
            g = data.draw(values(FLOAT64, out.shape, "integers"))
            gradients = spec.scratch.backward(g, cache)
        left, right = np.sum(out * g), np.sum(arrays[which] * gradients[which])
        rounds = spec.name in ("adaptive_avg_pool2d", "dropout")
        room = 1e-13 * (np.sum(abs(out * g)) + np.sum(abs(arrays[which] * gradients[which]))) if rounds else 0
        assert abs(left - right) <= room
