"""Every operation, on every rung, in both dtypes: outputs and all gradients, beside torch and beside the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity_tests.draws import FLOATS, Case, layouts
from parity_tests.parity import ASSERTIONS, examine
from parity_tests.specs import RUNGS
from parity_tests.verdicts import SPEC


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("spec", "rung"), RUNGS, ids=str)
@given(data=st.data())
def test_parity(spec, rung, dtype, device, report, data):
    evidence = examine(spec, spec.call(data.draw, rung, dtype), data.draw, rung=rung, device=device)
    for assertion in ASSERTIONS:
        assertion(evidence)
    report.row(spec.name, rung, str(dtype)).add(evidence)


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
