"""Where scratch and torch deliberately accept different calls. docs/deviations.md says the same in words.

Each row names the arguments that it is about, says exactly which of their values it covers, and has a call that shows it. Almost
all make scratch the stricter one: torch accepts values that make no sense, or checks an argument only when it is needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alexnet_from_scratch.proof.draws import Case
from parity_tests.which_values import (
    a_bool,
    another_dtype,
    array_or_complex,
    averages_all,
    beyond_torch,
    broadcasts,
    entries,
    is_bool,
    is_index,
    large,
    never_dampened,
    no_bool,
    of_nothing_to_say,
    torch_refuses_it_when_full,
)

ARRAYS = {"conv2d": ("x", "weight", "bias"), "linear": ("x", "weight", "bias"), "cross_entropy": ("logits", "target")}


def arguments(operation: str, case: Case) -> Iterator[tuple[str, Any]]:
    """The call's arguments by their names in scratch's messages; sgd has a rate and a gradient for every step."""
    if operation == "sgd":
        yield "parameters[0].data", case.arrays[0]
        yield from (("grad", gradient) for gradient in case.arrays[1:])
        yield from (("lr", rate) for rate in case.params["lr"])
        yield from ((name, value) for name, value in case.params.items() if name != "lr")
    else:
        yield from zip(ARRAYS.get(operation, ("x",)), case.arrays, strict=False)
        yield from case.params.items()


@dataclass(frozen=True)
class Deviation:
    """``message`` is what scratch says about the argument, as a pattern; None if it takes the call and torch does not."""

    name: str  # its title in docs/deviations.md
    operation: str  # the operation that ``example`` calls
    argument: str  # a pattern for the arguments that it is about
    message: str | None
    example: Case
    where: Callable[[Any, Case], bool]  # which values of the argument, in which calls
    others: str = ""  # a pattern for the other operations that deviate too
    differs: bool = False  # both take the call, and their results differ

    def covers(self, operation: str, case: Case, ours: Exception | None, *, differs: bool = False) -> bool:
        if differs != self.differs:
            return False
        if operation != self.operation and not re.fullmatch(self.others, operation):
            return False
        if ours is None or self.message is None:
            return ours is None and self.message is None and self._holds(operation, case, self.argument)
        said = re.match(rf"{operation}: ({self.argument})\b.* {self.message}", str(ours), re.DOTALL)
        return said is not None and self._holds(operation, case, re.escape(said[1]))

    def _holds(self, operation: str, case: Case, argument: str) -> bool:
        return any(re.fullmatch(argument, name) and self.where(value, case) for name, value in arguments(operation, case))

    def __str__(self) -> str:
        return self.name


def _call(*arrays: Any, **params: Any) -> Case:
    """A shape means an array of zeros of that shape in float32."""
    return Case(tuple(np.zeros(a, np.float32) if isinstance(a, tuple) else a for a in arrays), params, "zeros")


HALF, CLASSES, BYTES, MASK = (
    np.zeros((2, 2), np.float16),
    np.zeros(1, np.int64),
    np.zeros((2, 4), np.uint8),
    np.zeros(3, np.bool_),
)
IMAGE = (1, 2, 3)
LABELS = np.zeros(2, np.int64)

DEVIATIONS = (
    Deviation("Two dtypes", "relu", ".*", r"must be float(32|64)", _call(HALF), another_dtype, ".*"),
    Deviation(
        "A number is not a bool",
        "local_response_norm",
        ".*",
        r"must be (a number|an int), got",
        _call(IMAGE, size=1, k=True),
        a_bool,
        ".*",
    ),
    Deviation(
        "A flag is a bool",
        "sgd",
        ".*",
        "must be True or False, got",
        _call((2,), (2,), lr=(0.1,), maximize=1),
        no_bool,
        "dropout|max_pool2d",
    ),
    Deviation(
        "NumPy's bools are bools",
        "max_pool2d",
        "ceil_mode",
        None,
        _call((1, 3, 3), kernel_size=2, ceil_mode=np.True_),
        lambda value, case: isinstance(value, np.bool_),
    ),
    Deviation(
        "A number is real, and not an array",
        "local_response_norm",
        "alpha|beta|k|label_smoothing|lr|momentum|dampening|weight_decay",
        "must be a number, got",
        _call(IMAGE, size=1, k=torch.tensor(1.0)),
        array_or_complex,
        "cross_entropy|sgd",
    ),
    Deviation(
        "dropout's p is a number",
        "dropout",
        "p",
        "must be a number, got",
        _call((2,), p=np.array(0.5)),
        lambda value, case: not is_bool(value),
    ),
    Deviation(
        "An integer is anything that Python accepts as an index",
        "softmax",
        ".*",
        None,
        _call((2, 3), dim=np.array(1)),
        lambda value, case: any(map(is_index, entries(value))),
        "conv2d|max_pool2d|adaptive_avg_pool2d|local_response_norm|log_softmax",
    ),
    Deviation(
        "Integers may be large",
        "max_pool2d",
        "stride|size",
        None,
        _call((1, 3, 3), kernel_size=2, stride=2**31),
        large,
        "local_response_norm",
    ),
    Deviation(
        "A number may be large",
        "local_response_norm",
        "alpha|beta|k|lr|momentum|dampening|weight_decay",
        None,
        _call(IMAGE, size=1, k=2**64),
        beyond_torch,
        "sgd",
    ),
    Deviation(
        "A pair is a tuple or a list",
        "adaptive_avg_pool2d",
        "output_size",
        "must be an int, got",
        _call(IMAGE, output_size=range(1, 3)),
        lambda value, case: not isinstance(value, (str, tuple, list)) and hasattr(value, "__len__"),
    ),
    Deviation(
        "The padded image is in memory",
        "conv2d",
        "padding",
        "must not make",
        _call((1, 1, 3, 3), (1, 1, 2, 2), padding=2**40, stride=2**40),
        lambda value, case: True,
    ),
    Deviation(
        "A window's extent does not overflow",
        "conv2d",
        "weight",
        "must fit into the padded image",
        Case((np.zeros((1, 3, 3)), np.zeros((1, 1, 2, 5))), {"dilation": (1, 2**62)}, "zeros"),  # 4 * 2**62 counts as 0
        lambda value, case: max(entries(case.params["dilation"])) >= 2**61,
    ),
    Deviation(
        "A dilation is at least 1",
        "conv2d",
        "dilation",
        "must be at least 1, got 0",
        _call((0, 1, 3, 3), (1, 1, 2, 2), dilation=0),
        lambda value, case: 0 in case.arrays[0].shape[:-2],
    ),
    Deviation(
        "Empty input is checked too",
        "local_response_norm",
        "size|alpha|beta|k",
        "must",
        _call((0, 2, 3), size=0),
        torch_refuses_it_when_full,
    ),
    Deviation("A bias has OUT entries", "linear", "bias", "must have shape", _call((2, 3), (4, 3), ()), broadcasts),
    Deviation(
        "A weight has two axes",
        "linear",
        "weight",
        r"must have shape \(OUT,IN\)",
        _call((2, 3), (3,)),
        lambda value, case: value.shape == case.arrays[0].shape[-1:],
    ),
    Deviation(
        "The default stride is None",
        "max_pool2d",
        "stride",
        "must be an int or a pair",
        _call((1, 3, 3), kernel_size=2, stride=()),
        lambda value, case: value in ((), []),
    ),
    Deviation(
        "Average pooling takes images",
        "adaptive_avg_pool2d",
        "x",
        "must have shape",
        _call((2, 3), output_size=1),
        averages_all,
    ),
    Deviation(
        "An empty average has a gradient",
        "adaptive_avg_pool2d",
        "output_size",
        None,
        _call((1, 2, 3), output_size=0),
        lambda value, case: 0 in entries(value) or case.arrays[0].shape[-3] == 0,
    ),
    Deviation(
        "A mask has its input's shape",
        "dropout",
        "mask",
        "must (be a bool array|have x's shape)",
        _call((2, 3), mask=MASK),
        lambda value, case: True,
    ),
    Deviation(
        "A softmax names its axis",
        "softmax",
        "dim",
        "must be an int, got None",
        _call((2, 3), dim=None),
        lambda value, case: value is None,
        "log_softmax",
    ),
    Deviation(
        "Smoothing is a share",
        "cross_entropy",
        "label_smoothing",
        "must lie",
        _call((2, 3), (2, 3), label_smoothing=-2.0),
        of_nothing_to_say,
    ),
    Deviation(
        "A reduction goes by its name",
        "cross_entropy",
        "reduction",
        "must be one of",
        _call((2, 3), LABELS, reduction="elementwise_mean"),
        lambda value, case: not isinstance(value, str) or value == "elementwise_mean",
    ),
    Deviation(
        "A target has the logits' shape",
        "cross_entropy",
        "target",
        r"must have shape \(\)",
        _call((3,), CLASSES),
        lambda value, case: value.shape == (1,),
    ),
    Deviation(
        "Weights of classes have one axis",
        "cross_entropy",
        "weight",
        "must have shape",
        _call((2, 3, 1), np.zeros((2, 1), np.int64), weight=np.ones((3, 1), np.float32)),
        lambda value, case: case.arrays[0].ndim > 2 and value.size == case.arrays[0].shape[1],
    ),
    Deviation(
        "NaN is not an option",
        "sgd",
        "lr|momentum|weight_decay",
        "must be at least 0, got nan",
        _call((2,), (2,), lr=(math.nan,)),
        lambda value, case: value != value,
    ),
    Deviation(
        "Options are checked at every step",
        "sgd",
        "lr",
        "must be at least 0",
        _call((2,), (2,), (2,), lr=(0.1, -1)),
        lambda value, case: value in case.params["lr"][1:] and value < 0 <= case.params["lr"][0],
    ),
    Deviation(
        "A dampening is a number from the start",
        "sgd",
        "dampening",
        "must be a number, got",
        _call((2,), (2,), lr=(0.1,), momentum=0.5, dampening="x"),
        never_dampened,
    ),
    Deviation(
        "Bytes are classes everywhere",
        "cross_entropy",
        "target",
        None,
        _call((2, 3, 4), BYTES),
        lambda value, case: value.dtype == np.uint8,
    ),
    Deviation(
        "A rate without a sign",
        "sgd",
        "lr",
        None,
        Case((np.ones(2), np.ones(2)), {"lr": (np.uint8(1),)}, "ones"),
        lambda value, case: isinstance(value, np.unsignedinteger),
        differs=True,
    ),
)


def covering(operation: str, case: Case, ours: Exception | None, *, differs: bool = False) -> list[str]:
    """The names of the rows that explain why only one of the two takes the call, or why results differ."""
    return [deviation.name for deviation in DEVIATIONS if deviation.covers(operation, case, ours, differs=differs)]
