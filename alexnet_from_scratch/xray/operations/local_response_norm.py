"""The X-ray of local_response_norm."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np

from alexnet_from_scratch.xray.inputs import GRAD_OUT, cotangent
from alexnet_from_scratch.xray.operations.conv2d import gabor
from alexnet_from_scratch.xray.page import STEPS, Panel, Section, Xray, compare
from alexnet_from_scratch.xray.photo import Photo
from alexnet_from_scratch.xray.tracing import Tape
from scratch import conv2d, local_response_norm, relu


def build(
    photo: Photo,
    *,
    size: int = 4,
    channels: int = 8,
    window: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 2.0,
    seed: int = 0,
) -> Xray:
    """Windows over channels."""
    pixels = 128 * photo.pixels(2 * size)[np.newaxis]
    convolved, _ = conv2d.forward(pixels, gabor(channels, 3, 3), np.full(channels, 20, np.float32), stride=2, padding=1)
    x, _ = relu.forward(convolved)
    grad_out = cotangent(x.shape, seed)
    params: dict[str, Any] = {"size": window, "alpha": alpha, "beta": beta, "k": k}
    _, cache = local_response_norm.forward(x, **params)

    tape = Tape(STEPS)
    given: local_response_norm.Window = cache.saved[-1]
    scalars: Any = {
        "alpha": tape.scalar("alpha/size", given.alpha),
        "beta": tape.scalar("beta", beta),
        "k": tape.scalar("k", k),
    }
    made, (x_numbers, scale, numbers) = local_response_norm.naive_forward(tape.given("x", x), given._replace(**scalars))
    tape.made("scale", scale)
    tape.made("out", made)
    pulls: list[Any] = []
    pull = local_response_norm.pull_of

    def kept(*operands: Any) -> Any:
        pulls.append(pull(*operands))
        if len(pulls) == x.size:
            tape.made("pull", np.array(pulls, object).reshape(x.shape))
        return pulls[-1]

    with patch.object(local_response_norm, "pull_of", kept):
        (gradient,) = local_response_norm.naive_backward(tape.given("grad_out", grad_out), x_numbers, scale, numbers)
    tape.made("grad_x", gradient)
    xray = Xray(
        "local_response_norm",
        "Local response normalization",
        "Every value is divided by a number that grows with its neighbours: the values at the same place in the channels around "
        "it. torch and the paper's own program divide alpha by the size of the window; the paper's text prints alpha alone.",
        {**params, "alpha/size": given.alpha},
        tape,
        [
            Section(
                "Forward",
                "Point at an output: the squares in its window over channels make its scale. At the first and last channels the "
                "window is cut off, but alpha is still divided by the full size.",
                [
                    Panel("x", "N C H W", "The photograph after a convolution and ReLU, on the scale of pixels from 0 to 255."),
                    Panel("scale", "N C H W", "k + alpha/size · Σ x²", between=True),
                    Panel("out", "N C H W", "x / scale^beta"),
                ],
            ),
            Section(
                "Backward",
                "Point at a cell of grad_x: first its own way through out, then the pull of every channel whose window holds it. "
                "These channels are the window's mirror image, which for an even size is a different window.",
                [
                    Panel("grad_out", "N C H W", GRAD_OUT),
                    Panel("pull", "N C H W", "What a channel's scale sends back to its window.", between=True),
                    Panel("grad_x", "N C H W"),
                ],
            ),
        ],
    )
    compare(xray, "local_response_norm", (x,), params, ["out"], grad_out, ["grad_x"])
    return xray
