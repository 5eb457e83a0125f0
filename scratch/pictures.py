"""Pictures of a run, and of an image's way through the network, by hand: ``python -m scratch.pictures RUN``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.runs import pictures
from scratch.data import mean_probabilities, scaled
from scratch.modules import Conv2d, Linear, LocalResponseNorm, MaxPool2d, ReLU
from scratch.predict import load

SHOWN = {Conv2d: "conv", Linear: "fc", ReLU: "relu", LocalResponseNorm: "norm", MaxPool2d: "pool"}


def stages(image: Path | str, weights_file: Path | str) -> tuple[list[tuple[str, np.ndarray]], tuple[str, ...]]:
    """The outputs for an image, layer by layer, and the classes.

    Returns:
        names and outputs: of the preprocessing (C,H,W), of each layer (C,H,W) or (n,), and finally the classes' probabilities.
        A layer's name ends in the number, from 1 to 8, of the convolution or fully connected layer that it belongs to.

    Raises:
        ValueError: the image or the weights are not valid.
        OSError: a file cannot be read.
    """
    model, preprocessing, classes = load(weights_file)
    x = preprocessing.evaluation([read_image(image, scaled(preprocessing.size))])
    outputs, number = [("image", x[0])], 0
    for _, module in model.named_modules():
        if any(module.named_children()):
            continue
        x = module(x.copy())  # ReLU works in place
        number += isinstance(module, Conv2d | Linear)
        if (kind := SHOWN.get(type(module))) is not None:
            outputs.append((f"{kind}{number}", x[0]))
    return [*outputs[:-1], ("probabilities", mean_probabilities(x[np.newaxis])[0])], classes


if __name__ == "__main__":
    pictures.command("scratch", stages)
