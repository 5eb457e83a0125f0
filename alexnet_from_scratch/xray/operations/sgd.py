"""The X-ray of sgd."""

from __future__ import annotations

from typing import Any

import numpy as np

from alexnet_from_scratch.xray.inputs import cotangent
from alexnet_from_scratch.xray.operations.conv2d import gabor
from alexnet_from_scratch.xray.page import STEPS, Panel, Section, Xray, compare
from alexnet_from_scratch.xray.photo import Photo
from alexnet_from_scratch.xray.tracing import Tape
from scratch import conv2d, sgd


def build(
    photo: Photo, *, lr: float = 0.01, momentum: float = 0.9, weight_decay: float = 5e-4, update: str = "torch", seed: int = 0
) -> Xray:
    """Two steps of a convolution's weight."""
    x = photo.pixels(10)[np.newaxis]
    weight = gabor(2, 3, 3)
    out, cache = conv2d.forward(x, weight)
    gradients = [conv2d.backward(cotangent(out.shape, seed + step), cache)[1] for step in range(2)]
    rates = (lr, lr / 10)
    params: dict[str, Any] = {
        "momentum": momentum, "weight_decay": weight_decay, "update": update,
        "dampening": 0.0, "nesterov": False, "maximize": False,
    }  # fmt: skip

    tape = Tape(STEPS)
    data = tape.given("weight", weight).copy()
    decay, kept = tape.scalar("weight_decay", weight_decay), tape.scalar("momentum", momentum)
    velocity: Any = np.zeros(weight.shape, object)
    panels = [Panel("weight", "OC C KH KW", "Before the first step.")]
    update_in_place = sgd.naive_update
    for step, (rate, gradient) in enumerate(zip(rates, gradients, strict=True), 1):
        # What SGD.step passes to the rung. The first velocity is 0, so it does not matter how much of it is kept.
        gain, move = (-rate, 1.0) if update == "paper" else (1.0, -rate)
        g = tape.given(f"grad {step}", gradient)
        update_in_place(data, g, velocity, sgd.Rule(kept, kept, gain, move, decay, False), False)  # type: ignore[arg-type]
        velocity = tape.made(f"velocity {step}", velocity).copy()
        data = tape.made(f"weight {step}", data).copy()
        panels += [
            Panel(f"grad {step}", "OC C KH KW", "From conv2d's backward pass."),
            Panel(f"velocity {step}", "OC C KH KW", between=True),
            Panel(f"weight {step}", "OC C KH KW", f"After step {step}, with lr {rate:g}."),
        ]
    xray = Xray(
        "sgd",
        "Gradient descent with momentum",
        "Two steps of a convolution's weight, the second with a tenth of the learning rate. In torch's form the rate multiplies "
        "the whole velocity, so a lower rate slows down old gradients too. In the paper's form each gradient enters the velocity "
        "with the rate of its own step, so it does not (--update paper writes that page).",
        {"lr": " then ".join(f"{rate:g}" for rate in rates), **params},
        tape,
        [
            Section("The first step", "Point at a weight to see where it was, and how far it was moved.", panels[:4]),
            Section("The second step", "The velocity keeps a part of the first step's velocity.", panels[4:]),
        ],
    )
    for step in (1, 2):
        compare(xray, "sgd", (weight, *gradients[:step]), {"lr": rates[:step], **params}, [f"weight {step}"])
    return xray
