"""Each network's input, first layer and output: as much as flags and files of weights have to know.

The networks themselves are on both sides, in ``alexnet.py``; a test compares this table with theirs.
"""

from __future__ import annotations

from typing import NamedTuple


class Variant(NamedTuple):
    """The sizes around a network, and those of its first layer."""

    filters: tuple[int, int, int, int]  # OC C KH KW of the first layer
    size: int = 224  # height and width of an image
    canvas: int = 256  # height and width of the mean image (``Preprocessing.mean``)
    hidden: int = 4096  # inputs of the last layer, which has an output for each class

    @property
    def channels(self) -> int:
        """The channels of an image."""
        return self.filters[1]


VARIANTS = {
    "one_tower": Variant((96, 3, 11, 11)),
    "paper": Variant((96, 3, 11, 11)),
    "torchvision": Variant((64, 3, 11, 11)),
    "mini": Variant((32, 1, 5, 5), size=28, canvas=28, hidden=256),
}
