"""What each network sees, begins with and ends with: as much of it as flags and files of weights have to know.

The networks themselves are on both sides, in ``alexnet.py``; a test holds this table against theirs.
"""

from __future__ import annotations

from typing import NamedTuple


class Variant(NamedTuple):
    """The sizes around a network, and its first layer's."""

    filters: tuple[int, int, int, int]  # OC C KH KW of the first layer
    size: int = 224  # height and width of an image
    canvas: int = 256  # height and width of the mean image (``Preprocessing.mean``)
    hidden: int = 4096  # inputs of the last layer, which has an output for each class

    @property
    def channels(self) -> int:
        """Of an image."""
        return self.filters[1]


VARIANTS = {
    "one_tower": Variant((96, 3, 11, 11)),
    "paper": Variant((96, 3, 11, 11)),
    "torchvision": Variant((64, 3, 11, 11)),
    "mini": Variant((32, 1, 5, 5), size=28, canvas=28, hidden=256),
}
