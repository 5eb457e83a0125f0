"""Calls that are wrong, or almost: how to draw them, and how scratch and torch answer.

scratch raises if and only if torch raises; where they differ on purpose, a row of :mod:`parity_tests.deviations` says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from alexnet_from_scratch.proof.draws import Case
from alexnet_from_scratch.proof.parity import to_numpy, to_torch
from alexnet_from_scratch.proof.specs import SPECS
from parity_tests.deviations import covering

SPEC = {spec.name: spec for spec in SPECS}

ODD_VALUES = st.one_of(
    st.integers(-2, 4),
    st.lists(st.integers(-1, 3), max_size=3).map(tuple),
    st.sampled_from([None, True, 1.5, -0.5, float("nan"), "same", "mean", "wrong"]),
)
DTYPES = [np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_, np.complex64]


@st.composite
def odd_array(draw: DrawFn, array: np.ndarray) -> np.ndarray:
    """The array in another dtype, or an array whose shape differs in one axis."""
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


Answer = tuple[Any, ...] | Exception


def _attempt(function: Callable[..., Any], *arguments: Any, **params: Any) -> Any:
    try:
        return function(*arguments, **params)
    except Exception as error:  # an answer too: the caller compares its kind with the other side's
        return error


def answers(operation: str, case: Case) -> tuple[Answer, Answer]:
    """Outputs and gradients by scratch and by torch as arrays, or what each raised; no gradients unless both take the call."""
    spec, results = SPEC[operation], []
    # Not on a GPU: there a class out of range crashes the whole process.
    sides = [(spec.scratch, lambda value: value), (spec.torch, lambda value: to_torch(value, "cpu"))]
    for module, convert in sides:
        params = {name: convert(value) if name in ("weight", "mask") else value for name, value in case.params.items()}
        results.append(_attempt(module.forward, *map(convert, case.arrays), **params))
    refused = any(isinstance(result, Exception) for result in results)
    for i, (module, convert) in enumerate(sides):
        if isinstance(results[i], Exception):
            continue
        out, cache = results[i]
        outs = out if isinstance(out, tuple) else (out,)
        gradients = () if refused else _attempt(module.backward, convert(np.ones_like(to_numpy(outs[0]))), cache)
        failed = isinstance(gradients, Exception)
        results[i] = gradients if failed else tuple(to_numpy(value) for value in (*outs, *gradients))
    return results[0], results[1]


def difference(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> str:
    """How two tuples of results differ; empty if they do not differ noticeably."""
    try:
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == b.dtype
                tolerance = 1e-12 if a.dtype == np.float64 else 1e-5
                np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    except AssertionError as error:
        return str(error)
    return ""


def outcomes(operation: str, case: Case) -> tuple[Exception | None, Exception | None]:
    """What scratch and torch raise, None for nothing."""
    ours, theirs = (answer if isinstance(answer, Exception) else None for answer in answers(operation, case))
    return ours, theirs


def assert_same_verdict(operation: str, case: Case) -> None:
    ours, theirs = outcomes(operation, case)
    if ours is not None:
        assert isinstance(ours, (TypeError, ValueError)), f"{type(ours).__name__}: {ours}, for {case}"
        assert re.match(rf"{operation}: [a-z_\[\]0-9.]+ .*(must|needs)", str(ours)), f"{ours}, for {case}"
    if (ours is None) != (theirs is None):
        rows = covering(operation, case, ours)
        assert len(rows) == 1, f"scratch: {ours!r}, torch: {theirs!r}, for {case}; rows that cover it: {rows}"
