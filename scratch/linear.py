"""Linear (fully connected) layer: ``out = x @ weightᵀ + bias``.

Backward, with g = grad_out and rows for all axes of x but the last:

    grad_x      = g @ weight
    grad_weight = gᵀ @ x
    grad_bias   = Σ_rows g

Shapes: x (…,IN), weight (OUT,IN), bias (OUT,), out (…,OUT).
Paper: Krizhevsky, Sutskever, Hinton 2012, section 3.5. Same as ``torch.nn.functional.linear``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, Rung

Gradients = tuple[np.ndarray | None, np.ndarray, np.ndarray | None]


def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> tuple[np.ndarray, Cache]:
    """Multiply every row of ``x`` by ``weight``.

    Args:
        x: (…,IN) with any number of leading axes, none included; float32 or float64.
        weight: (OUT,IN), or (IN,) for a single output without an axis of its own, as torch takes it; of x's dtype.
        bias: (OUT,), of x's dtype, or None.

    Returns:
        ``out`` (…,OUT) and the cache for :func:`backward`.

    Raises:
        TypeError: an array is not float32 or float64, or the dtypes differ.
        ValueError: shapes that do not fit each other.
    """
    x = checks.array("linear", "x", x)
    weight = checks.array("linear", "weight", weight, dtype=x.dtype)
    if x.ndim == 0:
        raise ValueError(f"linear: x must have shape (…,IN), got {x.shape} with weight {weight.shape}")
    if weight.ndim != 2:
        raise ValueError(f"linear: weight must have shape (OUT,IN), got {weight.shape} with x {x.shape}")
    if weight.shape[1] != x.shape[-1]:
        raise ValueError(f"linear: weight {weight.shape} must have as many columns as x {x.shape} has features")
    if bias is not None:
        bias = checks.array("linear", "bias", bias, dtype=x.dtype)
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"linear: bias must have shape {weight.shape[:1]} for weight {weight.shape}, got {bias.shape}")
    return RUNGS.forward(x, weight, bias)


def backward(grad_out: np.ndarray, cache: Cache, *, need_grad_x: bool = True) -> Gradients:
    """The gradients of :func:`forward`'s arrays.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.
        need_grad_x: False leaves grad_x out.

    Returns:
        ``(grad_x, grad_weight, grad_bias)``, each of its array's shape; None for an absent bias or an unneeded grad_x.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not linear's.
        ValueError: ``grad_out`` has another shape.
    """
    grad_x, grad_weight, grad_bias = RUNGS.backward(grad_out, cache, need_grad_x=need_grad_x)
    return grad_x, grad_weight, grad_bias


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, tuple[Any, ...]]:
    """One product after the other: the specification."""
    OUT, IN = weight.shape
    out = np.zeros((*x.shape[:-1], OUT), x.dtype)
    for row in np.ndindex(x.shape[:-1]):
        for o in range(OUT):
            for i in range(IN):
                out[*row, o] += x[*row, i] * weight[o, i]
            if bias is not None:
                out[*row, o] += bias[o]
    return out, (x, weight, bias is not None)


def naive_backward(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, *, need_grad_x: bool) -> Gradients:
    grad_x, grad_weight, grad_bias = np.zeros_like(x), np.zeros_like(weight), np.zeros(len(weight), x.dtype)
    for row in np.ndindex(x.shape[:-1]):
        for o, i in np.ndindex(weight.shape):
            grad_x[*row, i] += grad_out[*row, o] * weight[o, i]
            grad_weight[o, i] += grad_out[*row, o] * x[*row, i]
        for o in range(len(weight)):
            grad_bias[o] += grad_out[*row, o]
    return grad_x if need_grad_x else None, grad_weight, grad_bias if has_bias else None


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, tuple[Any, ...]]:
    """The same sums as matrix products, which BLAS cuts into blocks that stay in the cache."""
    out = x @ weight.T
    if bias is not None:
        out += bias
    return out, (x, weight, bias is not None)


def numpy_backward(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, *, need_grad_x: bool) -> Gradients:
    # (…,OUT) -> (ROWS,OUT): the leading axes are rows like any other. Spelled out, since reshape(-1) fails on empty arrays.
    rows = int(np.prod(x.shape[:-1]))
    g = grad_out.reshape(rows, grad_out.shape[-1])
    grad_weight = g.T @ x.reshape(rows, x.shape[-1])
    return grad_out @ weight if need_grad_x else None, grad_weight, g.sum(axis=0) if has_bias else None


RUNGS = Ladder(
    "linear",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
)
