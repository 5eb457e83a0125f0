"""Runs the reader's backward pass through the parity suite's generic test, and finds the smallest input on which it fails."""

from __future__ import annotations

import io
import linecache
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis.errors import Flaky, Unsatisfiable

from alexnet_from_scratch.exercises.stub import solution
from alexnet_from_scratch.proof.bounds import Bounded
from alexnet_from_scratch.proof.draws import Case
from alexnet_from_scratch.proof.parity import ASSERTIONS, examine, in_bounds
from alexnet_from_scratch.proof.search import Draw, search
from alexnet_from_scratch.proof.specs import SPECS, Spec

DTYPE = np.dtype(np.float32)
Backward = Callable[..., Any]
Arrays = tuple[Any, ...]


class WrongAnswerError(Exception):
    """The reader's file or function does something wrong; the message is for the reader."""


@dataclass(frozen=True)
class Stage:
    """A kind of input: ``palettes`` of numbers, and whether only finite and non-empty inputs count."""

    title: str
    palettes: tuple[str, ...] | None
    plain: bool


STAGES = (
    Stage("plain numbers", ("integers", "reals", "after relu"), plain=True),
    Stage("the edges: NaN, infinities, huge, tiny and empty", None, plain=False),
)


@dataclass
class Attempt:
    """An operation with the reader's backward pass, in the form that :func:`examine` takes, and the last call that it saw."""

    operation: ModuleType
    yours: Backward
    stage: Stage
    grad_out: Any = None
    expected: Arrays = ()
    got: Any = None
    printed: str = field(default="", init=False)

    def forward(self, *arrays: Any, **params: Any) -> tuple[Any, Any]:
        self.expected, self.got, self.printed = (), None, ""
        out: tuple[Any, Any] = self.operation.forward(*arrays, **params)
        return out

    def backward(self, grad_out: np.ndarray, cache: Any) -> Arrays:
        self.grad_out, self.expected = grad_out, self.operation.backward(grad_out, cache)
        arrays = [gradient for gradient in self.expected if gradient is not None]
        assume(not self.stage.plain or all(array.size and np.isfinite(array).all() for array in arrays))
        if cache.rung.name == "naive":
            cache = replace(cache, rung=replace(cache.rung, backward=self._ask))
        self.got = self.operation.backward(grad_out, cache)
        return tuple(self.got)

    def _ask(self, grad_out: np.ndarray, *saved: Any, **options: bool) -> Arrays:
        """Call the reader's function and check that its result can be compared at all."""
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                self.got = self.yours(_read_only(grad_out), *map(_read_only, saved), **options)
        except NotImplementedError:
            # Before any failure, choose a case worth showing: its first plane of grad_x has several values.
            plane = np.atleast_2d(self.expected[0])
            assume(np.unique(plane[(0,) * (plane.ndim - 2)]).size > 2)
            raise WrongAnswerError("Nothing is filled in yet. This is what has to come out.") from None
        except (Exception, SystemExit) as error:
            raise WrongAnswerError(blame(error, self.yours.__code__.co_filename)) from None
        finally:
            self.printed = printed.getvalue()
        shipped = solution(self.operation.__name__.rpartition(".")[2])
        check_form(self.got, shipped(grad_out, *saved, **options), self.yours.__name__)
        return tuple(self.got)


@dataclass(frozen=True)
class Failure:
    """The smallest input on which the reader's function is wrong, and everything to show about it."""

    case: Case
    grad_out: np.ndarray
    expected: Arrays
    got: Any
    wrong: tuple[Any, ...]  # for each gradient, which of its cells are wrong; empty if they cannot be compared
    message: str
    printed: str


def smallest(operation: str, yours: Backward, stage: Stage, cases: int) -> Failure | None:
    """The smallest failure, by number of elements, that the search finds; the same at every run; None if there is none.

    Shrinking stops where no single step makes the case smaller. So a shorter search then starts below the size reached, as long
    as that helps.
    """
    (spec,) = (spec for spec in SPECS if spec.name == operation)
    failure, smaller = None, _hunt(spec, yours, stage, cases, below=None)
    while smaller:
        failure, smaller = smaller, _hunt(spec, yours, stage, cases // 3, below=smaller.case.elements)
    return failure


def _hunt(spec: Spec, yours: Backward, stage: Stage, cases: int, below: int | None) -> Failure | None:
    last: Failure | None = None

    def generic_test(draw: Draw) -> None:
        nonlocal last
        case = draw(spec.cases(DTYPE, palettes=stage.palettes))
        assume(below is None or case.elements < below)
        failure = _try(spec, Attempt(spec.scratch, yours, stage), case, draw)
        last = failure or last
        assert failure is None

    # The reader's function may give other results every time; and there may be no smaller case.
    with warnings.catch_warnings(), suppress(Flaky, Unsatisfiable):
        warnings.simplefilter("ignore")  # torch's warning about its own speed
        search(generic_test, cases)
    return last


def _try(spec: Spec, attempt: Attempt, case: Case, draw: Any) -> Failure | None:
    wrong: Arrays = ()
    try:
        evidence = examine(spec, case, draw, rung="naive", scratch_module=attempt)
        wrong = tuple(
            None if gradient is None else _wrong(gradient, expected, reference)
            for gradient, expected, reference in zip(
                evidence.results[evidence.outputs :], attempt.expected, evidence.reference[evidence.outputs :], strict=True
            )
        )
        for assertion in ASSERTIONS:
            assertion(evidence)
    except WrongAnswerError as error:
        message = str(error)
    except AssertionError as error:
        message = "" if any(cells is not None and cells.any() for cells in wrong) else str(error)
    else:
        return None
    return Failure(case, attempt.grad_out, attempt.expected, attempt.got, wrong, message, attempt.printed)


def _wrong(gradient: np.ndarray, expected: np.ndarray, reference: Bounded) -> np.ndarray:
    """The cells whose error is larger than rounding explains."""
    same = (gradient == expected) | (np.isnan(gradient) & np.isnan(expected))
    wrong: np.ndarray = (in_bounds(gradient, reference) > 1) & ~same
    return wrong


def check_form(got: Any, expected: Arrays, name: str) -> None:
    """Check that there are as many gradients as there should be, each of the right kind, shape and dtype.

    Raises:
        WrongAnswerError: they are not.
    """
    parts = f"a tuple of {len(expected)} gradient{'s' * (len(expected) > 1)}"
    if not isinstance(got, tuple):
        comma = " A tuple of one is written (grad_x,)." if isinstance(got, np.ndarray) else ""
        raise WrongAnswerError(f"{name} must return {parts}, got {_kind(got)}.{comma}")
    if len(got) != len(expected):
        raise WrongAnswerError(f"{name} must return {parts}, got {len(got)}.")
    for i, (mine, shipped) in enumerate(zip(got, expected, strict=True), 1):
        if _kind(mine) != _kind(shipped):
            raise WrongAnswerError(f"{name}: gradient {i} must be {_kind(shipped)}, got {_kind(mine)}.")


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    return "None" if value is None else f"a {type(value).__name__}"


def _read_only(value: Any) -> Any:
    """A read-only view, because what backward receives belongs to forward and to the caller."""
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def load(path: Path, name: str) -> Backward:
    """The function ``name`` from the reader's file.

    Raises:
        WrongAnswerError: the file does not run, or has no such function.
    """
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    linecache.checkcache(str(path))
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise WrongAnswerError(blame(error, str(path))) from None
    found = vars(module).get(name)
    if not callable(found) or not hasattr(found, "__code__"):
        raise WrongAnswerError(f"{path.name} must define the function {name}.")
    function: Backward = found
    return function


def blame(error: BaseException, path: str) -> str:
    """The reader's line that raised, and the error."""
    if isinstance(error, SyntaxError):
        return f"Line {error.lineno} is not Python: {error.msg}\n    {(error.text or '').strip()}"
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    if "read-only" in said:
        said += "\nThe arrays that backward is given are forward's and the caller's: write to one of your own."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"Line {frames[-1].lineno} raises {said}\n    {frames[-1].line}" if frames else f"The call raises {said}"
