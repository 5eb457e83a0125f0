"""Mistakes that people make, planted into the shipped source, to tell readers which of them they made.

A mistake is recognized by what it computes: wherever the reader's function returned arrays, the planted mistake returns the same
arrays, and some of them are wrong. It does not matter how the reader's function is written, or that it raises an error on other
inputs. The parity suite plants all these mistakes as well (``parity_tests/mutants_backward.py``).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from alexnet_from_scratch.exercises.answers import Arrays, Call, Function, run
from alexnet_from_scratch.exercises.stub import solution
from alexnet_from_scratch.exercises.table import EXERCISES


@dataclass(frozen=True)
class Mistake:
    """The first ``old`` in the shipped function becomes ``new``; ``title`` says what the mistake is."""

    title: str
    old: str
    new: str


def name_of(operation: str, calls: Sequence[Call]) -> str | None:
    """The title of the first known mistake that computes, up to rounding, what the reader's function computed; else None."""
    if _computes(operation, solution(operation), calls):
        return None  # none of these calls shows a mistake
    titles = (mistake.title for mistake in MISTAKES[operation] if _computes(operation, planted(operation, mistake), calls))
    return next(titles, None)


def planted(operation: str, mistake: Mistake) -> Function:
    """The shipped function with the mistake in it.

    Raises:
        LookupError: the shipped source has changed, and the mistake's row must change too.
    """
    shipped = solution(operation)
    source = inspect.getsource(shipped)
    if mistake.old not in source:
        raise LookupError(f"{operation}'s {shipped.__name__} has no {mistake.old!r}")
    names = dict(vars(import_module(f"scratch.{operation}")))
    exec(source.replace(mistake.old, mistake.new, 1), names)
    function: Function = names[shipped.__name__]
    return function


def _computes(operation: str, function: Function, calls: Sequence[Call]) -> bool:
    """Whether the function gives the results of all calls."""
    in_place = EXERCISES[operation].in_place
    try:
        with np.errstate(all="ignore"):
            return all(_same(run(function, call.arguments, call.options, in_place=in_place), call.results) for call in calls)
    except (ArithmeticError, LookupError, ValueError):  # IndexError, for example: with this mistake, the call is impossible
        return False


def _same(ours: Arrays, theirs: Arrays) -> bool:
    """Whether the arrays are equal up to rounding: the reader may add in another order."""
    return all(_close(a, b) for a, b in zip(ours, theirs, strict=True))


def _close(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)


MISTAKES: dict[str, tuple[Mistake, ...]] = {
    "relu": (
        Mistake("letting the gradient pass where out is 0", "out[i] <= 0", "out[i] < 0"),
        Mistake("the slope alone, without grad_out", "0 if out[i] <= 0 else grad_out[i]", "0 if out[i] <= 0 else 1"),
        Mistake(
            "multiplying by out, instead of asking whether it is positive",
            "0 if out[i] <= 0 else grad_out[i]",
            "out[i] * grad_out[i]",
        ),
        Mistake("letting the gradient pass exactly where nothing came through", "out[i] <= 0", "out[i] > 0"),
        Mistake("letting only positive gradients pass", "0 if out[i] <= 0 else", "0 if out[i] <= 0 or grad_out[i] <= 0 else"),
    ),
    "dropout": (
        Mistake("the mask without the scale", "(scale if mask[i] else 0)", "(1 if mask[i] else 0)"),
        Mistake("the scale without the mask", "(scale if mask[i] else 0)", "scale"),
        Mistake("scaling twice", "(scale if mask[i] else 0)", "(scale * scale if mask[i] else 0)"),
        Mistake("keeping what was dropped, and the other way round", "if mask[i]", "if not mask[i]"),
        Mistake("dividing by the scale", "(scale if mask[i] else 0)", "(1 / scale if mask[i] else 0)"),
        Mistake("the slope alone, without grad_out", "grad_out[i] * (scale", "(scale"),
        Mistake("letting the gradient pass unchanged", "grad_out[i] * (scale if mask[i] else 0)", "grad_out[i]"),
    ),
    "max_pool2d": (
        Mistake(
            "`=` for `+=` where windows overlap (`+=` at an array of indices does the same)", "] += grad_out", "] = grad_out"
        ),
        Mistake("counting the windows that a cell wins, without grad_out", "+= grad_out[n, c, oh, ow]", "+= 1"),
        Mistake("passing on half of the gradient", "+= grad_out[n, c, oh, ow]", "+= grad_out[n, c, oh, ow] / 2"),
        Mistake("dividing the index by H instead of W", "int(indices[n, c, oh, ow]), W)", "int(indices[n, c, oh, ow]), H)"),
        Mistake("row and column exchanged", "h, w = divmod", "w, h = divmod"),
        Mistake("subtracting the gradient instead of adding it", "+= grad_out", "-= grad_out"),
        Mistake("sending every plane's gradient to the first image", "grad_x[n, c, h, w]", "grad_x[0, c, h, w]"),
        Mistake("sending every channel's gradient to the first channel", "grad_x[n, c, h, w]", "grad_x[n, 0, h, w]"),
        Mistake(
            "counting the index through the whole array, not from its plane's first cell",
            "grad_x[n, c, h, w]",
            "grad_x[0, 0, h, w]",
        ),
    ),
    "adaptive_avg_pool2d": (
        Mistake(
            "handing out the whole gradient to each cell, not divided by the window's size", " / len(rows) / len(columns)", ""
        ),
        Mistake("`=` for `+=` where windows overlap", "+= share", "= share"),
        Mistake(
            "one divisor for all windows, though their sizes differ", " / len(rows) / len(columns)", " * (OH * OW) / (H * W)"
        ),
        Mistake("dividing by the window's rows alone", " / len(rows) / len(columns)", " / len(rows)"),
        Mistake("dividing by the window's columns alone", " / len(rows) / len(columns)", " / len(columns)"),
        Mistake("dividing by the window's rows twice", " / len(rows) / len(columns)", " / len(rows) / len(rows)"),
        Mistake(
            "rounding the end of a window down",
            "_window(oh, H, OH), _window(ow, W, OW)",
            "range(oh * H // OH, (oh + 1) * H // OH), range(ow * W // OW, (ow + 1) * W // OW)",
        ),
        Mistake("the shares alone, without grad_out", "grad_out[n, c, oh, ow] / len(rows)", "1 / len(rows)"),
    ),
    "linear": (
        Mistake("`=` for `+=` in grad_weight: the last row alone counts", "grad_weight[o, i] +=", "grad_weight[o, i] ="),
        Mistake("`=` for `+=` in grad_bias: the last row alone counts", "grad_bias[o] +=", "grad_bias[o] ="),
        Mistake("`=` for `+=` in grad_x: the last output alone counts", "grad_x[*row, i] +=", "grad_x[*row, i] ="),
        Mistake(
            "grad_weight as the mean over the batch",
            "+= grad_out[*row, o] * x[*row, i]",
            "+= grad_out[*row, o] * x[*row, i] / (x.size // x.shape[-1])",
        ),
        Mistake(
            "grad_bias as the mean over the batch",
            "grad_bias[o] += grad_out[*row, o]",
            "grad_bias[o] += grad_out[*row, o] / (x.size // x.shape[-1])",
        ),
        Mistake("grad_x without the weight", "+= grad_out[*row, o] * weight[o, i]", "+= grad_out[*row, o]"),
        Mistake("grad_weight without x", "+= grad_out[*row, o] * x[*row, i]", "+= grad_out[*row, o]"),
        Mistake("counting the rows for grad_bias, without grad_out", "grad_bias[o] += grad_out[*row, o]", "grad_bias[o] += 1"),
    ),
    "conv2d": (
        Mistake("`=` for `+=` in grad_x, where windows overlap", "grad_padded[cell] +=", "grad_padded[cell] ="),
        Mistake("`=` for `+=` in grad_weight", "grad_weight[oc, c, kh, kw] +=", "grad_weight[oc, c, kh, kw] ="),
        Mistake("`=` for `+=` in grad_bias: the last place alone counts", "grad_bias[oc] += g", "grad_bias[oc] = g"),
        Mistake("grad_bias as the mean over the batch", "grad_bias[oc] += g", "grad_bias[oc] += g / len(x)"),
        Mistake(
            "grad_bias as the mean over the batch and the positions",
            "grad_bias[oc] += g",
            "grad_bias[oc] += g / grad_out[:, oc].size",
        ),
        Mistake(
            "grad_weight as the mean over the batch",
            "grad_weight[oc, c, kh, kw] += g *",
            "grad_weight[oc, c, kh, kw] += g / len(x) *",
        ),
        Mistake(
            "grad_weight of the first image alone: the batch is not summed",
            "grad_weight[oc, c, kh, kw] +=",
            "grad_weight[oc, c, kh, kw] += 0 if n else",
        ),
        Mistake(
            "reading the first group's channels for grad_weight in every group",
            "+= g * padded[cell]",
            "+= g * padded[n, c, *cell[2:]]",
        ),
        Mistake("leaving out the stride", "weight.shape, geometry))", "weight.shape, geometry._replace(stride=(1, 1))))"),
        Mistake("leaving out the dilation", "weight.shape, geometry))", "weight.shape, geometry._replace(dilation=(1, 1))))"),
        Mistake(
            "reading the first group's channels in every group",
            "weight.shape, geometry))",
            "weight.shape, geometry._replace(groups=1)))",
        ),
        Mistake(
            "`=` for `+=` in grad_x, tap by tap: the last tap alone counts",
            "return _unpad(grad_padded, x, geometry)",
            """grad_padded[...] = 0
    for kh, kw in np.ndindex(weight.shape[2:]):
        of_tap = {}
        for n, oc, oh, ow in np.ndindex(grad_out.shape):
            for c in range(weight.shape[1]):
                cell = (n, *_cell(oc, c, oh, ow, kh, kw, weight.shape, geometry))
                of_tap[cell] = of_tap.get(cell, 0) + grad_out[n, oc, oh, ow] * weight[oc, c, kh, kw]
        for cell, g in of_tap.items():
            grad_padded[cell] = g
    return _unpad(grad_padded, x, geometry)""",
        ),
        Mistake("grad_x without the weight", "+= g * weight[oc, c, kh, kw]", "+= g"),
        Mistake("grad_weight without x", "+= g * padded[cell]", "+= g"),
        Mistake(
            "the kernel turned by 180°, which forward does not do",
            "+= g * weight[oc, c, kh, kw]",
            "+= g * weight[oc, c, -1 - kh, -1 - kw]",
        ),
        Mistake(
            "cutting off the wrong part of the frame",
            "_unpad(grad_padded, x, geometry)",
            "np.ascontiguousarray(grad_padded[:, :, : x.shape[2], : x.shape[3]])",
        ),
        Mistake(
            "folding the padding's gradient back into the border",
            "return _unpad(grad_padded, x, geometry)",
            """_, _, H, W = x.shape
    for row, column in np.ndindex(grad_padded.shape[2:]):
        h, w = np.clip(row - geometry.top, 0, H - 1) + geometry.top, np.clip(column - geometry.left, 0, W - 1) + geometry.left
        if (h, w) != (row, column):
            grad_padded[:, :, h, w] += grad_padded[:, :, row, column]
    return _unpad(grad_padded, x, geometry)""",
        ),
    ),
    "local_response_norm": (
        Mistake(
            "a window that is not mirrored",
            "j - window.after), min(C, j + window.before + 1)",
            "j - window.before), min(C, j + window.after + 1)",
        ),
        Mistake("leaving out the 2 of the square's derivative", "2 * window.alpha", "window.alpha"),
        Mistake("the path through the scale alone, without out's own slope", "direct + x[n, j", "x[n, j"),
        Mistake(
            "out's own slope alone, without the path through the scale",
            "direct + x[n, j, *position] * (2 * window.alpha * pulls)",
            "direct",
        ),
        Mistake(
            "leaving out beta",
            "pull_of(grad_out[i], x[i], scale[i], window.beta)",
            "pull_of(grad_out[i], x[i], scale[i], window.beta) / window.beta",
        ),
        Mistake("the wrong sign for the path through the scale", "direct + x[n, j", "direct - x[n, j"),
        Mistake("leaving out the factor x[j] of the neighbours' pulls", "x[n, j, *position] * (2", "(2"),
        Mistake(
            "the channel's own pull alone, without its neighbours'",
            "range(max(0, j - window.after), min(C, j + window.before + 1))",
            "[j]",
        ),
        Mistake("the window cut one channel short", "j + window.before + 1)", "j + window.before)"),
        Mistake(
            "multiplying by the power of the scale instead of dividing",
            "grad_out[n, j, *position] / _power",
            "grad_out[n, j, *position] * _power",
        ),
    ),
    "softmax": (
        Mistake(
            "the diagonal alone, as if an output depended on its own input only", "s_c * (g_c - dot)", "s_c * (1 - s_c) * g_c"
        ),
        Mistake(
            "subtracting the sum of grad_out, not weighted by the probabilities",
            "sum(g_c * s_c for g_c, s_c in zip(g, s, strict=True))",
            "sum(g)",
        ),
        Mistake("leaving out the factor in front", "s_c * (g_c - dot)", "g_c - dot"),
        Mistake("leaving out the weighted sum that is subtracted", "s_c * (g_c - dot)", "s_c * g_c"),
        Mistake("log_softmax's gradient", "s_c * (g_c - dot)", "g_c - s_c * sum(g)"),
        Mistake("the wrong sign inside", "g_c - dot", "g_c + dot"),
        Mistake("the wrong sign", "g_c - dot", "dot - g_c"),
        Mistake(
            "the mean of grad_out instead of its weighted mean",
            "dot = sum(g_c * s_c for g_c, s_c in zip(g, s, strict=True))",
            "dot = sum(g) / len(g)",
        ),
    ),
    "log_softmax": (
        Mistake("the mean of grad_out instead of its sum", "total = sum(g)", "total = sum(g) / len(g)"),
        Mistake("each class's own gradient instead of the sum over all classes", "np.exp(log) * total", "np.exp(log) * g_c"),
        Mistake(
            "softmax's gradient",
            "g_c - np.exp(log) * total for",
            "np.exp(log) * (g_c - sum(a * np.exp(b) for a, b in zip(g, logs))) for",
        ),
        Mistake("multiplying by the probability once too often", "g_c - np.exp(log) * total", "np.exp(log) * (g_c - total)"),
        Mistake("leaving out the probability", "np.exp(log) * total", "total"),
        Mistake("the logarithm where the probability belongs", "np.exp(log) * total", "log * total"),
        Mistake("leaving out the sum that all outputs share", "g_c - np.exp(log) * total", "g_c"),
        Mistake("the wrong sign inside", "g_c - np.exp(log)", "g_c + np.exp(log)"),
        Mistake("the wrong sign", "g_c - np.exp(log) * total", "np.exp(log) * total - g_c"),
        Mistake("the probability alone, without the sum of grad_out", "np.exp(log) * total", "np.exp(log)"),
    ),
    "cross_entropy": (
        Mistake("the wrong sign", "grad_logp[n, c, d] -= ", "grad_logp[n, c, d] += "),
        Mistake(
            "not dividing grad_out by the mean's divisor",
            "_spread(grad_out, options, N, D)",
            "_spread(grad_out * options.divisor, options, N, D)",
        ),
        Mistake("leaving out grad_out", "_spread(grad_out, options, N, D)", "_spread(np.ones_like(grad_out), options, N, D)"),
        Mistake(
            "`=` for `-=`: smoothing then overwrites the target's part",
            "grad_logp[n, c, d] -= g[n, d]",
            "grad_logp[n, c, d] = -g[n, d]",
        ),
        Mistake("stopping at the gradient of logp", "log_softmax.naive_backward(grad_logp, logp, 1)", "(grad_logp,)"),
        Mistake("the wrong sign in grad_t", "= -g[n, d] * (own", "= g[n, d] * (own"),
        Mistake("leaving out the smoothing in grad_t", "(own * weight[c] * logp", "(weight[c] * logp"),
        Mistake("leaving out the classes' weights in grad_t", "(own * weight[c] * logp", "(own * logp"),
        Mistake("leaving out the classes' weights and the smoothing", "g[n, d] * factor", "g[n, d]"),
        Mistake(
            "softmax's backward pass for log_softmax's",
            "log_softmax.naive_backward(grad_logp, logp, 1)",
            "softmax.naive_backward(grad_logp, np.exp(logp), 1)",
        ),
    ),
    "sgd": (
        Mistake("leaving out the weight decay", "d += weight_decay * data[i]", "pass"),
        Mistake("subtracting the weight decay", "d += weight_decay", "d -= weight_decay"),
        Mistake("leaving out maximize", "-grad[i] if maximize else grad[i]", "grad[i]"),
        Mistake(
            "reversing the sign only after adding the decay",
            "d = -grad[i] if maximize else grad[i]\n        if weight_decay != 0:\n            d += weight_decay * data[i]",
            "d = grad[i] + weight_decay * data[i]\n        if maximize:\n            d = -d",
        ),
        Mistake("leaving out nesterov", "d = d + momentum * velocity[i] if nesterov else velocity[i]", "d = velocity[i]"),
        Mistake(
            "nesterov with the whole velocity instead of momentum times the velocity",
            "d + momentum * velocity[i] if",
            "d + velocity[i] if",
        ),
        Mistake("leaving out gain", "gain * d", "d"),
        Mistake("`=` where the step must be added to the parameter", "data[i] += rate * d", "data[i] = rate * d"),
        Mistake("the wrong sign of the step: rate is already negative", "data[i] += rate", "data[i] -= rate"),
        Mistake(
            "stepping by the gradient alone, not by the velocity",
            "velocity[i] if nesterov else velocity[i]",
            "velocity[i] if nesterov else d",
        ),
        Mistake(
            "not storing the velocity",
            """velocity[i] = keep * velocity[i] + gain * d
            d = d + momentum * velocity[i] if nesterov else velocity[i]""",
            """v = keep * velocity[i] + gain * d
            d = d + momentum * v if nesterov else v""",
        ),
        Mistake("writing nothing into data: a name was bound to a new array", "data[i] += rate * d", "pass"),
    ),
}
