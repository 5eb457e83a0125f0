"""The exercises in order: what the function gets, and a first hint. Everything else comes from the shipped source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Exercise:
    """``arguments`` explains the function's arguments by name, ``returns`` what it returns."""

    arguments: dict[str, str]
    returns: str
    hint: str
    in_place: bool = False  # an optimizer's update, which changes data and velocity; all others are backward passes

    @property
    def asked(self) -> str:
        """What the reader writes."""
        return "update" if self.in_place else "backward pass"


_GRAD_X = "``(grad_x,)``, of x's shape and dtype."
_GRAD_OUT = "how much the loss grows with each element of out, (N,C,OH,OW)."
_ROWS = "any shape; ``rows(out, dim)`` views it as (OUTER,C,INNER), and the operation runs along C."
_LAYER = (
    "``(grad_x, grad_weight, grad_bias)``, each of its array's shape and dtype; None for one that is not wanted, or whose array "
    "is absent."
)

EXERCISES = {
    "relu": Exercise(
        {"grad_out": "how much the loss grows with each element of out; any shape.", "out": "what forward returned; same shape."},
        _GRAD_X,
        "Move one x by a little. By how much does out move where x is positive, and where it is negative? out alone tells you "
        "which case it is.",
    ),
    "dropout": Exercise(
        {
            "grad_out": "how much the loss grows with each element of out; any shape.",
            "mask": "bool, same shape: which elements were kept.",
            "scale": "a number: what the kept elements were multiplied by.",
        },
        _GRAD_X,
        "Each out is its own x times a number. Which number, and does it depend on x?",
    ),
    "max_pool2d": Exercise(
        {
            "grad_out": _GRAD_OUT,
            "indices": "(N,C,OH,OW): where each window's maximum was, as h·W + w; H·W for a window without a cell of x.",
            "x_shape": "(N,C,H,W).",
        },
        _GRAD_X,
        "Which cells move out when they move: all cells of the window, or only one? And how many windows can one cell win?",
    ),
    "adaptive_avg_pool2d": Exercise(
        {"grad_out": _GRAD_OUT, "H": "rows of x.", "W": "columns of x."},
        _GRAD_X,
        "Loop over the windows as forward does. Where forward adds up cells, hand out the gradient to them. "
        "By how much does a mean move with one of its cells?",
    ),
    "linear": Exercise(
        {
            "grad_out": "how much the loss grows with each element of out, (…,OUT).",
            "x": "(…,IN).",
            "weight": "(OUT,IN).",
            "has_bias": "whether there was a bias, (OUT,).",
            "need_grad_x": "whether grad_x is wanted.",
        },
        _LAYER,
        "Every product x·weight in forward adds one term to grad_x, with weight as the slope, and one term to grad_weight, with "
        "x as the slope.",
    ),
    "conv2d": Exercise(
        {
            "grad_out": "how much the loss grows with each element of out, (N,OC,OH,OW).",
            "x": "(N,C,H,W).",
            "weight": "(OC,C/groups,KH,KW).",
            "has_bias": "whether there was a bias, (OC,).",
            "geometry": "where the windows lie; pass it to _cell, _pad and _unpad.",
            "need_grad_x": "whether grad_x is wanted.",
        },
        _LAYER,
        "Loop exactly as forward does. Where forward reads a cell of the padded image, add to that cell of a padded gradient. "
        "At the end, cut the padding off.",
    ),
    "local_response_norm": Exercise(
        {
            "grad_out": "how much the loss grows with each element of out, (N,C,…).",
            "x": "(N,C,…).",
            "scale": "forward's scale, same shape.",
            "window": "how many channels the window has before and after its own; alpha (already divided by size), beta and k.",
        },
        _GRAD_X,
        "x[j] acts on out[j] directly, and through the scale of every channel whose window holds j. "
        "Which channels are those, for an even size? pull_of is given: it says how the loss moves with one scale.",
    ),
    "softmax": Exercise(
        {"grad_out": "how much the loss grows with each element of out; out's shape.", "out": _ROWS, "dim": "the axis."},
        _GRAD_X,
        "Every out of a row depends on every x of that row. Write down how out[c] moves with x[j], for c = j and for c ≠ j. "
        "Then sum over c.",
    ),
    "log_softmax": Exercise(
        {"grad_out": "how much the loss grows with each element of out; out's shape.", "out": _ROWS, "dim": "the axis."},
        _GRAD_X,
        "x[j] is in out[j] directly, and in the log that is subtracted from every out of the row. "
        "How does that log move with x[j]?",
    ),
    "cross_entropy": Exercise(
        {
            "grad_out": "how much the final loss grows with what forward returned; ``_spread`` gives it for each place, (N,D).",
            "options": "the class weights and the other options; pass it to _factors and _spread.",
            "logp": "log_softmax of the logits, (N,C,D).",
            "t": "(N,D) classes, -1 where ignored; or (N,C,D) probabilities.",
        },
        "``(grad_x,)``, (N,C,D), if t holds classes; ``(grad_x, grad_t)`` if it holds probabilities.",
        "The loss is a weighted sum of logp. So find the gradient of logp first; the rest is the exercise before this one.",
    ),
    "sgd": Exercise(
        {
            "data": "the parameter, any shape; to be changed in place.",
            "grad": "the loss's gradient, same shape.",
            "velocity": "same shape, to be changed in place; None without momentum.",
            "rule": "six numbers. keep: how much of the old velocity stays: momentum, but 0 at the first step. momentum: "
            "nesterov needs it. gain: the factor with which the gradient enters the velocity. rate: the factor of the step: the "
            "learning rate times -1, or 1 in the paper's form. weight_decay: how much of the parameter is added to its gradient. "
            "nesterov: whether to step by the gradient and the next velocity.",
            "maximize": "whether to increase the loss: then the gradient counts with the other sign.",
        },
        "Nothing: ``data`` and ``velocity`` are changed in place.",
        "Write three lines: the gradient with its decay, the new velocity, the step. The learning rate is inside gain and rate.",
        in_place=True,
    ),
}
