"""A walk through the first layers on a photograph, by hand: ``python -m scratch.walkthrough``.

``python -m torch_impl.walkthrough`` does the same with torch; the two print the same table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_from_scratch.data import datasets
from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.packages import optional
from alexnet_from_scratch.runs.screen import failing_plainly
from alexnet_from_scratch.text import CommandLine, shown
from scratch import conv2d, data, local_response_norm, max_pool2d, relu

SIDE = 256  # of the photograph that the network's first layers are cut from
CHANNELS = 8  # shown of each stage


def main(photograph: Path | None = None, pictures: Path | None = None) -> None:
    """Print shape, mean, standard deviation and maximum of every stage; draw each into the folder ``pictures``, if given."""
    print(f"{'stage':<32}{'shape':<20}{'mean':>10}{'std':>10}{'max':>10}")
    for number, (stage, x) in enumerate(walk(photograph)):
        print(f"{stage:<32}{tuple(x.shape)!s:<20}{x.mean():>10.4g}{x.std():>10.4g}{x.max():>10.4g}")
        if pictures:
            draw(x, stage, pictures / f"{number:02}.png")
    if pictures:
        print(f"The stages' pictures are in {shown(pictures)}")


def draw(x: np.ndarray, stage: str, path: Path) -> None:
    """The first channels of (1,C,H,W) in a row: red is above zero, blue below."""
    figures = optional("matplotlib.figure")
    figure = figures.Figure(figsize=(1.3 * CHANNELS, 1.8), layout="constrained")
    peak = float(abs(x[0, :CHANNELS]).max()) or 1.0
    for axis, plane in zip(figure.subplots(1, CHANNELS), [*x[0, :CHANNELS], *[None] * CHANNELS], strict=False):
        axis.axis("off")
        if plane is not None:
            axis.imshow(plane, cmap="RdBu_r", vmin=-peak, vmax=peak)
    figure.suptitle(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def walk(path: Path | None = None) -> Iterator[tuple[str, Any]]:
    """Every stage's name and array, in order, for the photograph at ``path`` or scikit-image's cat."""
    rng = np.random.default_rng(0)
    pixels = datasets.photographs()["chelsea"] if path is None else read_image(path, SIDE)
    photograph = data.prepare(pixels).astype(np.float32)
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


def command() -> None:
    """The command line."""
    parser = CommandLine("python -m scratch.walkthrough", "The tutorial that this project grew from, step by step.")
    parser.add_argument("--input", type=Path, metavar="IMAGE", help="a photograph of yours; the default is scikit-image's cat")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="also draw each stage's first channels into this folder")
    options = parser.parse_args()
    main(options.input, options.pictures)


if __name__ == "__main__":
    with failing_plainly():
        command()
