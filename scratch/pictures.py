"""Pictures of a run, with an image's way through the network by hand: ``python -m scratch.pictures RUN``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scratch.data import mean_probabilities, scaled
from scratch.modules import Conv2d, Linear, LocalResponseNorm, MaxPool2d, ReLU
from scratch.predict import load
from training import pictures
from training.images import read_image

SHOWN = {Conv2d: "conv", Linear: "fc", ReLU: "relu", LocalResponseNorm: "norm", MaxPool2d: "pool"}


def stages(image: Path | str, weights_file: Path | str) -> tuple[list[tuple[str, np.ndarray]], tuple[str, ...]]:
    """What becomes of an image, layer by layer, and the classes.

    Returns:
        names and outputs: of the preprocessing (C,H,W), of each layer (C,H,W) or (n,), at last the classes' probabilities. A
        layer's number is that of the convolution or fully connected layer it belongs to, counted from 1 to 8.

    Raises:
        ValueError: the image or the weights are not what they should be.
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
