"""Bad input: scratch raises if and only if torch raises, and says what is wrong with which argument.

The property disturbs a valid call in up to two places, so that many calls are wrong, most of them only slightly. Where scratch
and torch differ on purpose, a row of :data:`parity_tests.deviations.DEVIATIONS` says so.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

import scratch
from alexnet_from_scratch.proof.draws import Case
from alexnet_from_scratch.proof.specs import SPECS
from parity_tests.bad_inputs import BAD_CALLS
from parity_tests.deviations import DEVIATIONS, covering
from parity_tests.verdicts import (
    ODD_VALUES,
    SPEC,
    answers,
    assert_same_verdict,
    difference,
    odd_array,
    outcomes,
)

OPERATIONS = [spec for spec in SPECS if spec.name != "sgd"]  # sgd's odd calls are in test_sgd.py


@st.composite
def disturbed(draw: DrawFn, cases: st.SearchStrategy[Case]) -> Case:
    case = draw(cases)
    for _ in range(draw(st.integers(0, 2))):
        if draw(st.booleans()) and case.params:
            name = draw(st.sampled_from(sorted(case.params)))
            old = case.params[name]
            case = replace(
                case, params={**case.params, name: draw(odd_array(old) if isinstance(old, np.ndarray) else ODD_VALUES)}
            )
        else:
            i = draw(st.sampled_from([i for i, array in enumerate(case.arrays) if array is not None]))
            case = replace(case, arrays=(*case.arrays[:i], draw(odd_array(case.arrays[i])), *case.arrays[i + 1 :]))
    return case


@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
@pytest.mark.parametrize("spec", OPERATIONS, ids=str)
@given(data=st.data())
def test_scratch_raises_if_and_only_if_torch_raises(spec, data):
    assert_same_verdict(spec.name, data.draw(disturbed(spec.cases(np.dtype(np.float32)))))


@pytest.mark.parametrize("bad", BAD_CALLS, ids=str)
def test_a_bad_call_is_told_what_is_wrong(bad):
    with pytest.raises(bad.error, match=f"^{bad.operation}: .*{bad.message}"):
        SPEC[bad.operation].scratch.forward(*bad.case.arrays, **bad.case.params)


@pytest.mark.parametrize("bad", BAD_CALLS, ids=str)
def test_torch_refuses_the_same_bad_calls(bad):
    ours, theirs = outcomes(bad.operation, bad.case)
    assert theirs or len(covering(bad.operation, bad.case, ours)) == 1


@pytest.mark.filterwarnings(
    "ignore:Implicit dimension choice:UserWarning", "ignore:reduction=:UserWarning", "ignore:overflow:RuntimeWarning"
)
@pytest.mark.parametrize("deviation", DEVIATIONS, ids=str)
def test_deviations_are_real(deviation):
    """In each row's call exactly one of the two raises, or their results differ."""
    ours, theirs = outcomes(deviation.operation, deviation.example)
    if deviation.differs:
        a, b = answers(deviation.operation, deviation.example)
        assert isinstance(a, tuple)
        assert isinstance(b, tuple)
        assert difference(a, b)
    else:
        assert (ours is None) != (theirs is None)
    assert covering(deviation.operation, deviation.example, ours, differs=deviation.differs) == [deviation.name]


def test_only_dropouts_cache_holds_a_mask():
    _, cache = scratch.relu.forward(np.ones(3))
    with pytest.raises(TypeError, match=r"dropout\.kept: cache must come from dropout\.forward, got relu\.forward's"):
        scratch.dropout.kept(cache)
