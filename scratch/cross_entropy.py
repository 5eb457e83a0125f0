"""Cross-entropy between the softmax of the logits and the target, averaged over all positions.

Let logp = log_softmax(logits) along the classes, w the weight of each class (1 by default), ε = label_smoothing and C the number
of classes. The loss of a position is, first for a target class t, then for target probabilities q:

    loss = -(1-ε)·w[t]·logp[t] - ε/C · Σ_c w[c]·logp[c]      (the second term only if ε > 0; all 0 where t is ignore_index)
    loss = -Σ_c w[c]·((1-ε)·q[c] + ε/C)·logp[c]

reduction='mean' divides the sum of all losses by Σ w[t] over the positions that are not ignored, or for probabilities by the
number of positions. Backward, with g the gradient of a position's loss and a[c] the factor of -logp[c] above:

    grad_logits[c] = g · (softmax[c] · Σ a - a[c])
    grad_target[c] = -g · (1-ε)·w[c]·logp[c]                 (for probabilities)

Every rung sees the logits x as (N,C,D), where D is all axes after the classes, and N is 1 for logits (C,). The target t is (N,D)
for classes, -1 where ignored, or (N,C,D) for probabilities. With a target class, the other classes are skipped, never multiplied
by 0: logp may be -inf, and 0 · inf is NaN.

Paper: Krizhevsky, Sutskever, Hinton 2012, section 3.5 (the multinomial logistic regression objective).
Same as ``torch.nn.functional.cross_entropy``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from scratch import log_softmax, softmax
from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.rows import exp_row, for_each_row, rows, side_by_side, spread_out
from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, Rung

__all__ = ["RUNGS", "backward", "forward", "log_softmax", "softmax"]

REDUCTIONS = ("none", "mean", "sum")
CLASSES = (np.dtype(np.int64), np.dtype(np.uint8))


class Factors(NamedTuple):
    """The numbers that give the factors a[c] of -logp[c] above."""

    weight: np.ndarray  # (C,)
    own: float  # 1-ε, the part of the target that is not spread
    share: float  # ε/C, the part that every class gets


class Options(NamedTuple):
    """Everything the rungs need apart from x and t; each rung saves it as its first value."""

    factors: Factors
    divisor: float  # the sum of the losses is divided by this
    loss_shape: tuple[int, ...]  # () for a sum
    logits_shape: tuple[int, ...]


def forward(
    logits: np.ndarray,
    target: np.ndarray,
    *,
    weight: np.ndarray | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[np.ndarray, Cache]:
    """Compare ``logits`` with ``target``.

    Args:
        logits: (C,), (N,C) or (N,C,D1,…), float32 or float64.
        target: the classes, int64 or uint8, of logits' shape without C; or their probabilities, of logits' shape and dtype.
        weight: (C,), the weight of each class, of logits' dtype; it gets no gradient.
        ignore_index: positions with this class count neither in the loss nor in its divisor. Probabilities cannot be ignored.
        reduction: 'mean', 'sum', or 'none' for the loss of every position.
        label_smoothing: the part of the target, between 0 and 1, that is spread evenly over all classes.

    Returns:
        The loss, in logits' dtype, and the cache for :func:`backward`. The loss is 0-d; for 'none' it has logits' shape without
        C. The mean of nothing is NaN.

    Raises:
        TypeError: an array or a parameter has the wrong type.
        ValueError: shapes do not fit each other, a class is outside 0 … C-1, or a parameter is out of its range.
    """
    logits = checks.array("cross_entropy", "logits", logits)
    if logits.ndim == 0:
        raise ValueError(f"cross_entropy: logits must have shape (C,), (N,C) or (N,C,D1,…), got {logits.shape}")
    x = rows(logits, min(logits.ndim - 1, 1))
    N, C, D = x.shape
    if weight is not None:
        weight = checks.array("cross_entropy", "weight", weight, dtype=x.dtype)
        if weight.shape != (C,):
            raise ValueError(f"cross_entropy: weight must have shape {(C,)} for logits {logits.shape}, got {weight.shape}")
    checks.word("cross_entropy", "reduction", reduction, REDUCTIONS)
    ignore_index = checks.integer("cross_entropy", "ignore_index", ignore_index)
    smoothing = checks.probability("cross_entropy", "label_smoothing", label_smoothing)
    target = checks.plain("cross_entropy", "target", target)

    positions = logits.shape[:1] + logits.shape[2:] if logits.ndim > 1 else ()
    t: np.ndarray
    if target.dtype.kind == "f":
        t = _probabilities(logits, target, ignore_index).reshape(x.shape)
        total = N * D if C else 0
    else:
        t = _classes(logits, target, positions, ignore_index).reshape(N, D)
        counted = t >= 0
        total = np.count_nonzero(counted) if weight is None else weight[t[counted]].sum(dtype=np.float64)
    loss_shape = positions if reduction == "none" else ()
    if weight is None:
        weight = np.empty(C, x.dtype)
        weight.fill(1)  # np.ones takes three times as long, which a small batch notices
    divisor = (float(total) or math.nan) if reduction == "mean" else 1.0  # the mean of nothing is NaN, never inf
    factors = Factors(weight, 1 - smoothing, smoothing / max(C, 1))
    return RUNGS.forward(x, t, Options(factors, divisor, loss_shape, logits.shape))


def backward(grad_out: np.ndarray, cache: Cache) -> tuple[np.ndarray, ...]:
    """The gradients of :func:`forward`'s differentiable arrays.

    Args:
        grad_out: gradient with respect to the loss, of the loss's shape and dtype: ``np.ones_like(loss)`` if nothing follows
            the loss.
        cache: what :func:`forward` returned.

    Returns:
        ``(grad_logits,)`` for target classes, ``(grad_logits, grad_target)`` for target probabilities.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not cross_entropy's.
        ValueError: ``grad_out`` has another shape.
    """
    gradients = RUNGS.backward(grad_out, cache)
    return tuple(gradient.reshape(cache.saved[0].logits_shape) for gradient in gradients)


def _probabilities(logits: np.ndarray, target: Any, ignore_index: int) -> np.ndarray:
    probabilities = checks.array("cross_entropy", "target", target, dtype=logits.dtype)
    if probabilities.shape != logits.shape:
        raise ValueError(
            f"cross_entropy: target must have logits' shape {logits.shape} if it holds probabilities, got {probabilities.shape}"
        )
    if ignore_index >= 0:
        raise ValueError(f"cross_entropy: ignore_index must be negative for target probabilities, got {ignore_index}")
    return probabilities


def _classes(logits: np.ndarray, target: Any, positions: tuple[int, ...], ignore_index: int) -> np.ndarray:
    """The target as int64, with -1 where it is ignored."""
    if np.dtype(target.dtype.type) not in CLASSES:
        raise TypeError(f"cross_entropy: target must be int64, uint8 or {logits.dtype}, got {target.dtype} {target.shape}")
    if target.shape != positions:
        raise ValueError(f"cross_entropy: target must have shape {positions} for logits {logits.shape}, got {target.shape}")
    checks.room("cross_entropy", "target", target, "a copy", target.shape, np.dtype(np.int64))
    classes = np.array(target, np.int64, order="C")
    C = logits.shape[min(logits.ndim - 1, 1)]
    outside = classes.view(np.uint64) >= C  # as unsigned numbers, negative ones are large
    if np.count_nonzero(outside) or 0 <= ignore_index < C:  # otherwise none is ignored, and none is wrong
        ignored = classes == ignore_index
        wrong = outside & ~ignored
        if np.count_nonzero(wrong):
            raise ValueError(
                f"cross_entropy: target {target.shape} must hold classes from 0 to {C - 1} for logits {logits.shape}, "
                f"or ignore_index {ignore_index}, got {classes[wrong][0]}"
            )
        classes[ignored] = -1
    return classes


def _reduced(losses: np.ndarray, options: Options) -> np.ndarray:
    """The losses of the positions, (N,D), in the form that the caller wants."""
    if options.loss_shape:
        return losses.reshape(options.loss_shape)
    return np.asarray(np.add.reduce(losses, axis=None, dtype=np.float64) / options.divisor, losses.dtype)


def _spread(grad_out: np.ndarray, options: Options, N: int, D: int) -> np.ndarray:
    """The gradient of each position's loss, (N,D)."""
    if options.loss_shape:
        return grad_out.reshape(N, D)
    spread = np.empty((N, D), grad_out.dtype)
    spread.fill(grad_out / options.divisor)
    return spread


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(x: np.ndarray, t: np.ndarray, options: Options) -> tuple[np.ndarray, tuple[Any, ...]]:
    """One position after the other, from the output of log_softmax: the specification."""
    logp, _ = log_softmax.naive_forward(x, 1)
    N, _, D = x.shape
    losses = np.zeros((N, D), x.dtype)
    for n, d in np.ndindex(N, D):
        for c, factor in _factors(t, n, d, options):
            losses[n, d] -= factor * logp[n, c, d]
    return _reduced(losses, options), (options, logp, t)


def naive_backward(grad_out: np.ndarray, options: Options, logp: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, ...]:
    N, _, D = logp.shape
    g = _spread(grad_out, options, N, D)
    grad_logp = np.zeros_like(logp)
    for n, d in np.ndindex(N, D):
        for c, factor in _factors(t, n, d, options):
            grad_logp[n, c, d] -= g[n, d] * factor
    gradients = log_softmax.naive_backward(grad_logp, logp, 1)
    if t.ndim == 2:
        return gradients
    weight, own, _ = options.factors
    grad_t = np.empty_like(t)
    for n, c, d in np.ndindex(t.shape):
        grad_t[n, c, d] = -g[n, d] * (own * weight[c] * logp[n, c, d])
    return *gradients, grad_t


def _factors(t: np.ndarray, n: int, d: int, options: Options) -> Iterator[tuple[int, Any]]:
    """The classes that count at a position, each with the factor of its -logp; a target class may come twice."""
    weight, own, share = options.factors
    if t.ndim == 3:
        for c in range(len(weight)):
            yield c, weight[c] * (own * t[n, c, d] + share)
    elif t[n, d] >= 0:
        yield t[n, d], own * weight[t[n, d]]
        for c in range(len(weight) if share > 0 else 0):
            yield c, share * weight[c]


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_forward(x: np.ndarray, t: np.ndarray, options: Options) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Process all positions at a time: one index gathers the targets' logp, but every sum over classes passes over memory."""
    logp, _ = log_softmax.numpy_forward(x, 1)
    weight, own, share = options.factors
    if t.ndim == 3:
        losses = -(weight[:, np.newaxis] * (own * t + share) * logp).sum(axis=1)
    else:
        losses = np.zeros(t.shape, x.dtype)
        n, d = np.nonzero(t >= 0)
        c = t[n, d]
        losses[n, d] = -own * weight[c] * logp[n, c, d]
        if share > 0:
            losses[n, d] -= share * (weight * logp[n, :, d]).sum(axis=1)  # [n,:,d] -> (POSITIONS,C)
    return _reduced(losses, options), (options, logp, t)


def numpy_backward(grad_out: np.ndarray, options: Options, logp: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, ...]:
    weight, own, share = options.factors
    N, _, D = logp.shape
    g = _spread(grad_out, options, N, D)
    if t.ndim == 3:
        g, weight = g[:, np.newaxis], weight[:, np.newaxis]  # (N,1,D) and (C,1), for (N,C,D)
        return *log_softmax.numpy_backward(-g * (weight * (own * t + share)), logp, 1), -g * (own * weight * logp)
    grad_logp = np.zeros_like(logp)
    n, d = np.nonzero(t >= 0)
    c = t[n, d]
    if share > 0:
        grad_logp[n, :, d] = -g[n, d, np.newaxis] * (share * weight)
    grad_logp[n, c, d] -= g[n, d] * (own * weight[c])
    return log_softmax.numpy_backward(grad_logp, logp, 1)


# --- numba ------------------------------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """The parts of each row's softmax: logp[c] = (x[c] - peak) - log(total)."""

    exps: np.ndarray  # (ROWS,C), exp(x[c] - peak)
    norms: np.ndarray  # (ROWS,2), peak and total = Σ exps


def numba_forward(x: np.ndarray, t: np.ndarray, options: Options) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Take one position at a time, in vector code and on all cores: exp, the expensive part, is computed once for both passes."""
    N, _, D = x.shape
    logits, targets, losses = side_by_side(x), _by_position(t), np.zeros((N, D), x.dtype)
    parts = Parts(memory.empty_like(logits), memory.empty((N * D, 2), x.dtype))
    for_each_row(_forward_kernel, logits, targets, options.factors, parts, losses.reshape(N * D))
    return _reduced(losses, options), (options, logits, targets, parts, x.shape)


def numba_backward(
    grad_out: np.ndarray, options: Options, logits: np.ndarray, targets: np.ndarray, parts: Parts, x_shape: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    N, _, D = x_shape
    g = _spread(grad_out, options, N, D).reshape(N * D)
    grad_x, grad_t = memory.empty_like(logits), memory.empty_like(targets)
    for_each_row(_backward_kernel, logits, targets, g, options.factors, parts, grad_x, grad_t)
    gradients = (grad_x, grad_t) if targets.ndim == 2 else (grad_x,)
    return tuple(spread_out(gradient, x_shape) for gradient in gradients)


def _by_position(t: np.ndarray) -> np.ndarray:
    """(N,D) -> (N·D,) for classes, (N,C,D) -> (N·D, C) for probabilities."""
    return side_by_side(t) if t.ndim == 3 else t.reshape(t.size)


# The kernels are compiled separately for classes and for probabilities: Numba drops the branch that t.ndim rules out.


@kernel
def _forward_kernel(
    first: int, last: int, x: np.ndarray, t: np.ndarray, factors: Factors, parts: Parts, losses: np.ndarray
) -> None:
    _, C = x.shape
    weight, own, share = factors
    exps, norms = parts
    for n in range(first, last):
        peak, total = exp_row(x[n], exps[n])
        norms[n, 0], norms[n, 1] = peak, total
        log_total = np.log(total)
        loss = 0.0
        if t.ndim == 2:
            for c in range(C):
                loss -= weight[c] * (own * t[n, c] + share) * ((x[n, c] - peak) - log_total)
        elif t[n] >= 0:
            loss -= own * weight[t[n]] * ((x[n, t[n]] - peak) - log_total)
            for c in range(C if share > 0 else 0):
                loss -= share * weight[c] * ((x[n, c] - peak) - log_total)
        losses[n] = loss


@kernel
def _backward_kernel(
    first: int,
    last: int,
    x: np.ndarray,
    t: np.ndarray,
    g: np.ndarray,
    factors: Factors,
    parts: Parts,
    grad_x: np.ndarray,
    grad_t: np.ndarray,
) -> None:
    _, C = x.shape
    weight, own, share = factors
    exps, norms = parts
    for n in range(first, last):
        peak, total = norms[n, 0], norms[n, 1]
        log_total = np.log(total)
        g_sum = 0.0  # g · Σ a
        if t.ndim == 2:
            for c in range(C):
                g_sum += g[n] * (weight[c] * (own * t[n, c] + share))
        elif t[n] >= 0:
            g_sum += g[n] * (own * weight[t[n]])
            for c in range(C if share > 0 else 0):
                g_sum += g[n] * (share * weight[c])

        scale = g_sum / total
        for c in range(C):
            grad_x[n, c] = exps[n, c] * scale
        if t.ndim == 2:
            for c in range(C):
                grad_x[n, c] -= g[n] * (weight[c] * (own * t[n, c] + share))
                grad_t[n, c] = -g[n] * (own * weight[c] * ((x[n, c] - peak) - log_total))
        elif t[n] >= 0:
            for c in range(C if share > 0 else 0):
                grad_x[n, c] -= g[n] * (share * weight[c])
            grad_x[n, t[n]] -= g[n] * (own * weight[t[n]])


RUNGS = Ladder(
    "cross_entropy",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
    Rung("numba", numba_forward, numba_backward),
)
