"""Bad input: scratch raises if and only if torch raises, and says what is wrong with which argument.

The property disturbs a valid call in up to two places, so that many calls are wrong, and most of those only just. Where scratch
and torch part on purpose, :data:`parity_tests.deviations.DEVIATIONS` says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from parity_tests.bad_inputs import BAD_CALLS
from parity_tests.deviations import DEVIATIONS
from parity_tests.draws import Case
from parity_tests.parity import to_torch
from parity_tests.specs import SPECS

OPERATIONS = [spec for spec in SPECS if spec.name != "sgd"]  # an optimizer has no call like the others

ODD_VALUES = st.one_of(
    st.integers(-2, 4),
    st.lists(st.integers(-1, 3), max_size=3).map(tuple),
    st.sampled_from([None, True, 1.5, -0.5, float("nan"), "same", "mean", "wrong"]),
)
DTYPES = [np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_, np.complex64]


@st.composite
def odd_array(draw: DrawFn, array: np.ndarray) -> np.ndarray:
    """The array in another dtype, or one of a shape that differs in one axis."""
    if draw(st.booleans()):
        return np.ones_like(array, draw(st.sampled_from(DTYPES)))
    shape = list(array.shape)
    how = draw(st.sampled_from(["resize", "add", "drop"] if shape else ["add"]))
    at = draw(st.integers(0, max(len(shape) - 1, 0)))
    if how == "resize":
        shape[at] = draw(st.integers(0, 4))
    elif how == "add":
        shape.insert(at, draw(st.integers(0, 2)))
    else:
        del shape[at]
    return np.zeros(shape, array.dtype)


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


def outcomes(operation: str, case: Case) -> tuple[Exception | None, Exception | None]:
    """What scratch and torch raise, None for nothing."""

    def outcome(package: str, convert: Callable[[Any], Any]) -> Exception | None:
        arrays = [convert(array) for array in case.arrays]
        params = {name: convert(value) for name, value in case.params.items()}
        try:
            import_module(f"{package}.{operation}").forward(*arrays, **params)
        except Exception as error:
            return error
        return None

    return outcome("scratch", lambda value: value), outcome("torch_impl", lambda value: to_torch(value, "cpu"))


@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
@pytest.mark.parametrize("spec", OPERATIONS, ids=str)
@given(data=st.data())
def test_scratch_raises_if_and_only_if_torch_raises(spec, data):
    case = data.draw(disturbed(spec.cases(np.dtype(np.float32))))
    ours, theirs = outcomes(spec.name, case)
    if ours is not None:
        assert isinstance(ours, (TypeError, ValueError)), f"{type(ours).__name__}: {ours}, for {case}"
        assert re.match(rf"{spec.name}: [a-z_]+ .*(must|needs)", str(ours)), f"{ours}, for {case}"
    if (ours is None) != (theirs is None):
        covered = any(deviation.covers(spec.name, case, ours) for deviation in DEVIATIONS)
        assert covered, f"scratch: {ours!r}, torch: {theirs!r}, for {case}"


@pytest.mark.parametrize("bad", BAD_CALLS, ids=str)
def test_a_bad_call_is_told_what_is_wrong(bad):
    forward = import_module(f"scratch.{bad.operation}").forward
    with pytest.raises(bad.error, match=f"^{bad.operation}: .*{bad.message}"):
        forward(*bad.case.arrays, **bad.case.params)


@pytest.mark.parametrize("bad", BAD_CALLS, ids=str)
def test_torch_refuses_the_same_bad_calls(bad):
    ours, theirs = outcomes(bad.operation, bad.case)
    assert theirs or any(deviation.covers(bad.operation, bad.case, ours) for deviation in DEVIATIONS)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice:UserWarning")
@pytest.mark.parametrize("deviation", DEVIATIONS, ids=str)
def test_deviations_are_real_and_documented(deviation):
    """In each row's own call exactly one of the two raises, and DECISIONS.md has the row's name in bold."""
    ours, theirs = outcomes(deviation.operation, deviation.example)
    assert (ours is None) != (theirs is None)
    assert deviation.covers(deviation.operation, deviation.example, ours)
    assert f"**{deviation.name}.**" in (Path(__file__).parent.parent / "DECISIONS.md").read_text()
