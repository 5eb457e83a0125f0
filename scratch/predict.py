"""A trained network's predictions for images, by hand: ``python -m scratch.predict IMAGE… --weights FILE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.runs import prediction, weights
from scratch.alexnet import AlexNet
from scratch.data import Preprocessing, mean_probabilities, scaled


def predict(image: Path | str, weights_file: Path | str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The probability of each class, (classes,) float32, and the classes.

    Raises:
        ValueError: the image or the weights are not valid.
        OSError: a file cannot be read.
    """
    probabilities, classes = predictor(weights_file)
    return probabilities(image), classes


def predictor(weights_file: Path | str) -> tuple[Callable[[Path | str], np.ndarray], tuple[str, ...]]:
    """A function that does for any number of images what :func:`predict` does for one, and the classes.

    Raises:
        ValueError: the weights are not valid; or, when called with an image, the image is not.
        OSError: a file cannot be read.
    """
    model, preprocessing, classes = load(weights_file)

    def probabilities(image: Path | str) -> np.ndarray:
        logits = model(preprocessing.evaluation([read_image(image, scaled(preprocessing.size))]))
        return weights.finite_probabilities(weights_file, mean_probabilities(logits[np.newaxis])[0])

    return probabilities, classes


def load(path: Path | str) -> tuple[AlexNet, Preprocessing, tuple[str, ...]]:
    """The network in a file of weights, in eval mode, with its preprocessing and its classes.

    Raises:
        ValueError: the file is not a file of weights, or something in it is not valid.
        OSError: the file cannot be read.
    """
    file = weights.open_weights(path)
    model = AlexNet(file.variant, len(file.classes))
    network, arrays = file.read({name: array.shape for name, array in model.state_dict().items()})
    model.load_state_dict(network)
    return model.eval(), Preprocessing.from_state_dict(arrays), file.classes


if __name__ == "__main__":
    prediction.command("scratch", predictor)
