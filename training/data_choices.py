"""The random decisions of augmentation. They are drawn once, here, for both sides; what follows from them is in ``data.py``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Choices:
    """How n images are to be altered.

    Attributes:
        place: (n,2), float64 in [0,1), where to crop: how far down and across, of the ways there are.
        mirror: (n,), bool, whether to show the mirror image (if that shows the same class).
        colour: (n,3), float64 from N(0,1), how far to go along each of the colours' principal components.
    """

    place: np.ndarray
    mirror: np.ndarray
    colour: np.ndarray

    @classmethod
    def draw(cls, n: int, rng: np.random.Generator) -> Choices:
        """Choices for ``n`` images."""
        return cls(rng.random((n, 2)), rng.random(n) < 0.5, rng.standard_normal((n, 3)))

    def __getitem__(self, part: slice) -> Choices:
        return Choices(self.place[part], self.mirror[part], self.colour[part])
