"""Which values of an argument a deviation from torch is about: the conditions that :mod:`parity_tests.deviations` uses."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from alexnet_from_scratch.proof.draws import FLOATS, Case


def entries(value: Any) -> tuple[Any, ...]:
    """The entries of a pair; a single value alone."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def is_bool(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_)) or getattr(value, "dtype", None) in (np.dtype(np.bool_), torch.bool)


def is_index(value: Any) -> bool:
    """Whether Python accepts it as an integer although it is not an int."""
    if isinstance(value, int) or is_bool(value):
        return False
    try:
        return isinstance(operator.index(value), int)
    except TypeError:
        return False


def a_bool(value: Any, case: Case) -> bool:
    return any(map(is_bool, entries(value)))


def no_bool(value: Any, case: Case) -> bool:
    return not isinstance(value, (bool, np.bool_))


def another_dtype(value: Any, case: Case) -> bool:
    return value.dtype not in FLOATS or value.dtype != case.arrays[0].dtype


def array_or_complex(value: Any, case: Case) -> bool:
    return not is_bool(value) and isinstance(value, (torch.Tensor, np.ndarray, complex, np.complexfloating))


def large(value: Any, case: Case) -> bool:
    return any(type(entry) is int and entry >= 2**31 - 1 for entry in entries(value))


def beyond_torch(value: Any, case: Case) -> bool:
    """Whether it is an integer beyond 64 bits, or a real number beyond the arrays' dtype."""
    if isinstance(value, int):
        return not -(2**63) < value < 2**63
    return isinstance(value, float) and np.finfo(case.dtype).max < abs(value) < math.inf


def never_dampened(value: Any, case: Case) -> bool:
    """Whether no step uses the dampening, and it is a value that torch would refuse if one did."""
    used = case.params.get("momentum", 0) != 0 and len(case.params["lr"]) > 1
    return not used and not is_bool(value) and not array_or_complex(value, case)


def torch_refuses_it_when_full(value: Any, case: Case) -> bool:
    (x,) = case.arrays
    if x.size or is_bool(value):  # a bool is refused for what it is
        return False
    try:
        F.local_response_norm(torch.ones([max(n, 1) for n in x.shape]), **case.params)
    except (TypeError, ValueError, RuntimeError):  # a refusal; anything else is a fault of the call above
        return True
    return False


def broadcasts(value: Any, case: Case) -> bool:
    x, weight = case.arrays[:2]
    out = (*x.shape[:-1], *weight.shape[:1])
    if x.ndim == 1 and value.ndim > 1:  # torch multiplies a lone row as a batch of one
        out = (1, *out)
    try:
        return np.broadcast_shapes(value.shape, out) == out
    except ValueError:
        return False


def averages_all(value: Any, case: Case) -> bool:
    """Whether the output is one cell; None is the size that the image has."""
    sizes = entries(case.params["output_size"])
    pairs = zip(sizes * (3 - len(sizes)), case.arrays[0].shape[-2:], strict=False)
    return all((own if size is None else size) == 1 for size, own in pairs)


def of_nothing_to_say(value: Any, case: Case) -> bool:
    """Whether torch leaves the smoothing unchecked: with probabilities always, with classes unless it is above 0."""
    return case.arrays[1].dtype.kind == "f" or not value > 0
