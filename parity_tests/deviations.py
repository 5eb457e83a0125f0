"""Where scratch and torch part on purpose about which calls they take. DECISIONS.md says the same in words.

Each row has a call that shows it. Almost all make scratch the stricter: torch takes what it cannot mean, or looks at an
argument only when it is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity_tests.draws import Case


@dataclass(frozen=True)
class Deviation:
    """``message`` is what scratch says, as a pattern; None where it takes the call and torch does not."""

    name: str  # its heading in DECISIONS.md
    operation: str  # the one that ``example`` calls
    message: str | None
    example: Case
    others: str = ""  # a pattern of the other operations that have it too
    where: Callable[[Case], bool] = lambda case: True

    def covers(self, operation: str, case: Case, ours: Exception | None) -> bool:
        if operation != self.operation and not re.fullmatch(self.others, operation):
            return False
        if ours is None or self.message is None:
            return ours is None and self.message is None and self.where(case)
        return re.search(self.message, str(ours)) is not None and self.where(case)

    def __str__(self) -> str:
        return self.name


def _call(*arrays: Any, **params: Any) -> Case:
    """A shape stands for zeros of that shape in float32."""
    return Case(tuple(np.zeros(a, np.float32) if isinstance(a, tuple) else a for a in arrays), params, "zeros")


def _empty(case: Case) -> bool:
    return any(array is not None and array.size == 0 for array in case.arrays)


HALF, CLASSES, BYTES, MASK = (
    np.zeros((2, 2), np.float16),
    np.zeros(1, np.int64),
    np.zeros((2, 4), np.uint8),
    np.zeros(3, np.bool_),
)
FLAG = r"must be (a number|an int|True or False), got"

DEVIATIONS = (
    Deviation("Two dtypes", "relu", r"must be float(32|64)", _call(HALF), others=".*"),
    Deviation("A number is no bool", "local_response_norm", FLAG, _call((1, 2, 3), size=1, k=True), others=".*"),
    Deviation("Empty input is checked too", "local_response_norm", "must be at least", _call((0, 2, 3), size=0), ".*", _empty),
    Deviation("A bias has OUT entries", "linear", "bias must have shape", _call((2, 3), (4, 3), ())),
    Deviation("A weight has two axes", "linear", r"weight must have shape \(OUT,IN\)", _call((2, 3), (3,))),
    Deviation(
        "The default stride is None", "max_pool2d", r"stride .* got (\(\)|\[\])", _call((1, 3, 3), kernel_size=2, stride=())
    ),
    Deviation("Average pooling takes images", "adaptive_avg_pool2d", "x must have shape", _call((2, 3), output_size=1)),
    Deviation("A mask has its input's shape", "dropout", "mask must", _call((2, 3), mask=MASK)),
    Deviation("A softmax names its axis", "softmax", "dim must be an int, got None", _call((2, 3), dim=None), "log_softmax"),
    Deviation("Smoothing is a share", "cross_entropy", "label_smoothing must", _call((2, 3), (2, 3), label_smoothing=-2.0)),
    Deviation("A target has the logits' shape", "cross_entropy", r"target must have shape \(\)", _call((3,), CLASSES)),
    Deviation(
        "Weights of classes have one axis",
        "cross_entropy",
        r"weight must have shape",
        _call((2, 3, 1), np.zeros((2, 1), np.int64), weight=np.ones((3, 1), np.float32)),
        where=lambda case: case.arrays[0].ndim > 2 and case.params["weight"].size == case.arrays[0].shape[1],
    ),
    Deviation("NaN is no option", "sgd", "must be at least 0, got nan", _call((2,), (2,), lr=(math.nan,))),
    Deviation(
        "Options are checked at every step",
        "sgd",
        "lr must be",
        _call((2,), (2,), (2,), lr=(0.1, -1)),
        where=lambda case: len(case.params["lr"]) > 1,
    ),
    Deviation("Bytes are classes everywhere", "cross_entropy", None, _call((2, 3, 4), BYTES)),
)
