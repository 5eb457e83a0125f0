"""Logarithm of the softmax: ``out = x - log Σ exp(x)`` along one axis.

The row's maximum is subtracted first, ``out = (x - peak) - log Σ exp(x - peak)``: nothing overflows. The probability of an entry
far below the maximum rounds to 0, but its logarithm is still right, where ``log(softmax(x))`` would be -inf. A row that contains
NaN or +inf, or only -inf, becomes NaN. Backward, with sums along the same axis:

    grad_x = grad_out - exp(out) · Σ grad_out

The cache keeps only the output. Every rung sees the array, whatever the axis, as rows (OUTER,C,INNER), as in ``softmax.py``.

Same as ``torch.nn.functional.log_softmax``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scratch.compiled import memory, vectors
from scratch.compiled.exponential import exp
from scratch.compiled.jit import kernel
from scratch.compiled.rows import exp_row, for_each_row, rows, side_by_side, spread_out
from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, Rung

__all__ = ["RUNGS", "backward", "forward"]


def forward(x: np.ndarray, *, dim: int = 1) -> tuple[np.ndarray, Cache]:
    """Turn every row along ``dim`` into the logarithms of probabilities.

    Args:
        x: any shape, float32 or float64.
        dim: the axis whose probabilities add up to 1; negative counts from the end.

    Returns:
        ``out`` of x's shape and dtype, and the cache for :func:`backward`.

    Raises:
        TypeError: ``x`` is not a float32 or float64 array, or ``dim`` not an int.
        ValueError: ``x`` has no axis ``dim``.
    """
    x = checks.array("log_softmax", "x", x)
    return RUNGS.forward(x, checks.axis("log_softmax", "dim", dim, x.shape))


def backward(grad_out: np.ndarray, cache: Cache) -> tuple[np.ndarray]:
    """The gradient with respect to ``x``.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.

    Returns:
        ``(grad_x,)``.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not log_softmax's.
        ValueError: ``grad_out`` has another shape.
    """
    return RUNGS.backward(grad_out, cache)


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(x: np.ndarray, dim: int) -> tuple[np.ndarray, tuple[Any, ...]]:
    """One row after the other: the specification."""
    out = np.empty_like(x)
    x_rows, out_rows = rows(x, dim), rows(out, dim)
    OUTER, _, INNER = x_rows.shape
    for o, i in np.ndindex(OUTER, INNER):
        row = x_rows[o, :, i]
        peak = max(row, default=0)
        log_total = np.log(sum(np.exp(value - peak) for value in row))
        out_rows[o, :, i] = [(value - peak) - log_total for value in row]
    return out, (out, dim)


def naive_backward(grad_out: np.ndarray, out: np.ndarray, dim: int) -> tuple[np.ndarray]:
    grad_x = np.empty_like(out)
    g_rows, out_rows, grad_rows = rows(grad_out, dim), rows(out, dim), rows(grad_x, dim)
    OUTER, _, INNER = out_rows.shape
    for o, i in np.ndindex(OUTER, INNER):
        g, logs = g_rows[o, :, i], out_rows[o, :, i]
        total = sum(g)
        grad_rows[o, :, i] = [g_c - np.exp(log) * total for g_c, log in zip(g, logs, strict=True)]
    return (grad_x,)


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_forward(x: np.ndarray, dim: int) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Process all rows at a time: the loops run in C, but maximum, difference, exp, sum and difference each pass over memory."""
    x_rows = rows(x, dim)
    out = x_rows - x_rows.max(axis=1, keepdims=True, initial=-np.inf)
    out -= np.log(np.exp(out).sum(axis=1, keepdims=True))
    out = out.reshape(x.shape)
    return out, (out, dim)


def numpy_backward(grad_out: np.ndarray, out: np.ndarray, dim: int) -> tuple[np.ndarray]:
    g = rows(grad_out, dim)
    grad_x = g - np.exp(rows(out, dim)) * g.sum(axis=1, keepdims=True)
    return (grad_x.reshape(out.shape),)


# --- numba ------------------------------------------------------------------------------------------------------------


def numba_forward(x: np.ndarray, dim: int) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Finish a row while it is in the cache: memory is read and written once, by vector code and on all cores."""
    x_rows = side_by_side(rows(x, dim))
    out_rows = memory.empty_like(x_rows)
    for_each_row(_forward_kernel, x_rows, out_rows)
    out = spread_out(out_rows, rows(x, dim).shape).reshape(x.shape)
    return out, (out, dim)


def numba_backward(grad_out: np.ndarray, out: np.ndarray, dim: int) -> tuple[np.ndarray]:
    out_rows = side_by_side(rows(out, dim))
    grad_rows = memory.empty_like(out_rows)
    for_each_row(_backward_kernel, side_by_side(rows(grad_out, dim)), out_rows, grad_rows)
    return (spread_out(grad_rows, rows(out, dim).shape).reshape(out.shape),)


@kernel
def _forward_kernel(first: int, last: int, x: np.ndarray, out: np.ndarray) -> None:
    _, C = x.shape
    for row in range(first, last):
        peak, norm = exp_row(x[row], out[row])
        log_norm = np.log(norm)
        for c in range(C):
            out[row, c] = (x[row, c] - peak) - log_norm


@kernel
def _backward_kernel(first: int, last: int, grad_out: np.ndarray, out: np.ndarray, grad_x: np.ndarray) -> None:
    _, C = out.shape
    for row in range(first, last):
        g_sum = vectors.total(grad_out[row])
        for c in range(C):
            grad_x[row, c] = grad_out[row, c] - exp(out[row, c]) * g_sum


RUNGS = Ladder(
    "log_softmax",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
    Rung("numba", numba_forward, numba_backward),
)
