"""The X-ray of relu."""

from __future__ import annotations

import numpy as np

from alexnet_from_scratch.xray.inputs import GRAD_OUT, PIXELS, cotangent
from alexnet_from_scratch.xray.page import STEPS, Panel, Section, Xray, compare
from alexnet_from_scratch.xray.photo import Photo
from alexnet_from_scratch.xray.tracing import Tape
from scratch import relu


def build(photo: Photo, *, size: int = 10, seed: int = 0) -> Xray:
    """The whole operation is a comparison."""
    x = photo.pixels(size)[np.newaxis]
    grad_out = cotangent(x.shape, seed)
    tape = Tape(STEPS)
    given = tape.given("x", x)
    made, _ = relu.naive_forward(given, np.empty_like(given))
    (gradient,) = relu.naive_backward(tape.given("grad_out", grad_out), tape.made("out", made))
    tape.made("grad_x", gradient)
    xray = Xray(
        "relu",
        "Rectified linear unit",
        "Negative values become zero. The gradient passes where the output is above zero. It is selected, never multiplied: an "
        "infinite gradient that does not pass gives 0, not NaN.",
        {},
        tape,
        [
            Section(
                "Forward",
                "Point at an output: it is its input, or 0.",
                [
                    Panel("x", "N C H W", PIXELS, row=True),
                    Panel("out", "N C H W", "A plane is empty if nothing in x is above 0 there.", row=True),
                ],
            ),
            Section(
                "Backward",
                "Point at a cell of grad_x: the output at the same place decides. Where it is exactly 0, nothing passes.",
                [Panel("grad_out", "N C H W", GRAD_OUT, row=True), Panel("grad_x", "N C H W", row=True)],
            ),
        ],
    )
    compare(xray, "relu", (x,), {}, ["out"], grad_out, ["grad_x"])
    return xray
