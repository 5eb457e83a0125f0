"""The X-ray of adaptive_avg_pool2d."""

from __future__ import annotations

import numpy as np

from alexnet_from_scratch.xray.inputs import GRAD_OUT, PIXELS, cotangent
from alexnet_from_scratch.xray.page import STEPS, Panel, Section, Xray, compare
from alexnet_from_scratch.xray.photo import Photo
from alexnet_from_scratch.xray.tracing import Tape
from scratch import adaptive_avg_pool2d


def build(photo: Photo, *, size: int = 8, output: int = 3, seed: int = 0) -> Xray:
    """Windows that share rows."""
    x = photo.pixels(size)[np.newaxis]
    out, _ = adaptive_avg_pool2d.forward(x, output_size=output)
    grad_out = cotangent(out.shape, seed)
    tape = Tape(STEPS)
    made, _ = adaptive_avg_pool2d.naive_forward(tape.given("x", x), output, output)
    tape.made("out", made)
    (gradient,) = adaptive_avg_pool2d.naive_backward(tape.given("grad_out", grad_out), size, size)
    tape.made("grad_x", gradient)
    xray = Xray(
        "adaptive_avg_pool2d",
        "2-D adaptive average pooling",
        "Each output is the mean of a window. The windows are laid out so that the output has the requested size. Where that "
        "size does not divide the image's, adjacent windows share rows or columns.",
        {"output_size": (output, output)},
        tape,
        [
            Section(
                "Forward",
                "Point at an output to see its window.",
                [Panel("x", "N C H W", PIXELS, row=True), Panel("out", "N C OH OW", row=True)],
            ),
            Section(
                "Backward",
                "Point at a cell of grad_x: it gets a share of the gradient of every window that holds it.",
                [Panel("grad_out", "N C OH OW", GRAD_OUT, row=True), Panel("grad_x", "N C H W", row=True)],
            ),
        ],
    )
    compare(xray, "adaptive_avg_pool2d", (x,), {"output_size": output}, ["out"], grad_out, ["grad_x"])
    return xray
