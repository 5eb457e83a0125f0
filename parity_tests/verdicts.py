"""Calls that are wrong, or just not quite: how to draw them, and what scratch and torch say to them.

scratch raises if and only if torch raises; where they part on purpose :data:`parity_tests.deviations.DEVIATIONS` says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from parity_tests.deviations import DEVIATIONS
from parity_tests.draws import Case
from parity_tests.parity import to_torch
from parity_tests.specs import SPECS

SPEC = {spec.name: spec for spec in SPECS}

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


def outcomes(operation: str, case: Case) -> tuple[Exception | None, Exception | None]:
    """What scratch and torch raise, None for nothing."""

    def outcome(module: Any, convert: Callable[[Any], Any]) -> Exception | None:
        arrays = [convert(array) for array in case.arrays]
        params = {name: convert(value) for name, value in case.params.items()}
        try:
            module.forward(*arrays, **params)
        except Exception as error:
            return error
        return None

    # Not on a GPU: there a class out of range takes the whole process down.
    spec = SPEC[operation]
    return outcome(spec.scratch, lambda value: value), outcome(spec.torch, lambda value: to_torch(value, "cpu"))


def assert_same_verdict(operation: str, case: Case) -> None:
    ours, theirs = outcomes(operation, case)
    if ours is not None:
        assert isinstance(ours, (TypeError, ValueError)), f"{type(ours).__name__}: {ours}, for {case}"
        assert re.match(rf"{operation}: [a-z_\[\]0-9.]+ .*(must|needs)", str(ours)), f"{ours}, for {case}"
    if (ours is None) != (theirs is None):
        covered = any(deviation.covers(operation, case, ours) for deviation in DEVIATIONS)
        assert covered, f"scratch: {ours!r}, torch: {theirs!r}, for {case}"
