"""Long sums: on every rung the worst error stays below the share of its bound that ``long_sums.py`` states."""

from __future__ import annotations

import numpy as np
import pytest

import scratch
from alexnet_from_scratch.proof.bounds import Rounding
from alexnet_from_scratch.proof.parity import in_bounds, to_numpy, to_torch
from parity_tests.long_sums import DTYPE, LONG_SUMS
from parity_tests.verdicts import SPEC


@pytest.mark.parametrize(
    ("long_sum", "rung"),
    [pytest.param(row, rung, id=f"{row}-{rung}") for row in LONG_SUMS for rung in SPEC[row.operation].rungs],
)
def test_a_long_sum_uses_little_of_its_bound(long_sum, rung, device, report):
    spec = SPEC[long_sum.operation]
    worst = {"scratch": 0.0, "torch": 0.0}
    for case, array in long_sum.cases():
        expected, pull_back = spec.reference_of(rung)(Rounding(DTYPE), *case.arrays, **case.params)
        grad_out = array(*expected[0].value.shape)
        reference = (*expected, *pull_back(grad_out))[long_sum.at]
        with scratch.use_rung(rung):
            out, cache = spec.scratch.forward(*case.arrays, **case.params)
            if spec.declines(rung, case):  # a rule in proof/specs.py; the generic test checks that no other case is declined
                pytest.skip(f"{rung} leaves it to another rung")
            results = (out, *spec.scratch.backward(grad_out, cache))
        torch_out, torch_cache = spec.torch.forward(*(to_torch(a, device) for a in case.arrays), **case.params)
        torch_results = (torch_out, *spec.torch.backward(to_torch(grad_out, device), torch_cache))
        for side, result in (("scratch", results[long_sum.at]), ("torch", to_numpy(torch_results[long_sum.at]))):
            worst[side] = max(worst[side], float(np.max(in_bounds(result, reference))))
    report.add_long_sum(long_sum, rung, worst)
    assert worst["scratch"] <= long_sum.share, worst
