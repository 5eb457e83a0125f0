"""The reader's file and function: how it is loaded and called, and the form that its results must have."""

from __future__ import annotations

import io
import linecache
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Function = Callable[..., Any]
Arrays = tuple[Any, ...]


class WrongAnswerError(Exception):
    """The reader's file or function does something wrong; the message is for the reader."""


class NothingFilledInError(WrongAnswerError):
    """The reader's function is still the one that was handed out."""


@dataclass(frozen=True)
class Call:
    """One call of a function that computes a backward pass or an update: its arguments, and the resulting arrays."""

    arguments: Arrays
    options: dict[str, bool]
    results: Arrays


def run(function: Function, arguments: Arrays, options: dict[str, bool], *, in_place: bool) -> Arrays:
    """The arrays that a call produces. A backward pass returns them; an update changes data and velocity ``in_place``."""
    if not in_place:
        returned: Arrays = function(*arguments, **options)
        return returned
    data, grad, velocity, *numbers = arguments
    data, velocity = np.copy(data), None if velocity is None else np.copy(velocity)
    function(data, grad, velocity, *numbers)
    return data, velocity


def ask(function: Function, arguments: Arrays, options: dict[str, bool], *, in_place: bool) -> tuple[Any, str]:
    """What the reader's function returns, and what it prints. It may write only to the arrays that it is meant to update.

    Raises:
        WrongAnswerError: the function raises an error, or nothing is filled in yet.
    """
    printed = io.StringIO()
    writable = (0, 2) if in_place else ()
    shown = [value if i in writable else _read_only(value) for i, value in enumerate(arguments)]
    try:
        with redirect_stdout(printed):
            return function(*shown, **options), printed.getvalue()
    except NotImplementedError:  # the stub raises it until the reader fills it in
        raise NothingFilledInError("Nothing is filled in yet. This is what has to come out.") from None
    except (Exception, SystemExit) as error:
        noted = f"\nIt has printed:\n{printed.getvalue().rstrip()}" if printed.getvalue() else ""
        raise WrongAnswerError(blame(error, function.__code__.co_filename) + noted) from None


def in_form(got: Any, expected: Arrays, name: str) -> Arrays:
    """The reader's gradients, after a check that their number, shapes and dtypes are right.

    In NumPy, a product with a 0-d array is a scalar. Therefore a scalar is accepted where a 0-d array is expected.

    Raises:
        WrongAnswerError: the number of gradients, a shape or a dtype is wrong.
    """
    parts = f"a tuple of {len(expected)} gradient{'s' * (len(expected) > 1)}"
    if not isinstance(got, tuple):
        comma = " A tuple of one is written (grad_x,)." if isinstance(got, np.ndarray | np.generic) else ""
        raise WrongAnswerError(f"{name} must return {parts}, got {_kind(got)}.{comma}")
    if len(got) != len(expected):
        raise WrongAnswerError(f"{name} must return {parts}, got {len(got)}.")
    mine = tuple(map(_array_for, got, expected))
    for i, (one, shipped) in enumerate(zip(mine, expected, strict=True), 1):
        if _kind(one) != _kind(shipped):
            raise WrongAnswerError(f"{name}: gradient {i} must be {_kind(shipped)}, got {_kind(one)}.{_reason(one, shipped)}")
    return mine


def _array_for(value: Any, expected: Any) -> Any:
    """``value``; but a scalar becomes an array where a 0-d array is expected."""
    scalar = isinstance(value, float | np.floating) and isinstance(expected, np.ndarray) and not expected.ndim
    return np.asarray(value, expected.dtype) if scalar else value


def _reason(got: Any, expected: Any) -> str:
    if expected is None:
        return " The array that it would belong to was not there, or its gradient was not wanted."
    if isinstance(got, np.ndarray) and got.shape == expected.shape:
        return f" np.zeros and np.empty make float64 arrays unless you pass dtype={expected.dtype}."
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"a {value.dtype} array of shape {value.shape}"
    return "None" if value is None else f"a {type(value).__name__}"


def _read_only(value: Any) -> Any:
    """A read-only view, because the arrays that backward receives belong to forward and to the caller."""
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def load(path: Path, name: str) -> Function:
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
    function: Function = found
    return function


def blame(error: BaseException, path: str) -> str:
    """The reader's line that raised, and the error."""
    if isinstance(error, SyntaxError):
        return f"Line {error.lineno} is not Python: {error.msg}\n    {(error.text or '').strip()}"
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    if "read-only" in said:
        said += "\nThe arrays that the function is given are forward's and the caller's: write to one of your own."
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"Line {frames[-1].lineno} raises {said}\n    {frames[-1].line}" if frames else f"The call raises {said}"
