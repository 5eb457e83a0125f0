"""Numbers that remember how they were made, so that the kernels themselves show what they computed.

A naive rung is plain Python over NumPy arrays. Given arrays of :class:`Number` objects it computes the same values, in the same
float32 and the same order, and every number keeps its operands and the source line that made it::

    tape = Tape(limit=100_000)
    out, _ = relu.naive_forward(tape.given("x", x))
    tape.made("out", out)
"""

from __future__ import annotations

import operator
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

import scratch

SCRATCH = str(Path(scratch.__file__).parent)
SUM, MINUS, TEST = "Σ", "−", "?"


class Padding(int):
    """The number around an image, which no cell holds."""


PADDING = Padding(0)


class TooLongError(ValueError):
    """The kernel takes more steps than a page can show."""


class Place(NamedTuple):
    """A line of source."""

    file: str
    function: str
    line: int


class Test(NamedTuple):
    """A comparison that a kernel made, or a condition (sign "?") that it evaluated."""

    sign: str
    outcome: bool
    place: Place
    operands: tuple[Any, ...]


@dataclass
class Recorded:
    """An array of numbers and, by rung, how each of them was made; ``how`` stays empty for inputs."""

    name: str
    values: np.ndarray
    numbers: np.ndarray  # objects
    how: dict[str, list[Any]] = field(default_factory=dict)
    tests: list[list[Test]] = field(default_factory=list)


class Tape:
    """What the kernels did: the arrays by name, and the comparisons that do not belong to an array yet."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rung = "naive"
        self.arrays: dict[str, Recorded] = {}
        self._steps = 0
        self._tests: dict[tuple[Any, ...], list[Test]] = defaultdict(list)

    def given(self, name: str, values: np.ndarray) -> np.ndarray:
        """An array of numbers to hand to a kernel."""
        numbers = np.empty(values.shape, object)
        for flat, i in enumerate(np.ndindex(values.shape)):
            numbers[i] = Number(self, values[i], cell=(name, flat))
        self.arrays[name] = Recorded(name, values, numbers)
        return numbers

    def scalar(self, name: str, value: float) -> Number:
        """A parameter: a number with a name, of the type in which the kernel gets it."""
        number: Number = self.given(name, np.asarray(value)).item()
        number.value = value
        return number

    def made(self, name: str, made: np.ndarray) -> np.ndarray:
        """Name an array that a kernel made, and return it as numbers for further kernels.

        The comparisons since the last named array belong to this one. Each is taken to decide the cell whose index the kernel's
        loop held at that moment.
        """
        if name not in self.arrays:
            values = np.array([_value(number) for number in made.ravel()], np.float32).reshape(made.shape)
            self.given(name, values)
        recorded = self.arrays[name]
        recorded.how[self.rung] = list(made.ravel())
        recorded.tests = [self._tests.pop(i, []) for i in np.ndindex(made.shape)]
        self._tests.clear()
        for flat, number in enumerate(made.ravel()):
            if isinstance(number, Number) and number.cell is None:
                number.cell = (name, flat)
        return recorded.numbers

    def step(self) -> int:
        """Count a step, and return its number."""
        self._steps += 1
        if self._steps > self.limit:
            raise TooLongError(
                f"must take at most {self.limit:,} steps to fit on a page, got more: choose smaller sizes (--help lists them)"
            )
        return self._steps

    def test(self, outcome: bool, sign: str, operands: tuple[Any, ...]) -> bool:
        """Record a comparison under the current index of the kernel's loop, unless only parameters are compared."""
        self.step()
        cells = [operand.cell for operand in operands if isinstance(operand, Number)]
        if not any(cell and self.arrays[cell[0]].values.ndim for cell in cells):
            return outcome
        frame = _kernel_frame()
        names = frame.f_locals
        index = names.get("i", tuple(names.get(axis) for axis in ("n", "c", "oh", "ow")))
        self._tests[index].append(Test(sign, outcome, _place(frame), operands))
        return outcome


class Number:
    """A scalar with a memory: a cell of an array, or a sign and its operands."""

    __slots__ = ("cell", "operands", "place", "sign", "step", "tape", "value")

    def __init__(
        self, tape: Tape, value: Any, sign: str = "", operands: tuple[Any, ...] = (), *, cell: tuple[str, int] | None = None
    ) -> None:
        self.step = tape.step()
        self.tape, self.value, self.sign, self.operands, self.cell = tape, value, sign, operands, cell
        self.place = _place(_kernel_frame()) if sign else None

    def __bool__(self) -> bool:
        return self.tape.test(bool(self.value), TEST, (self,))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *operands: Any, **options: Any) -> Any:
        """NumPy's functions of a number, and arithmetic with a NumPy scalar as the left operand."""
        return FUNCTIONS[ufunc.__name__](*operands) if method == "__call__" and not options else NotImplemented


def _value(operand: Any) -> Any:
    if isinstance(operand, (np.integer, Padding)):  # NumPy would turn float32 into float64, as it does not for an int
        return int(operand)
    return operand.value if isinstance(operand, Number) else operand


def _tape(operands: tuple[Any, ...]) -> Tape:
    tape: Tape = next(operand.tape for operand in operands if isinstance(operand, Number))
    return tape


def _kernel_frame() -> FrameType:
    """The innermost call in scratch's own code, not in this file or NumPy."""
    frame: Any = sys._getframe()
    while not frame.f_code.co_filename.startswith(SCRATCH):
        frame = frame.f_back
    return frame  # type: ignore[no-any-return]


def _place(frame: FrameType) -> Place:
    return Place(frame.f_code.co_filename, frame.f_code.co_qualname.partition(".")[0], frame.f_lineno)


def _arithmetic(sign: str, compute: Callable[..., Any]) -> Callable[..., Number]:
    return lambda *operands: Number(_tape(operands), compute(*map(_value, operands)), sign, operands)


def _comparison(sign: str, compute: Callable[..., Any]) -> Callable[..., bool]:
    return lambda *operands: _tape(operands).test(bool(compute(*map(_value, operands))), sign, operands)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": _arithmetic("+", operator.add),
    "subtract": _arithmetic(MINUS, operator.sub),
    "multiply": _arithmetic("·", operator.mul),
    "divide": _arithmetic("/", operator.truediv),
    "power": _arithmetic("^", operator.pow),
    "negative": _arithmetic(MINUS, operator.neg),
    "exp": _arithmetic("exp", np.exp),
    "log": _arithmetic("log", np.log),
    "isnan": _comparison("is NaN", np.isnan),
    "less": _comparison("<", operator.lt),
    "less_equal": _comparison("≤", operator.le),
    "greater": _comparison(">", operator.gt),
    "greater_equal": _comparison("≥", operator.ge),
    "equal": _comparison("=", operator.eq),
    "not_equal": _comparison("≠", operator.ne),
}

for method, function in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power", "neg": "negative",
    "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal", "eq": "equal", "ne": "not_equal",
}.items():  # fmt: skip
    setattr(Number, f"__{method}__", FUNCTIONS[function])
for method, function in {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power"}.items():
    setattr(Number, f"__r{method}__", lambda self, other, apply=FUNCTIONS[function]: apply(other, self))
