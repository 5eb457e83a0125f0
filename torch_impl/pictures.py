"""Pictures of a run, with an image's path through the network by torch: ``python -m torch_impl.pictures RUN``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.runs import pictures
from torch_impl.data import mean_probabilities, scaled
from torch_impl.modules import Conv2d, Linear, LocalResponseNorm, MaxPool2d, ReLU
from torch_impl.predict import load

SHOWN = {Conv2d: "conv", Linear: "fc", ReLU: "relu", LocalResponseNorm: "norm", MaxPool2d: "pool"}


@torch.no_grad()
def stages(image: Path | str, weights_file: Path | str) -> tuple[list[tuple[str, np.ndarray]], tuple[str, ...]]:
    """The outputs for an image, layer by layer, and the classes; returns and raises the same as scratch's."""
    model, preprocessing, classes = load(weights_file)
    x = preprocessing.evaluation([read_image(image, scaled(preprocessing.size))])
    outputs, number = [("image", x[0].numpy())], 0
    for module in model.modules():
        if any(module.children()):
            continue
        x = module(x.clone())  # ReLU works in place
        number += isinstance(module, Conv2d | Linear)
        if (kind := SHOWN.get(type(module))) is not None:
            outputs.append((f"{kind}{number}", x[0].numpy()))
    return [*outputs[:-1], ("probabilities", mean_probabilities(x.unsqueeze(0))[0].numpy())], classes


if __name__ == "__main__":
    pictures.command("torch_impl", stages)
