"""Runs the reader's function through the parity suite's generic test, and finds the smallest input on which it fails.

The mathematics is judged apart from the edges: a formula that is right on ordinary numbers is right. Where it treats NaN or an
overflow differently from torch, the reader is told so.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import assume
from hypothesis.errors import Unsatisfiable

import scratch
from alexnet_from_scratch.exercises.answers import Arrays, Call, Function, NothingFilledInError, WrongAnswerError, ask, in_form
from alexnet_from_scratch.exercises.examples import counting, example
from alexnet_from_scratch.exercises.stub import solution
from alexnet_from_scratch.exercises.table import EXERCISES
from alexnet_from_scratch.proof.bounds import Bounded
from alexnet_from_scratch.proof.draws import Case
from alexnet_from_scratch.proof.parity import ASSERTIONS, assert_near_reference, examine, in_bounds
from alexnet_from_scratch.proof.search import Draw, search
from alexnet_from_scratch.proof.specs import SPECS, Spec

DTYPE = np.dtype(np.float32)
# The bound holds for the definition's formula, added in its order. A right answer may add the terms of a row in another order:
# log-softmax's Jacobian times grad_out goes beyond the bound in one row of ten, by up to 3 units in the last place of the largest
# number. In any order, the sum of n rounded products, none above the largest number, is off by at most n(n+1)/2 such units. That
# accepts errors of 3e-6 of the largest number. The mistakes that people make are, on some input, as large as the numbers.
LONGEST_ROW = 7  # that cases.py draws: the channels of LRN
ANY_ORDER = LONGEST_ROW * (LONGEST_ROW + 1) // 2
EPSILON = float(np.finfo(DTYPE).eps)
SMALLEST_NORMAL = np.finfo(DTYPE).tiny


@dataclass(frozen=True)
class Stage:
    """A kind of input: its ``palettes`` of numbers, and ``counts``, which says whether a case is of this kind.

    ``counts`` gets all arrays that go in and all that should come out. ``mark`` is the name of an edge in the section "At the
    edges" of each operation's page.
    """

    title: str
    palettes: tuple[str, ...]
    counts: Callable[[Sequence[np.ndarray]], bool]
    mark: str = ""


def _full(arrays: Sequence[np.ndarray]) -> bool:
    return all(array.size for array in arrays)


def _finite(arrays: Sequence[np.ndarray]) -> bool:
    return all(np.isfinite(array).all() for array in arrays)


def _none_subnormal(arrays: Sequence[np.ndarray]) -> bool:
    return not any(((array != 0) & (abs(array) <= SMALLEST_NORMAL)).any() for array in arrays)


MATHEMATICS = Stage(
    "the mathematics: ordinary numbers",
    ("integers", "reals", "after relu"),
    lambda arrays: _full(arrays) and _finite(arrays),
)
EDGES = (
    Stage("empty arrays", ("integers",), lambda arrays: not _full(arrays), "Empty"),
    Stage("huge and tiny numbers", ("wide", "huge", "tiny", "subnormal"), _full, "Huge and tiny"),
    Stage(
        "NaN and infinity",
        ("few special", "many special", "mostly special"),
        lambda arrays: _full(arrays) and not _finite(arrays) and _none_subnormal(arrays),
        "NaN and infinity",
    ),
)
_EXAMPLE = Stage("the first example", (), lambda arrays: True)


@dataclass
class Attempt:
    """An operation with the reader's function, in the form that :func:`examine` takes, and the arrays of its last call."""

    operation: str
    module: ModuleType
    yours: Function
    stage: Stage
    calls: list[Call]  # every call is added
    given: Arrays = ()
    out: Any = None
    grad_out: Any = None
    expected: Arrays = ()
    got: Any = None
    printed: str = ""

    def forward(self, *arrays: Any, **params: Any) -> tuple[Any, Any]:
        self.given, self.expected, self.got, self.printed = arrays, (), None, ""
        self.out, cache = out, _ = self.module.forward(*arrays, **params)
        if not EXERCISES[self.operation].in_place:
            return out, cache
        self.expected = (out,)
        self._only_what_counts()
        with self._updating():
            updated: tuple[Any, Any] = self.module.forward(*arrays, **params)
        self.got = (updated[0],)
        return updated

    def backward(self, grad_out: np.ndarray, cache: Any) -> Arrays:
        if EXERCISES[self.operation].in_place:
            return ()
        self.grad_out, self.expected = grad_out, self.module.backward(grad_out, cache)
        self._only_what_counts()
        if cache.rung.name == "naive":
            cache = replace(cache, rung=replace(cache.rung, backward=self._ask))
        self.got = self.module.backward(grad_out, cache)
        return tuple(self.got)

    def _only_what_counts(self) -> None:
        # Forward's output counts too: a mean over nothing is NaN, though torch's gradient of it is 0.
        outputs = self.out if isinstance(self.out, tuple) else (self.out,)
        arrays = [*self.given, *outputs, self.grad_out, *self.expected]
        numbers = [array for array in arrays if isinstance(array, np.ndarray) and array.dtype.kind == "f"]
        if not self.stage.counts(numbers):
            assume(False)

    def _updating(self) -> AbstractContextManager[Any]:
        rungs = self.module.RUNGS._rungs
        return patch.dict(rungs, naive=replace(rungs["naive"], forward=self._ask_to_update))

    def _ask(self, *arguments: Any, **options: bool) -> Arrays:
        self.got, printed = ask(self.yours, arguments, options, in_place=False)
        self.printed += printed
        results = in_form(self.got, solution(self.operation)(*arguments, **options), self.yours.__name__)
        self.calls.append(Call(arguments, options, results))
        # Copies: an answer may share memory with an argument, as `return (grad_out,)` does.
        return tuple(None if result is None else np.copy(result) for result in results)

    def _ask_to_update(self, data: np.ndarray, grad: np.ndarray, velocity: np.ndarray | None, *numbers: Any) -> None:
        before = np.copy(data), np.copy(grad), None if velocity is None else np.copy(velocity), *numbers
        returned, printed = ask(self.yours, (data, grad, velocity, *numbers), {}, in_place=True)
        self.printed += printed
        if returned is not None:
            raise WrongAnswerError(f"{self.yours.__name__} must change data and velocity in place and return nothing.")
        self.calls.append(Call(before, {}, (np.copy(data), None if velocity is None else np.copy(velocity))))


@dataclass(frozen=True)
class Failure:
    """The smallest input on which the reader's function is wrong, and everything to show about it."""

    case: Case
    grad_out: Any
    expected: Arrays
    got: Any
    wrong: tuple[Any, ...]  # for each result, which of its cells are wrong; empty if they cannot be compared
    message: str
    printed: str


def first_look(operation: str, yours: Function, calls: list[Call]) -> Failure | None:
    """Call the function on the first example: a failure that shows the example if nothing is filled in yet, else None.

    Raises:
        WrongAnswerError: the function raises an error, or its results have another form than they must.
    """
    case = example(operation)
    attempt = Attempt(operation, _spec(operation).scratch, yours, _EXAMPLE, calls)
    try:
        with scratch.use_rung("naive"):
            out, cache = attempt.forward(*case.arrays, **case.params)
            attempt.backward(counting(out.shape), cache)
    except NothingFilledInError as error:
        return _failure(case, attempt, (), str(error))
    return None


def smallest(operation: str, yours: Function, stage: Stage, cases: int) -> Failure | None:
    """The failure with the fewest elements that the search finds, the same at every run; None if it finds none.

    Shrinking stops where no single step makes the case smaller. Then a shorter search looks for a still smaller failure, and so
    on until one finds nothing.
    """
    failure, smaller = None, hunt(operation, yours, stage, cases)
    while smaller:
        failure, smaller = smaller, hunt(operation, yours, stage, cases // 3, below=smaller.case.elements)
    return failure


def hunt(
    operation: str, yours: Function, stage: Stage, cases: int, *, below: int | None = None, shrink: bool = True
) -> Failure | None:
    """A failure with fewer than ``below`` elements, or None. With ``shrink``, no single step makes the failure smaller."""
    spec = _spec(operation)
    last: Failure | None = None

    def generic_test(draw: Draw) -> None:
        nonlocal last
        case = draw(spec.cases(DTYPE, palettes=stage.palettes))
        assume(below is None or case.elements < below)
        failure = _try(spec, Attempt(operation, spec.scratch, yours, stage, []), case, draw)
        last = failure or last
        assert failure is None

    _search(generic_test, cases, shrink=shrink)
    return last


def several_calls(operation: str, yours: Function, cases: int) -> list[Call]:
    """The function's calls on the first example and on ordinary numbers, to be compared with known mistakes."""
    spec = _spec(operation)
    calls: list[Call] = []
    first_look(operation, yours, calls)

    def generic_test(draw: Draw) -> None:
        case = draw(spec.cases(DTYPE, palettes=MATHEMATICS.palettes))
        _try(spec, Attempt(operation, spec.scratch, yours, MATHEMATICS, calls), case, draw)

    _search(generic_test, cases, shrink=False)
    return calls


def _search(test: Callable[[Draw], None], cases: int, *, shrink: bool) -> None:
    # There may be no smaller case, and the reader's function may give different results for the same input.
    with warnings.catch_warnings(), suppress(Unsatisfiable):
        warnings.simplefilter("ignore")  # torch's warning about its own speed
        search(test, max(1, cases), shrink=shrink)


def _try(spec: Spec, attempt: Attempt, case: Case, draw: Any) -> Failure | None:
    try:
        evidence = examine(spec, case, draw, rung="naive", scratch_module=attempt)
        judged = slice(0 if EXERCISES[attempt.operation].in_place else evidence.outputs, None)
        largest = _largest([*case.arrays, attempt.grad_out, *attempt.expected])
        wrong = tuple(
            None if result is None else _wrong(result, expected, reference, ANY_ORDER * EPSILON * largest)
            for result, expected, reference in zip(
                evidence.results[judged], attempt.expected, evidence.reference[judged], strict=True
            )
        )
        if any(cells is not None and cells.any() for cells in wrong):
            return _failure(case, attempt, wrong, "")
        for assertion in ASSERTIONS:
            if assertion is not assert_near_reference:
                assertion(evidence)
    except (WrongAnswerError, AssertionError) as error:
        return _failure(case, attempt, (), str(error))
    return None


def _largest(arrays: Sequence[Any]) -> float:
    """The largest finite absolute value in the arrays of floats; 0 if there is none."""
    numbers = [abs(array[np.isfinite(array)]) for array in arrays if isinstance(array, np.ndarray) and array.dtype.kind == "f"]
    return max((float(array.max()) for array in numbers if array.size), default=0.0)


def _failure(case: Case, attempt: Attempt, wrong: Arrays, message: str) -> Failure:
    return Failure(case, attempt.grad_out, attempt.expected, attempt.got, wrong, message, attempt.printed)


def _wrong(result: np.ndarray, expected: np.ndarray, reference: Bounded, spread: float) -> np.ndarray:
    """The cells that are off by more than the bound (for the definition's order) and more than ``spread`` (for any order)."""
    same = (result == expected) | (np.isnan(result) & np.isnan(expected))
    with np.errstate(all="ignore"):
        close = abs(result.astype(np.float64) - expected) <= spread
    wrong: np.ndarray = (in_bounds(result, reference) > 1) & ~same & ~close
    return wrong


def _spec(operation: str) -> Spec:
    return next(spec for spec in SPECS if spec.name == operation)
