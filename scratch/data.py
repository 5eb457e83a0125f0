"""Real input, with nothing to download: photographs and digits that come with scikit-image and scikit-learn.

The paper's preprocessing by hand (Krizhevsky, Sutskever, Hinton 2012, sections 2 and 4.1): the shorter side is scaled to 256
pixels, the central 256×256 are kept, the mean image is subtracted, and the network sees crops of 224×224 or their mirror
images. Pixels keep their scale, 0 to 255 before the mean is taken away: the paper's constants for response normalization
would do almost nothing to pixels from 0 to 1.
"""

from __future__ import annotations

import importlib
import math
from types import ModuleType
from typing import Any

import numpy as np

from scratch.core import checks

# Names in skimage.data; who made the picture and on what terms, as scikit-image's documentation has it.
PHOTOGRAPHS = (
    "astronaut",  # Eileen Collins; NASA, public domain
    "chelsea",  # a cat; Stéfan van der Walt, CC0
    "coffee",  # a cup; Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0
    "rocket",  # Falcon 9 with DSCOVR; SpaceX, public domain
    "hubble_deep_field",  # galaxies; NASA, public domain
    "immunohistochemistry",  # colonic glands; Center for Microscopy and Molecular Imaging, no known copyright restrictions
    "retina",  # fundus of an eye; Mikael Häggström, CC0
)


def photographs() -> dict[str, np.ndarray]:
    """The photographs by name, each (H,W,3), uint8.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
    """
    data = _optional("skimage.data", "scikit-image")
    return {name: getattr(data, name)() for name in PHOTOGRAPHS}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 handwritten digits of scikit-learn, scaled up from 8×8, and which digit each one is.

    Returns:
        images (1797,1,28,28), float32 from 0 to 1, and labels (1797,), int64.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    bunch = _optional("sklearn.datasets", "scikit-learn").load_digits()
    images = resize(bunch.images[:, np.newaxis] / 16, (28, 28))
    return images.astype(np.float32), bunch.target.astype(np.int64)


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale images (…,H,W) to (…,*size), by weighted means: first of rows, then of columns.

    A new pixel is the mean of the old ones around its place, with weights that fall off linearly to 0: within one old pixel
    when scaling up, which is bilinear interpolation, and within one *new* pixel when scaling down, so that every old
    pixel counts and none aliases. Same as ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)``.

    Raises:
        TypeError: ``images`` is not a float32 or float64 array, or ``size`` not ints.
        ValueError: ``images`` has fewer than 2 axes, or a size is below 1.
    """
    images = checks.array("resize", "images", images)
    height, width = checks.pair("resize", "size", size, low=1)
    if images.ndim < 2 or 0 in images.shape[-2:]:
        raise ValueError(f"resize: images must have shape (…,H,W) with H and W of at least 1, got {images.shape}")
    H, W = images.shape[-2:]
    # (height,H) @ (…,H,W) @ (W,width) -> (…,height,width)
    out: np.ndarray = _weights(H, height, images.dtype) @ images @ _weights(W, width, images.dtype).T
    return out


def _weights(old: int, new: int, dtype: np.dtype[Any]) -> np.ndarray:
    """(new,old): how much of every old pixel a new one is made of; every row adds up to 1."""
    scale = old / new
    centre = (np.arange(new) + 0.5) * scale  # of the new pixels, in old ones; pixel i covers i … i+1
    distance = np.abs(np.arange(old) + 0.5 - centre[:, np.newaxis])
    weights: np.ndarray = np.maximum(0, 1 - distance / max(1, scale))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.astype(dtype)


def prepare(photograph: np.ndarray) -> np.ndarray:
    """(H,W,3) uint8 to (3,256,256) float64 from 0 to 255: shorter side to 256, then the middle.

    Raises:
        ValueError: ``photograph`` is something else.
    """
    shape, dtype = np.shape(photograph), getattr(photograph, "dtype", type(photograph).__name__)
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise ValueError(f"prepare: photograph must have shape (H,W,3) and dtype uint8, got {shape} and {dtype}")
    H, W, _ = shape
    shorter = min(H, W)
    image = photograph.transpose(2, 0, 1).astype(np.float64)
    return centre_crop(resize(image, (256 * H // shorter, 256 * W // shorter)), 256)


def centre_crop(images: np.ndarray, size: int) -> np.ndarray:
    """The middle (…,size,size) of images (…,H,W).

    Raises:
        ValueError: the images are smaller than that.
    """
    if min(images.shape[-2:]) < size:
        raise ValueError(f"centre_crop: images must be at least {size} high and wide, got {images.shape}")
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


def batch(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``n`` different crops of the photographs as the paper's network is trained on them, and which photograph each shows.

    The photographs take turns; of each one, crops and mirror images come in an order drawn from ``seed``, none of them twice.

    Returns:
        images (n,3,224,224), float32, the mean image subtracted, and labels (n,), int64, indices into ``PHOTOGRAPHS``.

    Raises:
        TypeError: ``n`` is not an int.
        ValueError: ``n`` is below 1, or there are not so many different crops.
        ModuleNotFoundError: scikit-image is not installed.
    """
    n = checks.integer("batch", "n", n, low=1)
    crops = (33, 33, 2)  # of a photograph: 256 - 224 + 1 places down and across, and the mirror image
    if n > len(PHOTOGRAPHS) * math.prod(crops):
        raise ValueError(f"batch: n must be at most {len(PHOTOGRAPHS) * math.prod(crops)}, the number of crops, got {n}")
    prepared = np.stack([prepare(photograph) for photograph in photographs().values()])
    prepared -= prepared.mean(axis=0)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(math.prod(crops)) for _ in PHOTOGRAPHS]
    labels = np.arange(n) % len(PHOTOGRAPHS)
    images = np.empty((n, 3, 224, 224), np.float32)
    for i, label in enumerate(labels):
        top, left, mirror = np.unravel_index(orders[label][i // len(PHOTOGRAPHS)], crops)
        crop = prepared[label, :, top : top + 224, left : left + 224]
        images[i] = crop[..., ::-1] if mirror else crop
    return images, labels


def _optional(module: str, distribution: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{distribution}, which brings the photographs or digits, is not installed: pip install 'alexnet-from-scratch[data]'"
        ) from error
