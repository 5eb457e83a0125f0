"""The X-ray of max_pool2d."""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_from_scratch.xray.inputs import GRAD_OUT, cotangent
from alexnet_from_scratch.xray.page import STEPS, Panel, Section, Xray, compare
from alexnet_from_scratch.xray.photo import Photo
from alexnet_from_scratch.xray.tracing import Tape
from scratch import max_pool2d


def build(
    photo: Photo, *, size: int = 11, kernel: int = 3, stride: int = 2, padding: int = 0, ceil_mode: bool = False, seed: int = 0
) -> Xray:
    """Winners and ties."""
    x = np.round(photo.pixels(size)[np.newaxis] * 8) / 8  # few shades, to get ties
    params: dict[str, Any] = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    out, _ = max_pool2d.forward(x, **params)
    grad_out = cotangent(out.shape, seed)
    tape = Tape(STEPS)
    geometry = max_pool2d.geometry_of(x.shape, kernel, stride, padding, 1, ceil_mode)
    made, saved = max_pool2d.naive_forward(tape.given("x", x), geometry)
    tape.made("out", made)
    (gradient,) = max_pool2d.naive_backward(tape.given("grad_out", grad_out), *saved)
    tape.made("grad_x", gradient)
    xray = Xray(
        "max_pool2d",
        "2-D max pooling",
        "Each output is the largest cell of its window. The whole gradient goes back to that cell. Of equal cells, the first in "
        "reading order wins and takes it all. Here the photograph is rounded to few shades, so that there are ties.",
        params,
        tape,
        [
            Section(
                "Forward",
                "Point at an output: each cell is compared with the largest so far. ★ won; = is as large, but comes later, so it "
                "wins nothing.",
                [Panel("x", "N C H W", "The photograph, in steps of 1/8.", row=True), Panel("out", "N C OH OW", row=True)],
            ),
            Section(
                "Backward",
                "Point at a cell of grad_out to see where it goes. Point at a pixel of grad_x to see the windows that it won.",
                [Panel("grad_out", "N C OH OW", GRAD_OUT, row=True), Panel("grad_x", "N C H W", row=True)],
            ),
        ],
    )
    compare(xray, "max_pool2d", (x,), params, ["out"], grad_out, ["grad_x"])
    return xray
