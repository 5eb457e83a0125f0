"""The X-ray of dropout."""

from __future__ import annotations

import numpy as np

from alexnet_from_scratch.xray.inputs import GRAD_OUT, PIXELS, cotangent
from alexnet_from_scratch.xray.page import STEPS, Panel, Section, Xray, compare
from alexnet_from_scratch.xray.photo import Photo
from alexnet_from_scratch.xray.tracing import Tape
from scratch import dropout


def build(photo: Photo, *, size: int = 8, p: float = 0.5, seed: int = 0) -> Xray:
    """The mask and what it does."""
    x = photo.pixels(size)[np.newaxis]
    _, cache = dropout.forward(x, p=p, rng=np.random.default_rng(seed))
    mask, scale = cache.saved
    grad_out = cotangent(x.shape, seed)
    tape = Tape(STEPS)
    mask_numbers, scale_number = tape.given("mask", mask), tape.scalar("scale", scale)
    made, _ = dropout.naive_forward(tape.given("x", x), mask_numbers, scale_number)  # type: ignore[arg-type]
    tape.made("out", made)
    (gradient,) = dropout.naive_backward(tape.given("grad_out", grad_out), mask_numbers, scale_number)  # type: ignore[arg-type]
    tape.made("grad_x", gradient)
    xray = Xray(
        "dropout",
        "Dropout",
        "Each value is kept with probability 1-p. A kept value is multiplied by 1/(1-p), so that the expected value stays the "
        "same. Backward drops and scales the gradient with the same mask.",
        {"p": p, "scale = 1/(1-p)": scale},
        tape,
        [
            Section(
                "Forward",
                "Point at an output to see its input, and what the mask said.",
                [
                    Panel("x", "N C H W", PIXELS, row=True),
                    Panel("mask", "N C H W", "1: kept, 0: dropped.", row=True),
                    Panel("out", "N C H W", row=True),
                ],
            ),
            Section(
                "Backward",
                "Point at a cell of grad_x: nothing passes where the value was dropped.",
                [Panel("grad_out", "N C H W", GRAD_OUT, row=True), Panel("grad_x", "N C H W", row=True)],
            ),
        ],
    )
    compare(xray, "dropout", (x,), {"p": p, "mask": mask}, ["out"], grad_out, ["grad_x"])
    return xray
