"""The X-ray of linear."""

from __future__ import annotations

import numpy as np

from alexnet_from_scratch.xray.inputs import GRAD_OUT, cotangent, drawn, pieces
from alexnet_from_scratch.xray.page import STEPS, Panel, Section, Xray, compare
from alexnet_from_scratch.xray.photo import Photo
from alexnet_from_scratch.xray.tracing import Tape
from scratch import linear


def build(photo: Photo, *, size: int = 3, batch: int = 2, features: int = 5, seed: int = 0) -> Xray:
    """Every output sees every input."""
    rng = np.random.default_rng(seed)
    x = pieces(photo, size, batch).reshape(batch, 3 * size**2)
    weight = drawn(rng, (features, x.shape[1]))
    bias = drawn(rng, (features,))
    grad_out = cotangent((batch, features), seed)
    tape = Tape(STEPS)
    made, saved = linear.naive_forward(tape.given("x", x), tape.given("weight", weight), tape.given("bias", bias))
    tape.made("out", made)
    gradients = linear.naive_backward(tape.given("grad_out", grad_out), *saved, need_grad_x=True)
    for name, gradient in zip(("grad_x", "grad_weight", "grad_bias"), gradients, strict=True):
        assert gradient is not None
        tape.made(name, gradient)
    xray = Xray(
        "linear",
        "Linear layer",
        "out = x · weightᵀ + bias. Every output sees every input, and each such pair has a parameter: nine in ten of "
        "AlexNet's parameters are in its linear layers.",
        {},
        tape,
        [
            Section(
                "Forward",
                "Point at an output: it is made of a row of x and a row of weight.",
                [
                    Panel("x", "N IN", f"Each row is a piece of the photograph, {size}×{size} pixels: red, green, then blue."),
                    Panel("weight", "OUT IN"),
                    Panel("bias", "OUT"),
                    Panel("out", "N OUT"),
                ],
            ),
            Section(
                "Backward",
                "Point at a cell of grad_x: every output sends it gradient × weight. Point at a cell of grad_weight: the "
                "products of all rows of the batch add up.",
                [
                    Panel("grad_out", "N OUT", GRAD_OUT),
                    Panel("grad_x", "N IN"),
                    Panel("grad_weight", "OUT IN"),
                    Panel("grad_bias", "OUT"),
                ],
            ),
        ],
    )
    compare(xray, "linear", (x, weight, bias), {}, ["out"], grad_out, ["grad_x", "grad_weight", "grad_bias"])
    return xray
