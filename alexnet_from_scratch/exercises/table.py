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
_ROWS = "any shape; ``rows(out, dim)`` sees it as (OUTER,C,INNER), the operation along C."
_LAYER = "``(grad_x, grad_weight, grad_bias)``, of their arrays' shapes and dtype; None for an unneeded or absent one."

EXERCISES = {
    "relu": Exercise(
        {"grad_out": "how much the loss grows with each element of out; any shape.", "out": "what forward returned; same shape."},
        _GRAD_X,
        "Move one x by a little. By how much does out move where x is positive, and where it is negative? out alone tells which.",
    ),
    "dropout": Exercise(
        {
            "grad_out": "how much the loss grows with each element of out; any shape.",
            "mask": "bool, same shape: which elements were kept.",
            "scale": "a number, what the kept ones were multiplied by.",
        },
        _GRAD_X,
        "Each out is its own x times a number. Which number, and does it depend on x?",
    ),
    "max_pool2d": Exercise(
        {
            "grad_out": _GRAD_OUT,
            "indices": "(N,C,OH,OW): where each window's maximum was, h·W + w; H·W if it was nowhere.",
            "x_shape": "(N,C,H,W).",
        },
        _GRAD_X,
        "Who moves out when it moves: every cell of the window, or one? And how many windows can one cell win?",
    ),
    "adaptive_avg_pool2d": Exercise(
        {"grad_out": _GRAD_OUT, "H": "rows of x.", "W": "columns of x."},
        _GRAD_X,
        "Walk through the windows as forward does, and hand out where it gathered. "
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
        "Every product x·weight of forward gives a term to grad_x, with weight for the slope, and one to grad_weight, with x.",
    ),
    "conv2d": Exercise(
        {
            "grad_out": "how much the loss grows with each element of out, (N,OC,OH,OW).",
            "x": "(N,C,H,W).",
            "weight": "(OC,C/groups,KH,KW).",
            "has_bias": "whether there was a bias, (OC,).",
            "geometry": "where the windows go; for _cell, _pad and _unpad.",
            "need_grad_x": "whether grad_x is wanted.",
        },
        _LAYER,
        "Walk exactly as forward does. Where it read a cell of the padded image, add to that cell of a padded gradient. "
        "Then cut the frame off.",
    ),
    "local_response_norm": Exercise(
        {
            "grad_out": "how much the loss grows with each element of out, (N,C,…).",
            "x": "(N,C,…).",
            "scale": "forward's scale, same shape.",
            "window": "the window's reach, and alpha (already divided by size), beta and k.",
        },
        _GRAD_X,
        "x[j] acts on out[j] itself, and through the scale of every channel whose window holds j. "
        "Which are those, for an even size? pull_of is given: how the loss moves with one scale.",
    ),
    "softmax": Exercise(
        {"grad_out": "how much the loss grows with each element of out; out's shape.", "out": _ROWS, "dim": "the axis."},
        _GRAD_X,
        "Every out of a row depends on every x of it. Write down how out[c] moves with x[j], for c = j and for c ≠ j. "
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
            "grad_out": "how much the final loss grows with what forward returned; ``_spread`` makes it each position's, (N,D).",
            "options": "the class weights and the rest; for _factors and _spread.",
            "logp": "log_softmax of the logits, (N,C,D).",
            "t": "(N,D) classes, -1 where ignored; or (N,C,D) probabilities.",
        },
        "``(grad_x,)`` (N,C,D) for classes, ``(grad_x, grad_t)`` for probabilities.",
        "The loss is a plain sum over logp. So find the gradient of logp first; from there on it is the exercise before.",
    ),
    "sgd": Exercise(
        {
            "data": "the parameter, any shape; to be changed in place.",
            "grad": "the loss's gradient, same shape.",
            "velocity": "same shape, to be changed in place; None without momentum.",
            "rule": "six numbers. keep: how much of the old velocity stays, momentum or at the first step 0. momentum: for "
            "nesterov. gain: the factor with which the gradient enters the velocity. rate: the factor of the step, minus the "
            "learning rate, or 1 in the paper's form. weight_decay: how much of the parameter is added to its gradient. "
            "nesterov: whether to step by the gradient and the next velocity.",
            "maximize": "whether to go up: then the gradient counts with the other sign.",
        },
        "Nothing: ``data`` and ``velocity`` are changed in place.",
        "Write three lines: the gradient with its decay, the new velocity, the step. The learning rate is inside gain and rate.",
        in_place=True,
    ),
}
