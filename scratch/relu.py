"""Rectified linear unit: ``out = max(x, 0)``.

Paper: Krizhevsky, Sutskever, Hinton 2012, section 3.1. Same as ``torch.nn.functional.relu``.

Backward: ``grad_x = 0 where out <= 0, else grad_out``. The gradient is *selected*, never multiplied by 0 or 1: where ``x < 0``
an infinite ``grad_out`` must give 0, but ``inf * 0`` is NaN. At ``x == 0`` the gradient is 0. Where ``x`` is NaN both passes let
their input through.

``out > 0`` holds exactly where ``x > 0``, so backward only needs the output, and the input need not be kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.threads import for_each
from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, Rung

__all__ = ["RUNGS", "backward", "forward"]


def forward(x: np.ndarray, *, inplace: bool = False) -> tuple[np.ndarray, Cache]:
    """Set negative values to zero; -0.0 and NaN stay as they are, as in torch.

    Args:
        x: any shape, float32 or float64.
        inplace: write to ``x`` itself, which saves an array and a third of the memory traffic. The old values of ``x`` must
            not be needed any more: neither by the operation that made it (softmax and log_softmax keep their output; Flatten,
            and Dropout in eval mode, may return their input) nor by one that read it (most keep their input for backward).

    Returns:
        ``out`` of x's shape and dtype (``x`` itself if ``inplace``), and the cache for :func:`backward`.

    Raises:
        TypeError: ``x`` is not a float32 or float64 array, or ``inplace`` is not a bool.
        ValueError: ``x`` is read-only and ``inplace`` is True.
    """
    checked = checks.array("relu", "x", x)
    if not checks.flag("relu", "inplace", inplace):
        return RUNGS.forward(checked, memory.empty_like(checked))
    if not x.flags.writeable:
        raise ValueError(f"relu: x must be writable to work in place, got a read-only array of shape {x.shape}")
    out, cache = RUNGS.forward(checked, checked)
    if checked is not x:  # checked is a copy, in the memory layout that kernels need
        x[...] = out
    return x, cache


def backward(grad_out: np.ndarray, cache: Cache) -> tuple[np.ndarray]:
    """Let ``grad_out`` through where the output was above zero.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.

    Returns:
        ``(grad_x,)``.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not relu's.
        ValueError: ``grad_out`` has another shape.
    """
    return RUNGS.backward(grad_out, cache)


# --- naive ------------------------------------------------------------------------------------------------------------


# Every rung's forward pass writes to ``out``, which is x itself if ``inplace``.


def naive_forward(x: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """One element after the other: the specification."""
    for i in np.ndindex(x.shape):
        out[i] = 0 if x[i] < 0 else x[i]  # not max(x, 0), which may turn -0.0 into 0.0
    return out, (out,)


def naive_backward(grad_out: np.ndarray, out: np.ndarray) -> tuple[np.ndarray]:
    grad_x = np.empty_like(out)
    for i in np.ndindex(out.shape):
        grad_x[i] = 0 if out[i] <= 0 else grad_out[i]
    return (grad_x,)


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_forward(x: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Process whole arrays at a time: the loops run in C, but every step is a pass over memory."""
    out[...] = x
    out[x < 0] = 0
    return out, (out,)


def numpy_backward(grad_out: np.ndarray, out: np.ndarray) -> tuple[np.ndarray]:
    return (np.where(out <= 0, out.dtype.type(0), grad_out),)


# --- numba ------------------------------------------------------------------------------------------------------------


def numba_forward(x: np.ndarray, out: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Do everything in one pass over memory, compiled and on all cores."""
    if out is x:
        for_each(_inplace_kernel, x.size, x.ravel(), values=1)
    else:
        for_each(_forward_kernel, x.size, x.ravel(), out.ravel(), values=1)
    return out, (out,)


def numba_backward(grad_out: np.ndarray, out: np.ndarray) -> tuple[np.ndarray]:
    grad_x = memory.empty_like(out)
    for_each(_backward_kernel, out.size, grad_out.ravel(), out.ravel(), grad_x.ravel(), values=1)
    return (grad_x,)


# Slices, indexed from 0: an index that might be negative, and so count from the end, keeps LLVM from vectorizing the loop.


@kernel
def _forward_kernel(first: int, last: int, x: np.ndarray, out: np.ndarray) -> None:
    zero = x.dtype.type(0)
    x, out = x[first:last], out[first:last]
    for i in range(x.size):
        out[i] = zero if x[i] < zero else x[i]


@kernel
def _inplace_kernel(first: int, last: int, x: np.ndarray) -> None:
    """_forward_kernel for one array. If two arrays overlap, a write to one may change the other: LLVM does not vectorize."""
    zero = x.dtype.type(0)
    x = x[first:last]
    for i in range(x.size):
        x[i] = zero if x[i] < zero else x[i]


@kernel
def _backward_kernel(first: int, last: int, grad_out: np.ndarray, out: np.ndarray, grad_x: np.ndarray) -> None:
    zero = out.dtype.type(0)
    grad_out, out, grad_x = grad_out[first:last], out[first:last], grad_x[first:last]
    for i in range(out.size):
        grad_x[i] = zero if out[i] <= zero else grad_out[i]


RUNGS = Ladder(
    "relu",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
    Rung("numba", numba_forward, numba_backward),
)
