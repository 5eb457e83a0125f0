"""The first input of each exercise: small, and one that shows what the backward pass is about."""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_from_scratch.proof.draws import Case


def _array(*rows: Any) -> np.ndarray:
    return np.array(rows, np.float32)


def _image(*rows: Any) -> np.ndarray:
    """One image of one channel."""
    return _array(*rows)[np.newaxis, np.newaxis]


_LOGITS = _array([0, 1, 2], [1, 1, -1])
_CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "relu": ((_array([-2, -1, 0], [1, 2, 3]),), {}),
    "dropout": ((_array([1, 2, 3], [4, 5, 6]),), {"p": 0.5, "mask": np.array([[True, False, True], [False, True, True]])}),
    # Four windows that overlap: the 5 wins two of them, and one has a tie of two sixes.
    "max_pool2d": (
        (_image([1, 2, 0, 1, 2], [3, 0, 1, 2, 7], [0, 1, 5, 1, 3], [2, 0, 1, 0, 6], [1, 4, 0, 2, 6]),),
        {"kernel_size": 3, "stride": 2},
    ),
    # Three windows share the five columns, so that two columns are in two windows.
    "adaptive_avg_pool2d": ((_image(*np.arange(20).reshape(4, 5)),), {"output_size": (2, 3)}),
    "linear": ((_array([1, 2, 3], [4, 5, 6]), _array([1, 0, -1], [2, 1, 0]), _array(1, -1)), {}),
    # Four windows of 3×3 that overlap.
    "conv2d": ((_image(*np.arange(16).reshape(4, 4)), _image([1, 0, -1], [2, 0, -2], [1, 0, -1]), _array(1)), {}),
    "local_response_norm": (
        (_array([[1], [2], [0], [-1], [3]])[np.newaxis],),
        {"size": 3, "alpha": 3.0, "beta": 1.0, "k": 1.0},
    ),
    "softmax": ((_LOGITS,), {"dim": 1}),
    "log_softmax": ((_LOGITS,), {"dim": 1}),
    "cross_entropy": ((_LOGITS, np.array([2, 0])), {}),
    # Two steps, so that the second one uses the velocity of the first.
    "sgd": (
        (_array(1, -2, 3), _array(1, 0, -1), _array(1, 1, 1)),
        {"lr": (0.1, 0.1), "momentum": 0.9, "weight_decay": 0.5},
    ),
}


def example(operation: str) -> Case:
    """The first input of an exercise."""
    arrays, params = _CALLS[operation]
    return Case(arrays, params, "integers")


def counting(shape: tuple[int, ...]) -> np.ndarray:
    """1, 2, 3 …: a grad_out in which each number is easy to find again."""
    return np.arange(1, 1 + np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
