"""The random decisions of augmentation. This file draws them for both sides; each side's ``data.py`` applies them."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass

import numpy as np

from alexnet_from_scratch.arguments import integer


@dataclass(frozen=True)
class Choices:
    """How to alter n images.

    Attributes:
        offset: (n,2), float64 in [0,1): where to crop, down and across, each as a fraction of the largest possible offset.
        mirror: (n,), bool: whether to show the mirror image (where mirroring keeps the class).
        colour: (n,3), float64 drawn from N(0,1): how far to shift along each principal component of the colours.
    """

    offset: np.ndarray
    mirror: np.ndarray
    colour: np.ndarray

    @classmethod
    def draw(cls, n: int, rng: np.random.Generator) -> Choices:
        """Choices for ``n`` images.

        Raises:
            TypeError: ``n`` is not an int, or ``rng`` not a generator.
            ValueError: ``n`` is below 0, or above what an array can hold.
        """
        n = integer("Choices.draw", "n", n, low=0)
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"Choices.draw: rng must be a numpy.random.Generator, got {type(rng).__name__}")
        most = np.iinfo(np.intp).max // 24  # three float64 an image
        if n > most:
            raise ValueError(f"Choices.draw: n must be at most {most}, got {reprlib.repr(n)}")
        return cls(rng.random((n, 2)), rng.random(n) < 0.5, rng.standard_normal((n, 3)))

    def __getitem__(self, part: slice) -> Choices:
        return Choices(self.offset[part], self.mirror[part], self.colour[part])


def require_choices(choices: object, images: int) -> None:
    """Raise TypeError unless ``choices`` is a Choices, and ValueError unless it is for that many images."""
    if not isinstance(choices, Choices):
        raise TypeError(f"Preprocessing.training: choices must be Choices, got {type(choices).__name__}")
    if len(choices.mirror) != images:
        raise ValueError(f"Preprocessing.training: choices must be for {images} images, got {len(choices.mirror)}")
