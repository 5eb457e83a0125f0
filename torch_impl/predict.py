"""What a trained network sees in an image, by torch: ``python -m torch_impl.predict IMAGE --weights FILE``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from torch_impl.alexnet import VARIANTS, AlexNet
from torch_impl.data import Preprocessing, mean_probabilities
from training import prediction, weights
from training.images import read_image


@torch.no_grad()
def predict(image: Path | str, weights_file: Path | str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The probability of each class, (classes,) float32, and the classes; raises what scratch's raises."""
    model, preprocessing, classes = load(weights_file)
    logits = model(preprocessing.evaluation([read_image(image)]))
    return mean_probabilities(logits.unsqueeze(0))[0].numpy(), classes


def load(path: Path | str) -> tuple[AlexNet, Preprocessing, tuple[str, ...]]:
    """The network in a file of weights, in eval mode, with its preprocessing and its classes; raises what scratch's raises."""
    file = weights.open_weights(path, VARIANTS)
    model = AlexNet(file.variant, len(file.classes))
    network, arrays = file.read({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    model.load_state_dict({name: torch.from_numpy(array) for name, array in network.items()})
    try:
        preprocessing = Preprocessing.from_state_dict(arrays)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if len(preprocessing.mean) != VARIANTS[file.variant].in_channels:
        raise ValueError(f"{path}: preprocessing.mean must have {file.variant}'s channels, got {tuple(preprocessing.mean.shape)}")
    return model.eval(), preprocessing, file.classes


if __name__ == "__main__":
    prediction.command("torch_impl", predict)
