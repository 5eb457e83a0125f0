"""What a trained network sees in images, by hand: ``python -m scratch.predict IMAGE… --weights FILE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from scratch.alexnet import AlexNet
from scratch.data import Preprocessing, mean_probabilities, scaled
from training import prediction, weights
from training.images import read_image


def predict(image: Path | str, weights_file: Path | str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The probability of each class, (classes,) float32, and the classes.

    Raises:
        ValueError: the image or the weights are not what they should be.
        OSError: a file cannot be read.
    """
    probabilities, classes = predictor(weights_file)
    return probabilities(image), classes


def predictor(weights_file: Path | str) -> tuple[Callable[[Path | str], np.ndarray], tuple[str, ...]]:
    """What :func:`predict` does for one image, for as many as one likes, and the classes.

    Raises:
        ValueError: the weights are not what they should be; or, for an image, that is not.
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
        ValueError: the file is not one of weights, or anything in it is not as it should be.
        OSError: it cannot be read.
    """
    file = weights.open_weights(path)
    model = AlexNet(file.variant, len(file.classes))
    network, arrays = file.read({name: array.shape for name, array in model.state_dict().items()})
    model.load_state_dict(network)
    return model.eval(), Preprocessing.from_state_dict(arrays), file.classes


if __name__ == "__main__":
    prediction.command("scratch", predictor)
