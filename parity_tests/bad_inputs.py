"""Calls that must be refused, each with a pattern for the message: the operation, the argument, what was passed, the shapes.

Torch refuses them all too, except the rows that :mod:`parity_tests.deviations` explains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_from_scratch.proof.draws import Case


@dataclass(frozen=True)
class BadCall:
    """``operation(*arrays, **params)`` raises ``error`` with a message that contains ``message``."""

    operation: str
    error: type[Exception]
    message: str
    case: Case

    def __str__(self) -> str:
        return f"{self.operation}{self.case}"


def bad(operation: str, error: type[Exception], message: str, *arrays: Any, **params: Any) -> BadCall:
    """A shape means an array of ones of that shape in float32."""
    full = tuple(np.ones(a, np.float32) if isinstance(a, tuple) else a for a in arrays)
    return BadCall(operation, error, message, Case(full, params, "ones"))


def _ones(dtype: Any, *shape: int) -> np.ndarray:
    return np.ones(shape, dtype)


IMAGE = (2, 3, 5, 7)
FILTERS = (4, 3, 2, 3)

CONV2D = (
    bad("conv2d", TypeError, "x must be a NumPy array, got list", [[1.0]], FILTERS),
    bad(
        "conv2d",
        TypeError,
        r"x must be float32 or float64, got int64 with shape \(2, 3, 5, 7\)",
        _ones(np.int64, *IMAGE),
        FILTERS,
    ),
    bad("conv2d", TypeError, r"weight must be float32 like the input, got float64", IMAGE, _ones(np.float64, *FILTERS)),
    bad("conv2d", TypeError, r"bias must be float32 like the input, got float64", IMAGE, FILTERS, _ones(np.float64, 4)),
    bad("conv2d", ValueError, r"x must have shape \(N,C,H,W\) or \(C,H,W\), got \(5, 7\)", (5, 7), FILTERS),
    bad("conv2d", ValueError, r"x must have shape .*, got \(1, 2, 3, 5, 7\)", (1, *IMAGE), FILTERS),
    bad("conv2d", ValueError, r"weight must have shape .*, got \(3, 2, 3\) with x \(2, 3, 5, 7\)", IMAGE, (3, 2, 3)),
    bad("conv2d", ValueError, r"weight must have .*\(0, 3, 2, 3\)", IMAGE, (0, 3, 2, 3)),
    bad("conv2d", ValueError, r"weight must have C/groups = 3/1 channels, got 2 .*, 7\).*\(4, 2, 2, 3\)", IMAGE, (4, 2, 2, 3)),
    bad("conv2d", ValueError, r"groups must divide .* groups=3 .*\(2, 3, 5, 7\).*\(4, 1, 2, 3\)", IMAGE, (4, 1, 2, 3), groups=3),
    bad("conv2d", ValueError, r"bias must have shape \(4,\) for weight \(4, 3, 2, 3\), got \(3,\)", IMAGE, FILTERS, (3,)),
    bad("conv2d", ValueError, r"weight must fit into the padded image.*\(2, 3, 5, 7\).*\(4, 3, 6, 3\)", IMAGE, (4, 3, 6, 3)),
    bad("conv2d", ValueError, r"weight must fit .* x \(3, 5, 7\) and", IMAGE[1:], (4, 3, 6, 3)),
    bad("conv2d", ValueError, r"weight must fit .* dilation \(5, 5\)", IMAGE, FILTERS, dilation=5),
    bad("conv2d", ValueError, "stride must be at least 1, got 0", IMAGE, FILTERS, stride=0),
    bad("conv2d", ValueError, "stride must be at least 1, got -1", IMAGE, FILTERS, stride=(1, -1)),
    bad("conv2d", ValueError, r"stride must be an int or a pair of ints, got \(1, 2, 3\)", IMAGE, FILTERS, stride=(1, 2, 3)),
    bad("conv2d", TypeError, "stride must be an int, got 1.5", IMAGE, FILTERS, stride=1.5),
    bad("conv2d", ValueError, "padding must be at least 0, got -1", IMAGE, FILTERS, padding=-1),
    bad(
        "conv2d",
        ValueError,
        r"padding must not make the padded image \(2, 3, 2000000005, 2000000007\) too large for memory, got 1000000000",
        IMAGE,
        FILTERS,
        padding=10**9,
    ),
    bad("conv2d", ValueError, "padding must be ints, 'same' or 'valid', got 'full'", IMAGE, FILTERS, padding="full"),
    bad("conv2d", ValueError, r"stride must be 1 with padding 'same', got \(2, 2\)", IMAGE, FILTERS, padding="same", stride=2),
    bad("conv2d", ValueError, "dilation must be at least 1, got 0", IMAGE, FILTERS, dilation=(1, 0)),
    bad("conv2d", ValueError, "groups must be at least 1, got 0", IMAGE, FILTERS, groups=0),
    bad("conv2d", TypeError, "groups must be an int, got 'two'", IMAGE, FILTERS, groups="two"),
)

LINEAR = (
    bad("linear", TypeError, "x must be a NumPy array, got float", 1.0, (4, 3)),
    bad("linear", TypeError, "weight must be float32 like the input, got float64", (2, 3), _ones(np.float64, 4, 3)),
    bad("linear", ValueError, r"x must have shape .*, got \(\)", (), (4, 3)),
    bad("linear", ValueError, r"weight must have shape \(OUT,IN\), got \(4, 3, 1\) with x \(2, 3\)", (2, 3), (4, 3, 1)),
    bad("linear", ValueError, r"weight must have .* x \(2, 3\) .* got \(4, 5\)", (2, 3), (4, 5)),
    bad("linear", ValueError, r"bias must have shape \(4,\) for weight \(4, 3\), got \(3,\)", (2, 3), (4, 3), (3,)),
)

POOLING = (
    bad("max_pool2d", TypeError, "x must be float32 or float64, got bool", _ones(np.bool_, *IMAGE), kernel_size=2),
    bad("max_pool2d", ValueError, r"x must have shape .*, got \(5, 7\)", (5, 7), kernel_size=2),
    bad("max_pool2d", ValueError, r"x must not be empty, except along N, got \(2, 0, 5, 7\)", (2, 0, 5, 7), kernel_size=2),
    bad("max_pool2d", ValueError, "kernel_size must be at least 1, got 0", IMAGE, kernel_size=0),
    bad("max_pool2d", ValueError, "stride must be at least 1, got 0", IMAGE, kernel_size=2, stride=0),
    bad(
        "max_pool2d",
        ValueError,
        r"padding must be at most half of kernel_size \(3, 3\), got \(2, 2\)",
        IMAGE,
        kernel_size=3,
        padding=2,
    ),
    bad("max_pool2d", ValueError, "dilation must be at least 1, got 0", IMAGE, kernel_size=2, dilation=0),
    bad("max_pool2d", ValueError, r"kernel_size must fit .*\(6, 2\).*\(2, 3, 5, 7\)", IMAGE, kernel_size=(6, 2)),
    bad("max_pool2d", ValueError, r"kernel_size must fit .* x \(3, 5, 7\)", IMAGE[1:], kernel_size=(6, 2)),
    bad("max_pool2d", TypeError, "ceil_mode must be True or False, got 'yes'", IMAGE, kernel_size=2, ceil_mode="yes"),
    bad("max_pool2d", TypeError, "kernel_size must be an int, got None", IMAGE, kernel_size=None),
    bad("adaptive_avg_pool2d", ValueError, r"output_size must be an int or a pair, got \(2,\)", IMAGE, output_size=(2,)),
    bad("adaptive_avg_pool2d", ValueError, r"x must have H and W .*\(1, 2, 0, 3\)", (1, 2, 0, 3), output_size=2),
)

ELEMENTWISE = (
    bad("relu", TypeError, "x must be a NumPy array, got str", "abc"),
    bad("relu", TypeError, r"x must be float32 or float64, got complex64 with shape \(2,\)", _ones(np.complex64, 2)),
    bad("dropout", ValueError, "p must lie between 0 and 1, got 1.5", (2, 3), p=1.5),
    bad("dropout", ValueError, "p must lie between 0 and 1, got nan", (2, 3), p=float("nan")),
    bad("dropout", TypeError, "mask must be a bool array, got float32", (2, 3), mask=np.ones((2, 3), np.float32)),
    bad("dropout", TypeError, "rng must be a numpy.random.Generator, got int", (2, 3), rng=0),
    bad("dropout", ValueError, r"mask must have x's shape \(2, 3\), got \(3, 2\)", (2, 3), mask=_ones(np.bool_, 3, 2)),
)

NORMALIZATION = (
    bad("local_response_norm", TypeError, "x must be a NumPy array, got NoneType", None, size=5),
    bad("local_response_norm", ValueError, r"x must have shape .*, got \(3, 5\)", (3, 5), size=5),
    bad("local_response_norm", ValueError, "size must be at least 1, got 0", IMAGE, size=0),
    bad("local_response_norm", TypeError, "size must be an int, got 2.5", IMAGE, size=2.5),
    bad("local_response_norm", TypeError, "beta must be a number, got 'x'", IMAGE, size=5, beta="x"),
    bad("softmax", ValueError, r"dim must .*\(2, 3\)", (2, 3), dim=2),
    bad("softmax", TypeError, "dim must be an int, got 0.5", (2, 3), dim=0.5),
    bad("log_softmax", ValueError, r"dim must .*\(2, 3\)", (2, 3), dim=-3),
)

LABELS = _ones(np.int64, 2)
LOSS = (
    bad("cross_entropy", ValueError, r"logits must have shape .*, got \(\)", (), LABELS),
    bad("cross_entropy", TypeError, r"target must be int64, uint8 or float32, got int32 \(2,\)", (2, 3), _ones(np.int32, 2)),
    bad(
        "cross_entropy", ValueError, r"target must have shape \(2,\) for logits \(2, 3\), got \(3,\)", (2, 3), _ones(np.int64, 3)
    ),
    bad("cross_entropy", ValueError, r"target must have .*\(2, 3\).*got \(2, 4\)", (2, 3), (2, 4)),
    bad(
        "cross_entropy",
        ValueError,
        r"target \(2,\) must hold classes from 0 to 2 for logits \(2, 3\).* got 3",
        (2, 3),
        LABELS * 3,
    ),
    bad(
        "cross_entropy", ValueError, r"target \(2,\) must hold classes from 0 to 2 for logits \(2, 3\).* got -1", (2, 3), -LABELS
    ),
    bad(
        "cross_entropy",
        ValueError,
        r"weight must have shape \(3,\) for logits \(2, 3\), got \(2,\)",
        (2, 3),
        LABELS,
        weight=np.ones(2, np.float32),
    ),
    bad("cross_entropy", TypeError, "weight must be float32 like the input, got float64", (2, 3), LABELS, weight=np.ones(3)),
    bad("cross_entropy", ValueError, "reduction must be one of .*got 'average'", (2, 3), LABELS, reduction="average"),
    bad("cross_entropy", ValueError, "label_smoothing must lie between 0 and 1, got 1.5", (2, 3), LABELS, label_smoothing=1.5),
    bad("cross_entropy", TypeError, "target must be a NumPy array, got list", (2, 3), [0, 1]),
    bad("cross_entropy", ValueError, "ignore_index must be negative for target prob.* got 1", (2, 3), (2, 3), ignore_index=1),
    bad("cross_entropy", ValueError, "ignore_index must be negative for target prob.* got 0", (2, 3), (2, 3), ignore_index=0),
    bad("cross_entropy", TypeError, "ignore_index must be an int, got None", (2, 3), LABELS, ignore_index=None),
)

BAD_CALLS = (*CONV2D, *LINEAR, *POOLING, *ELEMENTWISE, *NORMALIZATION, *LOSS)
