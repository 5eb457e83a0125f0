"""The random decisions of augmentation. They are drawn once, here, for both sides; each side's ``data.py`` applies them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Choices:
    """How to alter n images.

    Attributes:
        offset: (n,2), float64 in [0,1), where to crop: the fraction of the largest offset, down and across.
        mirror: (n,), bool, whether to show the mirror image (where that keeps the class).
        colour: (n,3), float64 from N(0,1), how far to shift along each principal component of the colours.
    """

    offset: np.ndarray
    mirror: np.ndarray
    colour: np.ndarray

    @classmethod
    def draw(cls, n: int, rng: np.random.Generator) -> Choices:
        """Choices for ``n`` images."""
        return cls(rng.random((n, 2)), rng.random(n) < 0.5, rng.standard_normal((n, 3)))

    def __getitem__(self, part: slice) -> Choices:
        return Choices(self.offset[part], self.mirror[part], self.colour[part])
