"""Every parameter of every operation, with every odd value: both sides take it and agree, or refuse it, or a deviation says why.

If scratch takes a value that torch refuses because of its type, the result is that of the plain value.
"""

from __future__ import annotations

import inspect
import operator
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from alexnet_from_scratch.proof.draws import FLOATS, Case
from alexnet_from_scratch.proof.specs import SPECS
from parity_tests.deviations import covering
from parity_tests.odd_arguments import NAMES, PARAMETERS, odd_arguments
from parity_tests.verdicts import answers, difference
from parity_tests.which_values import is_index

Arrays = tuple[Any, ...]
# oneDNN's float32 convolution divides by zero at such strides, which kills the process.
DTYPES = {"conv2d": FLOATS[1:]}


def plain(value: Any) -> Any:
    """The plain form of ``value``: an int, a bool, or pairs of ints; None if it has none."""
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (tuple, list)):
        return type(value)(map(plain, value))
    return operator.index(value) if is_index(value) else value


def complaint(operation: str, case: Case, value: Any, parameter: str) -> str:
    """What is wrong with the two sides' answers; empty if nothing is."""
    ours, theirs = answers(operation, case)
    if isinstance(ours, Exception):
        if not isinstance(ours, (TypeError, ValueError)) or not re.match(rf"{operation}: [a-z_]+\b.* must ", str(ours)):
            return f"not scratch's words: {ours!r}"
        if len(str(ours)) > 500:
            return f"too long: {ours!r}"
        if isinstance(theirs, Exception):
            return ""
    elif not isinstance(theirs, Exception):
        found = difference(ours, theirs)
        return "" if found and len(covering(operation, case, None, differs=True)) == 1 else found
    rows = covering(operation, case, ours if isinstance(ours, Exception) else None)
    if len(rows) != 1:
        return f"scratch {ours!r:.200}, torch {theirs!r:.200}, rows {rows}"
    if not isinstance(ours, Exception) and plain(value) is not value:
        as_plain, _ = answers(operation, replace(case, params={**case.params, parameter: plain(value)}))
        return repr(as_plain) if isinstance(as_plain, Exception) else difference(ours, as_plain[: len(ours)])
    return ""


def test_every_parameter_is_in_the_table():
    known = {operation: {"mask", "weight", "rng", "update", "inplace"} for operation, *_ in PARAMETERS}
    for operation, parameter in NAMES:
        known[operation].add(parameter)
    for spec in SPECS:
        function = spec.scratch.module.SGD if spec.name == "sgd" else spec.scratch.forward
        parameters = {
            name
            for name, each in inspect.signature(function).parameters.items()
            if each.kind == each.KEYWORD_ONLY or name in known[spec.name]
        }
        assert parameters <= known[spec.name], spec.name


@pytest.mark.filterwarnings("ignore")  # torch's warnings about odd values
@pytest.mark.parametrize(("operation", "parameter"), NAMES)
def test_both_take_an_odd_argument_or_both_refuse_it(operation, parameter):
    complaints = [
        f"{odd} {dtype}: {found}"
        for dtype in DTYPES.get(operation, FLOATS)
        for odd in odd_arguments(operation, parameter, dtype)
        if (found := complaint(operation, odd.case, odd.value, parameter))
    ]
    assert not complaints, "\n".join(complaints)
