"""A walk through the first layers on a photograph, by torch: ``python -m torch_impl.walkthrough``.

``python -m scratch.walkthrough`` takes the same walk by hand; the two print the same table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet_from_scratch.runs.screen import failing_plainly
from alexnet_from_scratch.runs.walk import command, photograph
from torch_impl import conv2d, data, local_response_norm, max_pool2d, relu


def walk(path: Path | None = None) -> Iterator[tuple[str, Any]]:
    """Every stage's name and tensor, in order, for the photograph at ``path`` or scikit-image's cat."""
    grad: Any
    rng = np.random.default_rng(0)
    x = data.prepare(photograph(path)).float()
    image = x - x.mean()

    # A first convolution, forward and backward. The loss is half the sum of the squares of out, so its gradient is out.
    x = data.resize(image, (32, 32))[None]
    yield "photograph at 32×32", x
    weight = torch.from_numpy(rng.normal(0, 0.1, (8, 3, 3, 3))).float()
    x, conv_cache = conv2d.forward(x, weight, padding=1)
    yield "conv 3→8, 3×3, pad 1", x
    x, relu_cache = relu.forward(x)
    yield "relu", x
    x, pool_cache = max_pool2d.forward(x, kernel_size=3, stride=2)
    yield "max-pool 3×3, stride 2", x
    (grad,) = max_pool2d.backward(x, pool_cache)
    yield "gradient of relu's output", grad
    (grad,) = relu.backward(grad, relu_cache)
    yield "gradient of conv's output", grad
    grad_x, grad_weight, _ = conv2d.backward(grad, conv_cache)
    yield "gradient of the photograph", grad_x
    yield "gradient of the weight", grad_weight

    # AlexNet's first two layers: 224 → 55 → 27 → 27 → 13. The paper draws weights from N(0, 0.01) and sets biases to 0 and 1.
    x = data.centre_crop(image, 224)[None]
    yield "photograph at 224×224", x
    for layer, (channels, kernel, stride, bias) in enumerate([(96, 11, 4, 0), (256, 5, 1, 1)], start=1):
        weight = torch.from_numpy(rng.normal(0, 0.01, (channels, x.shape[1], kernel, kernel))).float()
        x, _ = conv2d.forward(x, weight, torch.full((channels,), float(bias)), stride=stride, padding=2)
        yield f"conv{layer} {kernel}×{kernel}, stride {stride}, pad 2", x
        x, _ = relu.forward(x)
        yield f"relu{layer}", x
        x, _ = local_response_norm.forward(x, size=5, alpha=1e-4, beta=0.75, k=2.0)
        yield f"norm{layer}", x
        x, _ = max_pool2d.forward(x, kernel_size=3, stride=2)
        yield f"pool{layer} 3×3, stride 2", x


if __name__ == "__main__":
    with failing_plainly():
        command("torch_impl", walk)
