"""Odd values for every parameter of every operation: what people pass by mistake, by habit, or to see what happens.

:data:`PARAMETERS` has a plain call for each operation, and for each parameter its kind, which says how to make odd values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from alexnet_from_scratch.proof.draws import Case


class Index:
    """An object that Python accepts as an integer, and nothing else does."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


class Real:
    """An object that ``float()`` accepts as a number."""

    def __float__(self) -> float:
        return 0.5


@dataclass(frozen=True)
class Odd:
    """One value of one parameter, in a call that is otherwise plain."""

    operation: str
    parameter: str
    label: str
    value: Any
    case: Case

    def __str__(self) -> str:
        return f"{self.operation}({self.parameter}={self.label})"


HUGE_INTEGERS = tuple(
    sign * number
    for number in (2**31 - 1, 2**31, 2**33, 2**40, 2**62, 2**63 - 1, 2**63, 2**64, 10**400, 10**5000)
    for sign in (1, -1)
)
# Where torch would make an array of that size, only sizes that no machine has.
NO_MEMORY = tuple(number for number in HUGE_INTEGERS if abs(number) >= 2**62)
HUGE_REALS = (math.nan, math.inf, -math.inf, 1e300, -1e300, 1e-300)
WORDS = ("mean", "sum", "none", "elementwise_mean", "MEAN", "batchmean", "zeros")


def _anything() -> Iterator[Any]:
    """Values that no parameter should have, and bools of all kinds."""
    yield from (None, ..., object(), "x", "", b"1", (), [], {}, int, True, False, np.True_, np.False_)
    yield from (np.array(True), torch.tensor(True), np.array(["sum", "mean"]), np.zeros(10**6), [0] * 10**5, *HUGE_REALS)


def _spellings(number: int) -> Iterator[Any]:
    """The same number in other types."""
    yield from (np.int64(number), np.uint8(number), np.array(number), Index(number), torch.tensor(number))
    yield from (float(number), np.float32(number), np.array(float(number)), torch.tensor(float(number)))
    yield from (complex(number), np.complex64(number), Fraction(number), Decimal(number), str(number))
    yield from (np.array([number]), torch.tensor([number]), (number,), [number], np.int8(-number), -number, 0)


def _pairs(a: int, b: int, huge: tuple[int, ...], partner: int) -> Iterator[Any]:
    """One, two and three numbers in all kinds of containers, and pairs with everything that one number may be."""
    for numbers in ((a,), (a, b), (a, b, a)):
        yield from (numbers, list(numbers), np.array(numbers), torch.tensor(numbers), torch.Size(numbers))
    yield from ({a, b}, frozenset((a, b)), range(1, 3), range(1, 2), {a: 1, b: 2}, ((a,), (b,)), "12", b"12")
    yield from ((a, odd) for odd in (*_anything(), *_spellings(b)))
    yield from ((odd, odd) for odd in (None, True, np.True_, np.int64(a), float(a), Index(a), torch.tensor(a), np.array(a), 1j))
    yield from ((partner, number) for number in huge)


# Kinds of parameters: how to make odd values.
def _pair(a: int, b: int, huge: tuple[int, ...] = HUGE_INTEGERS, partner: int = 1) -> tuple[Any, ...]:
    return (*_anything(), *_spellings(a), *_pairs(a, b, huge, partner), *huge)


def _integer(a: int, huge: tuple[int, ...] = HUGE_INTEGERS) -> tuple[Any, ...]:
    return (*_anything(), *_spellings(a), (a, a), *huge)


def _real() -> tuple[Any, ...]:
    halves = (0.5, np.float64(0.5), np.float16(0.5), np.longdouble(0.5), np.array(0.5), torch.tensor(0.5), Real(), -0.0)
    return (*_anything(), *_spellings(1), *halves, np.longdouble("1e4000"), *HUGE_INTEGERS)


def _flag() -> tuple[Any, ...]:
    return (*_anything(), *_spellings(1), *HUGE_INTEGERS)


def _word() -> tuple[Any, ...]:
    return (*_anything(), *WORDS, *(kind(WORDS[1]) for kind in (np.str_, np.array, str.encode)), (WORDS[1],), [WORDS[1]], 1)


_x = (np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7) % 13 - 4) / 16
_weight = (np.arange(4 * 3 * 2 * 3).reshape(4, 3, 2, 3) % 7 - 3) / 2
_logits = np.array([[0.0, 1.0, -2.0], [0.5, 0.25, 3.0]])
_probabilities = np.array([[0.25, 0.25, 0.5], [1.0, 0.0, 0.0]])

PARAMETERS: tuple[tuple[str, tuple[Any, ...], dict[str, Any], dict[str, tuple[Any, ...]]], ...] = (
    (
        "conv2d",
        (_x, _weight, None),
        {},
        {"stride": _pair(1, 2), "padding": _pair(1, 2, NO_MEMORY), "dilation": _pair(1, 2), "groups": _integer(1)},
    ),
    (
        "max_pool2d",
        (_x,),
        {"kernel_size": 2},
        {
            "kernel_size": _pair(2, 3),
            "stride": _pair(1, 2),
            "padding": _pair(1, 1),
            "dilation": _pair(1, 2),
            "ceil_mode": _flag(),
            "return_indices": _flag(),
        },
    ),
    ("adaptive_avg_pool2d", (_x,), {"output_size": 2}, {"output_size": _pair(2, 3, NO_MEMORY)}),
    (
        "local_response_norm",
        (_x,),
        {"size": 3},
        {"size": _integer(2, NO_MEMORY), "alpha": _real(), "beta": _real(), "k": _real()},
    ),
    ("softmax", (_x,), {"dim": 1}, {"dim": _integer(1)}),
    ("log_softmax", (_x,), {"dim": 1}, {"dim": _integer(1)}),
    ("relu", (_x,), {}, {}),
    ("linear", (_x, _x[0, 0]), {}, {}),
    ("dropout", (_x,), {"mask": _x > 0}, {"p": _real(), "training": _flag()}),
    (
        "cross_entropy",
        (_logits, np.array([0, 2])),
        {},
        {"ignore_index": _integer(1), "reduction": _word(), "label_smoothing": _real()},
    ),
    ("cross_entropy", (_logits, _probabilities), {}, {"label_smoothing": _real()}),
    (
        "sgd",
        (_logits, _probabilities, _probabilities - 0.5),
        {"lr": (0.5, 0.5), "momentum": 0.5, "weight_decay": 0.25},
        {
            "lr": _real(),
            "momentum": _real(),
            "dampening": _real(),
            "weight_decay": _real(),
            "nesterov": _flag(),
            "maximize": _flag(),
        },
    ),
)


def odd_arguments(operation: str, parameter: str, dtype: np.dtype[Any]) -> Iterator[Odd]:
    """A call of the operation for every odd value of the parameter."""
    for name, arrays, params, kinds in PARAMETERS:
        if name != operation:
            continue
        given = tuple(a.astype(dtype) if a is not None and a.dtype.kind == "f" else a for a in arrays)
        for value in kinds.get(parameter, ()):
            put = (value,) * len(params["lr"]) if parameter == "lr" else value
            case = replace(Case(given, params, "odd"), params={**params, parameter: put})
            yield Odd(operation, parameter, _label(value), value, case)


def _label(value: Any) -> str:
    if isinstance(value, int) and value.bit_length() > 64:
        return f"{'-' if value < 0 else ''}2**{value.bit_length() - 1}…"
    return (
        f"{type(value).__name__} {value!r:.60}"
        if not isinstance(value, (tuple, list))
        else f"{type(value).__name__} of {len(value)}"
    )


NAMES = sorted({(operation, parameter) for operation, _, _, kinds in PARAMETERS for parameter in kinds})
