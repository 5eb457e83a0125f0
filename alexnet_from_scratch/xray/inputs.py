"""Inputs of the X-rays: random incoming gradients, in sixteenths, and pieces of the photograph."""

from __future__ import annotations

import numpy as np

from alexnet_from_scratch.xray.photo import Photo

PIXELS = "The photograph: its red, green and blue. 0 is the middle of their scale."
GRAD_OUT = "The gradient that later layers send back: here drawn at random, in sixteenths."


def cotangent(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return drawn(np.random.default_rng([seed, 1]), shape)


def drawn(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Normally distributed numbers, rounded to sixteenths so that they are short to read."""
    return (np.round(16 * rng.normal(size=shape)) / 16).astype(np.float32)


def pieces(photo: Photo, size: int, count: int) -> np.ndarray:
    """(count,3,size,size): squares of the photograph. The first is its region; the next are smaller, with the same lower right
    corner.
    """
    top, left, side = photo.region
    step = side // count
    cuts = [photo._replace(region=(top + i * step // 2, left + i * step // 2, side - i * step // 2)) for i in range(count)]
    return np.stack([cut.pixels(size) for cut in cuts])
