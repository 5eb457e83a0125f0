"""Shared by softmax, log_softmax and cross_entropy: any array seen as rows, and a row's maximum and sum of exponentials."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from scratch.compiled.exponential import exp
from scratch.compiled.jit import kernel
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import largest, total


def rows(x: np.ndarray, dim: int) -> np.ndarray:
    """A view of the C-contiguous ``x`` as (OUTER,C,INNER), where C is the axis ``dim``."""
    return x.reshape(math.prod(x.shape[:dim]), x.shape[dim] if x.ndim else 1, math.prod(x.shape[dim + 1 :]))


def side_by_side(x: np.ndarray) -> np.ndarray:
    """(OUTER,C,INNER) -> (OUTER·INNER, C): each row becomes contiguous, as vector code needs it. A view if INNER is 1."""
    OUTER, C, INNER = x.shape
    turned = x if INNER == 1 else np.ascontiguousarray(x.swapaxes(1, 2))
    return turned.reshape(OUTER * INNER, C)


def spread_out(by_row: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(OUTER·INNER, C) -> ``shape`` (OUTER,C,INNER), C-contiguous: the reverse of :func:`side_by_side`."""
    OUTER, C, INNER = shape
    return np.ascontiguousarray(by_row.reshape(OUTER, INNER, C).swapaxes(1, 2))


def for_each_row(run: Callable[..., None], by_row: np.ndarray, *arguments: Any) -> None:
    """:func:`for_each` over the rows of (ROWS,C), unless C is 0."""
    ROWS, C = by_row.shape
    if C > 0:
        for_each(run, ROWS, by_row, *arguments, values=C)


@kernel
def exp_row(x: np.ndarray, exps: np.ndarray) -> tuple[Any, Any]:
    """``exps = exp(x - peak)``; returns the peak, which is x's maximum, and the sum of ``exps``.

    Both arrays are 1-D and of equal size. If x holds NaN the peak may be anything, but the sum is NaN.
    """
    peak = largest(x)
    for c in range(x.size):
        exps[c] = exp(x[c] - peak)
    return peak, total(exps)
