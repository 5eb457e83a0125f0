"""Dropout: ``out = x · mask / (1-p)``, where the mask keeps each element with probability 1-p, independently of the others.

Kept elements are scaled up so that the expectation stays x's, and evaluation needs no scaling. (The paper scales down at test
time instead: the same network.) As in torch, x is *multiplied* by the mask: a dropped NaN or inf gives NaN, a dropped negative
number -0.0.

Backward: the layer is linear in x, so the gradient is multiplied in the same way:

    grad_x = grad_out · mask / (1-p)

Paper: Krizhevsky, Sutskever, Hinton 2012, section 4.2. Same as ``torch.nn.functional.dropout``, with a visible mask.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.threads import for_each
from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, Rung

__all__ = ["RUNGS", "backward", "forward"]


def forward(
    x: np.ndarray,
    *,
    p: float = 0.5,
    training: bool = True,
    mask: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, Cache]:
    """Drop elements at random and scale up the rest.

    Args:
        x: any shape, float32 or float64.
        p: the probability of dropping an element. If it is 1 all are dropped, whatever the mask says.
        training: False drops nothing: the output is ``x`` itself, not a copy.
        mask: bool, of x's shape, True where an element is kept; None draws one.
        rng: draws the mask, which is the same on every rung. None means a fresh generator, whose masks differ each time.

    Returns:
        ``out`` of x's shape and dtype, and the cache for :func:`backward` and :func:`kept`.

    Raises:
        TypeError: ``x`` is not a float32 or float64 array, or another argument has the wrong type.
        ValueError: ``p`` is outside [0, 1], or ``mask`` has another shape than ``x``.
    """
    x = checks.array("dropout", "x", x)
    p = checks.probability("dropout", "p", p)
    if mask is not None:
        if checks.plain("dropout", "mask", mask).dtype != np.bool_:
            raise TypeError(f"dropout: mask must be a bool array, got {mask.dtype}")
        if mask.shape != x.shape:
            raise ValueError(f"dropout: mask must have x's shape {x.shape}, got {mask.shape}")
        mask = np.require(mask, requirements="C")
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"dropout: rng must be a numpy.random.Generator, got {type(rng).__name__}")
    if not checks.flag("dropout", "training", training):
        out, saved = EVALUATION.forward(x)
        return out, Cache("dropout", EVALUATION, saved, x.shape, x.dtype, unbatched=False)
    if mask is None:
        mask = _draw(x.shape, p, np.random.default_rng() if rng is None else rng)
    one = x.dtype.type(1)
    return RUNGS.forward(x, mask, one / x.dtype.type(1 - p) if p < 1 else one * 0)


def backward(grad_out: np.ndarray, cache: Cache) -> tuple[np.ndarray]:
    """Drop and scale the gradient as :func:`forward` did with its input.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.

    Returns:
        ``(grad_x,)``; without training that is ``grad_out`` itself.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not dropout's.
        ValueError: ``grad_out`` has another shape.
    """
    return RUNGS.backward(grad_out, cache)


def kept(cache: Cache) -> np.ndarray | None:
    """The mask that :func:`forward` used, to be passed on as ``mask``; None if it ran without training.

    Raises:
        TypeError: ``cache`` is not dropout's.
    """
    RUNGS.require_own(cache, "kept")
    mask: np.ndarray | None = cache.saved[0]
    return mask


def _draw(shape: tuple[int, ...], p: float, rng: np.random.Generator) -> np.ndarray:
    """A mask whose elements are False with probability p, exactly.

    A random byte decides all elements except one in 256. With p = (whole + rest)/256, a byte below ``whole`` drops and a byte
    above keeps. If the byte equals ``whole``, the element drops with probability ``rest``, decided by a second random number.
    """
    size = math.prod(shape)
    whole = int(p * 256)
    rest = p * 256 - whole
    words = rng.integers(0, 2**64, -(-size // 8), dtype=np.uint64)  # eight bytes a draw
    byte = words.view(np.uint8)[:size]
    mask = byte > whole
    undecided = np.flatnonzero(byte == whole)
    mask[undecided] = rng.random(undecided.size) >= rest
    return mask.reshape(shape)


def _evaluation_forward(x: np.ndarray) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Without training the layer is the identity, on every rung."""
    return x, (None,)


def _evaluation_backward(grad_out: np.ndarray, mask: None) -> tuple[np.ndarray]:
    return (grad_out,)


EVALUATION = Rung("evaluation", _evaluation_forward, _evaluation_backward)


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(x: np.ndarray, mask: np.ndarray, scale: np.floating[Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """One element after the other: the specification."""
    out = np.empty_like(x)
    for i in np.ndindex(x.shape):
        out[i] = x[i] * (scale if mask[i] else 0)
    return out, (mask, scale)


def naive_backward(grad_out: np.ndarray, mask: np.ndarray, scale: np.floating[Any]) -> tuple[np.ndarray]:
    grad_x = np.empty_like(grad_out)
    for i in np.ndindex(grad_out.shape):
        grad_x[i] = grad_out[i] * (scale if mask[i] else 0)
    return (grad_x,)


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_forward(x: np.ndarray, mask: np.ndarray, scale: np.floating[Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Process whole arrays at a time: the loop runs in C, but mask · scale is one more array to write and to read."""
    return np.asarray(x * (mask * scale)), (mask, scale)


def numpy_backward(grad_out: np.ndarray, mask: np.ndarray, scale: np.floating[Any]) -> tuple[np.ndarray]:
    return (np.asarray(grad_out * (mask * scale)),)


# --- numba ------------------------------------------------------------------------------------------------------------


def numba_forward(x: np.ndarray, mask: np.ndarray, scale: np.floating[Any]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Do everything in one pass over memory, compiled and on all cores: the scaled mask never leaves the registers."""
    out = memory.empty_like(x)
    for_each(_kernel, x.size, x.ravel(), mask.ravel(), scale, out.ravel(), values=1)
    return out, (mask, scale)


def numba_backward(grad_out: np.ndarray, mask: np.ndarray, scale: np.floating[Any]) -> tuple[np.ndarray]:
    grad_x = memory.empty_like(grad_out)
    for_each(_kernel, grad_x.size, grad_out.ravel(), mask.ravel(), scale, grad_x.ravel(), values=1)
    return (grad_x,)


@kernel
def _kernel(first: int, last: int, x: np.ndarray, mask: np.ndarray, scale: np.floating[Any], out: np.ndarray) -> None:
    zero = x.dtype.type(0)
    x, mask, out = x[first:last], mask[first:last], out[first:last]  # indexed from 0: vectorized, as in relu.py
    for i in range(x.size):
        out[i] = x[i] * (scale if mask[i] else zero)


RUNGS = Ladder(
    "dropout",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
    Rung("numba", numba_forward, numba_backward),
)
