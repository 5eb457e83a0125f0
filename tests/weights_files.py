"""Files of weights for tests: a small network's, as scratch writes it, and a stranger's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from alexnet_from_scratch.runs import weights
from scratch.alexnet import AlexNet
from scratch.data import Preprocessing

CLASSES = ("zero", "one", "größer [bold]")


def write_mini(path: Path) -> None:
    """A file of weights as scratch writes it, of a small untrained network."""
    rng = np.random.default_rng(0)
    model = AlexNet("mini", len(CLASSES), rng=rng)
    images = rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    preprocessing = Preprocessing.fit(images, size=28, channels=1, mirror=False)
    weights.save(path, "mini", CLASSES, model.state_dict(), preprocessing.state_dict())


def write_unchecked(path: Path, about: Any, arrays: dict[str, np.ndarray]) -> None:
    """A file as a stranger's program might write it."""
    path.write_bytes(safetensors.numpy.save(arrays, {"weights": json.dumps(about)}))


def preprocessing_of(size: int = 28, mean: float = 100.0, dtype: str = "float64") -> dict[str, np.ndarray]:
    """What a file of mini has in addition to its network."""
    return {
        "size": np.array(size, np.int64),
        "mirror": np.array(False),
        "mean": np.full((1, size, size), mean).astype(dtype),
        "colour": np.zeros((1, 1)),
    }


def network_of(classes: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    """The part of mini's network that every file must have."""
    shapes = {"features.0.weight": (32, 1, 5, 5), "classifier.6.weight": (classes, 256), "classifier.6.bias": (classes,)}
    return {name: np.ones(shape, dtype) for name, shape in shapes.items()}


def refusal(call: Callable[[], object]) -> str:
    """The message of the ValueError that the call raises (no other kind); empty if the call succeeds."""
    try:
        call()
    except ValueError as error:
        return str(error)
    return ""
