"""Local response normalization, softmax and cross-entropy again, in higher precision, with an error bound for each element.

The bounds come from the formula itself, rounding by rounding (:class:`alexnet_from_scratch.proof.bounds.Bounded`). Where sound
implementations arrange a formula differently, this file uses the arrangement with the most roundings.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_from_scratch.proof.bounds import Bounded, Rounding
from alexnet_from_scratch.proof.reference import Gradients, Result

# --- local_response_norm ----------------------------------------------------------------------------------------------
# s = k + alpha/size · Σ x², out = x · s^-beta. A window's sum of squares takes at most `size` roundings, in any order.
# A running sum (add the channel that enters, subtract the one that leaves) does not stay within that: it cancels.


def local_response_norm(
    rounding: Rounding, x: Any, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Result:
    exact = rounding.exact
    C = x.shape[1]
    channels = np.arange(C)
    # member[c, j]: does channel c's window hold channel j?
    offset = channels - channels[:, np.newaxis]
    member = (-(size // 2) <= offset) & (offset <= (size - 1) // 2)

    def window_sums(terms: Bounded, member: np.ndarray) -> Bounded:
        sums = [Bounded(terms.value[:, row], terms.error[:, row], rounding).sum(1) for row in member]
        return Bounded(np.stack([s.value for s in sums], 1), np.stack([s.error for s in sums], 1), rounding)

    squares = exact(x) * exact(x)
    s = rounding.rounded(k) + rounding.rounded(alpha) * (window_sums(squares, member) / exact(size))
    # Divided by the power, like torch, rather than multiplied by the inverse: the power may overflow.
    up = s.power(beta)
    out = exact(x) / up

    def backward(grad_out: np.ndarray) -> Gradients:
        # torch computes g x s^(-beta-1) as g (x / s^beta / s^beta) s^(beta-1). This has the most roundings and overflows first.
        if beta == 0:  # the power is constant: its derivative is 0, even where s^-1 is infinite
            chain = exact(np.zeros(x.shape))
        else:
            chain = exact(grad_out) * (exact(x) / up / up) * (rounding.rounded(beta) * s.power(beta - 1))
        # x_j is in the windows of all channels c whose window holds j: the transposed membership.
        # alpha and size scale each term before the sum, as in torch: with subnormal numbers that loses the most bits.
        through = exact(x) * window_sums(rounding.rounded(2 * alpha) * chain / exact(size), member.T)
        return (exact(grad_out) / up - through,)

    return (out,), backward


# --- softmax and log_softmax ------------------------------------------------------------------------------------------
# d = x - max x: one rounding, of relative size u and so absolute size |d| u, which becomes a relative error after exp.


def _shifted(rounding: Rounding, x: np.ndarray, axis: int) -> Bounded:
    return rounding.exact(x) - rounding.exact(x.max(axis, keepdims=True))


def softmax(rounding: Rounding, x: Any, *, dim: int) -> Result:
    if x.size == 0:
        return (rounding.exact(x),), lambda g: (rounding.exact(g),)
    powers = _shifted(rounding, x, dim).exp()
    out = powers * (rounding.exact(1.0) / powers.sum(dim, keepdims=True))

    def backward(grad_out: np.ndarray) -> Gradients:
        g = rounding.exact(grad_out)
        return (out * g - out * (out * g).sum(dim, keepdims=True),)

    return (out,), backward


def log_softmax(rounding: Rounding, x: Any, *, dim: int) -> Result:
    if x.size == 0:
        return (rounding.exact(x),), lambda g: (rounding.exact(g),)
    shifted = _shifted(rounding, x, dim)
    out = shifted - shifted.exp().sum(dim, keepdims=True).log()

    def backward(grad_out: np.ndarray) -> Gradients:
        g = rounding.exact(grad_out)
        return (g - out.exp() * g.sum(dim, keepdims=True),)

    return (out,), backward


# --- cross_entropy ----------------------------------------------------------------------------------------------------
# Each position's loss is a sum over the classes, -Σ a_c log p_c, with coefficients a from target, weight and smoothing; the
# losses are added up in any order and divided once.


def cross_entropy(
    rounding: Rounding,
    logits: Any,
    target: Any,
    *,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Result:
    exact = rounding.exact
    axis = 1 if logits.ndim > 1 else 0
    C = logits.shape[axis]
    (log_p,), _ = log_softmax(rounding, logits, dim=axis)
    along = [1] * logits.ndim
    along[axis] = C
    weights = exact(np.ones(C) if weight is None else weight).select(lambda a: a.reshape(along))
    keep, smooth = rounding.rounded(1 - label_smoothing), rounding.rounded(label_smoothing / C)

    probabilities = np.issubdtype(target.dtype, np.floating)
    if probabilities:
        smoothed = exact(target) if label_smoothing == 0 else exact(target) * keep + smooth
        losses = (-(log_p * smoothed * weights)).sum(axis)
        total = exact(logits.size // C)
    else:
        valid = target != ignore_index
        index = np.expand_dims(np.where(valid, target, 0), axis)
        inside = np.broadcast_to(np.expand_dims(valid, axis), logits.shape)
        # Only the target's class counts; the others add nothing, not even 0 · -inf.
        hit = inside & (np.arange(C).reshape(along) == index)
        losses = _only(-(log_p * weights), hit).sum(axis)
        spread = _only(-(log_p * weights), inside).sum(axis)
        total = _only(weights, hit).sum() if weight is not None else exact(np.count_nonzero(valid))

    mean = reduction == "mean"

    def reduced(losses: Bounded) -> Bounded:
        return losses if reduction == "none" else losses.sum() / total if mean else losses.sum()

    # torch reduces the two parts separately: where the weights add up to 0, the target's 0/0 makes an infinite loss NaN.
    out = reduced(losses) if probabilities or not label_smoothing else reduced(losses) * keep + reduced(spread) * smooth

    def backward(grad_out: np.ndarray) -> Gradients:
        g = exact(np.expand_dims(grad_out, axis) if reduction == "none" else grad_out)

        def towards(g: Bounded) -> Bounded:
            return -(weights * (g / total if mean else g))

        # From g inwards, factor by factor, as in torch's graph: with subnormal numbers each factor loses bits, and the factors
        # after it enlarge the error, all the more where the sum of the weights is small.
        if probabilities:
            grad_log_p = towards(g) * smoothed
        elif label_smoothing:
            grad_log_p = _only(towards(g * keep), hit) + _only(towards(g * smooth), inside)
        else:
            grad_log_p = _only(towards(g), hit)
        grad = grad_log_p - log_p.exp() * grad_log_p.sum(axis, keepdims=True)
        return (grad, towards(g) * log_p * keep) if probabilities else (grad,)

    return (out,), backward


def _only(terms: Bounded, where: np.ndarray) -> Bounded:
    return Bounded(np.where(where, terms.value, 0), np.where(where, terms.error, 0), terms.rounding)
