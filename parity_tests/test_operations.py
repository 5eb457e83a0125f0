"""Every operation, on every rung, in both dtypes: outputs and all gradients, beside torch and beside the reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parity_tests.draws import FLOATS
from parity_tests.parity import ASSERTIONS, examine
from parity_tests.specs import RUNGS


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("spec", "rung"), RUNGS, ids=str)
@given(data=st.data())
def test_parity(spec, rung, dtype, device, report, data):
    large = rung != "naive" and data.draw(st.integers(0, 4), label="4 for a large case") == 4
    evidence = examine(spec, data.draw(spec.cases(dtype, large)), data.draw, rung=rung, device=device)
    for assertion in ASSERTIONS:
        assertion(evidence)
    report.row(spec.name, rung, str(dtype)).add(evidence)
