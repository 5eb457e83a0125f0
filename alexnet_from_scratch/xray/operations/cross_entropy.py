"""The X-ray of cross_entropy."""

from __future__ import annotations

import numpy as np

from alexnet_from_scratch.xray.inputs import drawn, pieces
from alexnet_from_scratch.xray.page import STEPS, Panel, Section, Xray, compare
from alexnet_from_scratch.xray.photo import Photo
from alexnet_from_scratch.xray.tracing import Tape
from scratch import cross_entropy, linear, softmax


def build(photo: Photo, *, batch: int = 3, classes: int = 6, seed: int = 0) -> Xray:
    """From logits through softmax to a loss."""
    rng = np.random.default_rng(seed)
    features = pieces(photo, 4, batch).reshape(batch, 48)
    logits, _ = linear.forward(features, drawn(rng, (classes, 48)))
    target = rng.integers(0, classes, batch)
    grad_losses = np.full(batch, 1 / batch, np.float32)

    tape = Tape(STEPS)
    x = tape.given("logits", logits)
    tape.given("target", target)
    tape.made("softmax", softmax.naive_forward(x, 1)[0])
    _, cache = cross_entropy.forward(logits, target, reduction="none")
    made, (options, logp, t) = cross_entropy.naive_forward(x[:, :, np.newaxis], target[:, np.newaxis], cache.saved[0])
    tape.made("log_softmax", logp[:, :, 0])
    tape.made("loss", made)
    g = tape.given("grad_loss", grad_losses)
    gradient, *_ = cross_entropy.naive_backward(g, options, tape.arrays["log_softmax"].numbers[:, :, np.newaxis], t)
    tape.made("grad_logits", gradient[:, :, 0])
    xray = Xray(
        "cross_entropy",
        "Softmax and cross-entropy",
        "Softmax turns logits into probabilities: exp, and a division by the sum. The loss is minus the logarithm of the "
        "probability of the right class. The gradient of both together is simple: the probability, minus 1 for the right class.",
        {"reduction": "none", "label_smoothing": 0},
        tape,
        [
            Section(
                "Forward",
                "Point at a probability: it is made of its logit and the whole row. Point at a loss: only one class counts.",
                [
                    Panel("logits", "N C", "The outputs of a random linear layer, for pieces of the photograph."),
                    Panel("target", "N", "The right class."),
                    Panel("softmax", "N C", "Each row adds up to 1."),
                    Panel(
                        "log_softmax",
                        "N C",
                        "x - peak - log Σ exp(x - peak), where peak is the row's largest logit: no probability that "
                        "rounds to 0 is needed on the way.",
                    ),
                    Panel("loss", "N"),
                ],
            ),
            Section(
                "Backward",
                "Point at a cell of grad_logits: the softmax of the same place, minus 1 for the right class, times the loss's "
                "gradient.",
                [
                    Panel(
                        "grad_loss",
                        "N",
                        "1/N for each image: the gradient of a mean over the batch, which reduction none leaves to the caller.",
                    ),
                    Panel("grad_logits", "N C"),
                ],
            ),
        ],
    )
    compare(xray, "softmax", (logits,), {"dim": 1}, ["softmax"])
    compare(xray, "log_softmax", (logits,), {"dim": 1}, ["log_softmax"])
    params = {"target": target, "reduction": "none"}
    compare(xray, "cross_entropy", (logits,), params, ["loss"], grad_losses, ["grad_logits"])
    return xray
