"""The page's input: a few pixels of a photograph, as numbers that are easy to follow."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from alexnet_from_scratch.data.datasets import photographs
from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.text import shown
from scratch import data

EYE = (68, 48, 72)  # of the cat, in the prepared photograph
MIDDLE = (64, 64, 128)


class Photo(NamedTuple):
    """A photograph of 256×256 pixels, and the square of it that the page uses."""

    name: str
    image: np.ndarray  # (3,256,256), 0 to 255
    region: tuple[int, int, int]  # top, left, side
    path: Path | None  # None for the default

    @property
    def crop(self) -> str:
        """The region as ``--crop`` takes it; empty if it is the one that is used without."""
        return "" if self.region == _usual(self.path) else " ".join(map(str, self.region))

    def pixels(self, size: int) -> np.ndarray:
        """The square at ``size``·``size`` pixels: (3,size,size) float32, -1 to 1, each a multiple of 1/128.

        Raises:
            ValueError: ``size`` is outside 1 … 64.
        """
        if not 1 <= size <= 64:
            raise ValueError(f"size must lie between 1 and 64 pixels, got {size}")
        top, left, side = self.region
        square = data.resize(self.image[:, top : top + side, left : left + side], (size, size))
        return ((square.round() - 128) / 128).astype(np.float32)

    def as_the_trainer_reads_it(self, size: int) -> np.ndarray:
        """The photograph, uint8, as a trainer reads it for a network whose images are scaled to ``size``."""
        return photographs()["chelsea"] if self.path is None else read_image(self.path, size)

    def square(self, size: int) -> str:
        """The square at ``size``·``size`` pixels in its own colours, as a data URI."""
        shades = (128 * self.pixels(size) + 128).clip(0, 255).astype(np.uint8)
        return data_uri(Image.fromarray(shades.transpose(1, 2, 0)))

    def thumbnail(self) -> str:
        """The photograph with a frame around the square, as a data URI."""
        top, left, side = self.region
        picture = Image.fromarray(self.image.round().astype(np.uint8).transpose(1, 2, 0))
        ImageDraw.Draw(picture).rectangle((left, top, left + side, top + side), outline=(255, 255, 255), width=3)
        return data_uri(picture.resize((192, 192)), "JPEG")


def load(path: Path | None, region: tuple[int, int, int] | None) -> Photo:
    """The photograph at ``path``, or scikit-image's cat. Without ``region``, the page uses its middle, or the cat's eye.

    Raises:
        BrokenImageError: there is no image at ``path``.
        OSError: it cannot be read.
        ValueError: the region is not inside the photograph.
    """
    if path is None:
        name, pixels = "chelsea, scikit-image's cat", photographs()["chelsea"]
    else:
        name = shown(path.name)
        pixels = read_image(path, 256)
    top, left, side = region or _usual(path)
    if min(top, left) < 0 or side < 1 or max(top, left) + side > 256:
        raise ValueError(f"crop must be TOP LEFT SIDE within 256×256 pixels, got {top} {left} {side}")
    return Photo(name, data.prepare(pixels), (top, left, side), path)


def _usual(path: Path | None) -> tuple[int, int, int]:
    return EYE if path is None else MIDDLE


def data_uri(picture: Image.Image, kind: str = "PNG") -> str:
    """The picture as a data URI, to embed in a page."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
