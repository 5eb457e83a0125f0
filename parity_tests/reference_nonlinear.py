"""Local response normalization, softmax and cross-entropy once more, in higher precision, each element with its error bound.

The bounds come from the formula itself, one rounding after the other (:class:`parity_tests.bounds.Bounded`). Where sound
implementations differ in how they arrange a formula, the arrangement with the most roundings stands here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.bounds import Bounded, Rounding
from parity_tests.reference import Gradients, Result

# --- local_response_norm ----------------------------------------------------------------------------------------------
# s = k + alpha/size · Σ x², out = x · s^-beta. A window's sum takes at most `size` roundings in any order, of a square each.
# A running sum (add the channel that enters, subtract the one that leaves) does not keep to that: it cancels.


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
        # torch arrives at g x s^(-beta-1) by g (x / s^beta / s^beta) s^(beta-1): the most roundings, and the first to overflow.
        if beta == 0:  # a constant: its derivative is 0, even where s^-1 is infinite
            chain = exact(np.zeros(x.shape))
        else:
            chain = exact(grad_out) * (exact(x) / up / up) * (rounding.rounded(beta) * s.power(beta - 1))
        # x_j stands in the windows of all channels c that hold j: the transposed membership.
        # alpha and size go to each term before the sum, as in torch: among subnormal numbers that is where the most bits go.
        through = exact(x) * window_sums(rounding.rounded(2 * alpha) * chain / exact(size), member.T)
        return (exact(grad_out) / up - through,)

    return (out,), backward


# --- softmax and log_softmax ------------------------------------------------------------------------------------------
# d = x - max x: one rounding, of relative size u, hence absolute |d| u, which exp turns into a relative one.


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
# Each place's loss is a sum over the classes, -Σ a_c log p_c, with coefficients a from target, weight and smoothing; the losses
# are added up in any order and divided once.


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
        # What is not the target's class does not count, not even as 0 · -inf.
        hit = inside & (np.arange(C).reshape(along) == index)
        losses = _only(-(log_p * weights), hit).sum(axis)
        spread = _only(-(log_p * weights), inside).sum(axis)
        total = _only(weights, hit).sum() if weight is not None else exact(np.count_nonzero(valid))

    mean = reduction == "mean"

    def reduced(losses: Bounded) -> Bounded:
        return losses if reduction == "none" else losses.sum() / total if mean else losses.sum()

    # torch reduces the two parts apart: where the weights add up to 0, the target's 0/0 makes NaN of what would be infinite.
    out = reduced(losses) if probabilities or not label_smoothing else reduced(losses) * keep + reduced(spread) * smooth

    def backward(grad_out: np.ndarray) -> Gradients:
        g = exact(np.expand_dims(grad_out, axis) if reduction == "none" else grad_out)

        def towards(g: Bounded) -> Bounded:
            return -(weights * (g / total if mean else g))

        # From g inwards, one factor after the other, as torch's graph does: among subnormal numbers each loses bits, which the
        # factors behind it enlarge, the more so where the weights add up to little.
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
