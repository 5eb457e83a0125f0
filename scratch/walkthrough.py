"""A walk through the first layers on a photograph, by hand: ``python -m scratch.walkthrough``.

``python -m torch_impl.walkthrough`` does the same with torch; the two print the same table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from alexnet_from_scratch.data import datasets
from alexnet_from_scratch.runs.screen import failing_plainly
from alexnet_from_scratch.text import CommandLine
from scratch import conv2d, data, local_response_norm, max_pool2d, relu


def main() -> None:
    """Print shape, mean, standard deviation and maximum of every stage."""
    print(f"{'stage':<32}{'shape':<20}{'mean':>10}{'std':>10}{'max':>10}")
    for stage, x in walk():
        print(f"{stage:<32}{tuple(x.shape)!s:<20}{x.mean():>10.4g}{x.std():>10.4g}{x.max():>10.4g}")


def walk() -> Iterator[tuple[str, Any]]:
    """Every stage's name and array, in order."""
    rng = np.random.default_rng(0)
    photograph = data.prepare(datasets.photographs()["chelsea"]).astype(np.float32)
    photograph -= photograph.mean()

    # A first convolution, and all the way back. The loss is half the sum of the squares of out, so its gradient is out.
    x = data.resize(photograph, (32, 32))[np.newaxis]
    yield "photograph at 32×32", x
    weight = rng.normal(0, 0.1, (8, 3, 3, 3)).astype(np.float32)
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
    x = data.centre_crop(photograph, 224)[np.newaxis]
    yield "photograph at 224×224", x
    for layer, (channels, kernel, stride, bias) in enumerate([(96, 11, 4, 0), (256, 5, 1, 1)], start=1):
        weight = rng.normal(0, 0.01, (channels, x.shape[1], kernel, kernel)).astype(np.float32)
        x, _ = conv2d.forward(x, weight, np.full(channels, bias, np.float32), stride=stride, padding=2)
        yield f"conv{layer} {kernel}×{kernel}, stride {stride}, pad 2", x
        x, _ = relu.forward(x)
        yield f"relu{layer}", x
        x, _ = local_response_norm.forward(x, size=5, alpha=1e-4, beta=0.75, k=2.0)
        yield f"norm{layer}", x
        x, _ = max_pool2d.forward(x, kernel_size=3, stride=2)
        yield f"pool{layer} 3×3, stride 2", x


if __name__ == "__main__":
    with failing_plainly():
        CommandLine("python -m scratch.walkthrough", "The tutorial that this project grew from, step by step.").parse_args()
        main()
