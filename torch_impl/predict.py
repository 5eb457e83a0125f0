"""A trained network's predictions for images, by torch: ``python -m torch_impl.predict IMAGE… --weights FILE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.runs import prediction, weights
from torch_impl.alexnet import AlexNet
from torch_impl.data import Preprocessing, mean_probabilities, scaled


def predict(image: Path | str, weights_file: Path | str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The probability of each class, (classes,) float32, and the classes; raises the same as scratch's."""
    probabilities, classes = predictor(weights_file)
    return probabilities(image), classes


def predictor(weights_file: Path | str) -> tuple[Callable[[Path | str], np.ndarray], tuple[str, ...]]:
    """A function that does what :func:`predict` does, for any number of images, and the classes; raises the same as scratch's."""
    model, preprocessing, classes = load(weights_file)

    @torch.no_grad()
    def probabilities(image: Path | str) -> np.ndarray:
        logits = model(preprocessing.evaluation([read_image(image, scaled(preprocessing.size))]))
        return weights.finite_probabilities(weights_file, mean_probabilities(logits.unsqueeze(0))[0].numpy())

    return probabilities, classes


def load(path: Path | str) -> tuple[AlexNet, Preprocessing, tuple[str, ...]]:
    """The network in a file of weights, in eval mode, with its preprocessing and its classes; raises the same as scratch's."""
    file = weights.open_weights(path)
    model = AlexNet(file.variant, len(file.classes))
    network, arrays = file.read({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    model.load_state_dict({name: torch.from_numpy(array) for name, array in network.items()})
    return model.eval(), Preprocessing.from_state_dict(arrays), file.classes


if __name__ == "__main__":
    prediction.command("torch_impl", predictor)
