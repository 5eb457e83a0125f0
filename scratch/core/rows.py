"""What softmax, log_softmax and cross_entropy share: any array seen as rows, and a row's maximum and sum of exponentials."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from scratch.core.exponential import exp
from scratch.core.jit import kernel
from scratch.core.threads import for_each


def rows(x: np.ndarray, dim: int) -> np.ndarray:
    """A view of the C-contiguous ``x`` as (OUTER,C,INNER), where C is the axis ``dim``."""
    return x.reshape(math.prod(x.shape[:dim]), x.shape[dim] if x.ndim else 1, math.prod(x.shape[dim + 1 :]))


def side_by_side(x: np.ndarray) -> np.ndarray:
    """(OUTER,C,INNER) -> (OUTER·INNER, C): a row's values become neighbours, as vector code needs them. A view if INNER is 1."""
    OUTER, C, INNER = x.shape
    return np.ascontiguousarray(x.swapaxes(1, 2)).reshape(OUTER * INNER, C)


def spread_out(by_row: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(OUTER·INNER, C) -> ``shape`` (OUTER,C,INNER): the way back, C-contiguous."""
    OUTER, C, INNER = shape
    return np.ascontiguousarray(by_row.reshape(OUTER, INNER, C).swapaxes(1, 2))


def for_each_row(run: Callable[..., None], by_row: np.ndarray, *arguments: Any) -> None:
    """:func:`for_each` over the rows of (ROWS,C), unless C is 0."""
    ROWS, C = by_row.shape
    if C > 0:
        for_each(run, ROWS, by_row, *arguments, values=C)


@kernel
def exp_row(x: np.ndarray, exps: np.ndarray, work: np.ndarray) -> tuple[Any, Any]:
    """``exps = exp(x - peak)``; returns the peak, which is x's maximum, and the sum of ``exps``.

    All are 1-D and of one size, which is not 0; ``work`` is written over. Where x holds NaN the peak may be anything, but the
    sum is NaN.
    """
    for c in range(x.size):
        work[c] = x[c]
    peak = largest(work)
    for c in range(x.size):
        exps[c] = exp(x[c] - peak)
        work[c] = exps[c]
    return peak, total(work)


VECTOR = 16  # float32 in the widest vector

# A row is halved until one value is left, its second half joined with its first: neighbours do not wait for each other, so it
# is vector code, and the rounding of a sum grows with the number of halvings alone. The row is written over.


@kernel
def _half(n: int) -> int:
    """Half of n, rounded down to whole vectors where it is more than one: the middle then waits for the next turn."""
    rest = n // 2
    return rest - rest % VECTOR if rest > VECTOR else rest


@kernel
def largest(row: np.ndarray) -> Any:
    """The maximum of a row that is not empty; where it holds NaN, any of its values."""
    n = row.size
    while n > 1:
        rest = _half(n)
        _keep_larger(row[:rest], row[n - rest : n])
        n -= rest
    return row[0]


@kernel
def total(row: np.ndarray) -> Any:
    """The sum of a row that is not empty."""
    n = row.size
    while n > 1:
        rest = _half(n)
        _add(row[:rest], row[n - rest : n])
        n -= rest
    return row[0]


@kernel
def _keep_larger(values: np.ndarray, others: np.ndarray) -> None:
    for i in range(values.size):
        value, other = values[i], others[i]
        if other > value:
            value = other
        values[i] = value


@kernel
def _add(values: np.ndarray, others: np.ndarray) -> None:
    for i in range(values.size):
        values[i] += others[i]
