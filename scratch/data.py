"""From pictures to a network's input: the paper's preprocessing and augmentation by hand.

Krizhevsky, Sutskever, Hinton 2012, sections 2 and 4.1. To train: the shorter side is scaled to 256 pixels, the central 256×256
are kept, the mean image is subtracted, all colours are shifted together along their principal components, and the network gets a
random 224×224 crop of the image or of its mirror image. To test: the centre crop, or ten crops whose probabilities are averaged.
Pixels keep their scale, 0 to 255 before the mean is subtracted: with pixels from 0 to 1, the paper's constants for response
normalization would have almost no effect.

Small images have no margin to crop. They are shifted by up to a fourteenth of their size, with a border of zeros, and keep their
colours.

``alexnet_from_scratch/data`` reads the files for both scratch and torch_impl. It shrinks large photographs by a whole factor,
to at least three times the size that :func:`prepare` makes. It also makes the random decisions (``choices.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alexnet_from_scratch.arguments import iterator
from alexnet_from_scratch.data.choices import Choices, require_choices
from alexnet_from_scratch.data.datasets import PHOTOGRAPHS, photographs
from scratch import softmax
from scratch.compiled.products import matmul
from scratch.core import checks

__all__ = ["Preprocessing", "batch", "centre_crop", "mean_probabilities", "prepare", "resize", "scaled"]

SMALL = 64  # below this size an image is shifted, not cropped
LUMA = (0.299, 0.587, 0.114)  # the weights of red, green and blue in brightness (ITU-R BT.601)
PIXELS = 256  # bound on numbers computed from pixels of 0 to 255; much larger ones would overflow in the network
COLOUR_NOISE = 0.1  # the paper's standard deviation of the colour shift, in standard deviations of the pixels


@dataclass(frozen=True)
class Preprocessing:
    """Turns images into a network's input: uint8, (H,W) or (H,W,3) of any size, to float32, (N,C,size,size).

    Attributes:
        size: height and width of the network's input.
        mirror: whether mirror images show the same class and may be used in training and testing.
        mean: (C,S,S), float64, the mean image, which is subtracted from images scaled to S×S. S is 8/7 of ``size``, as the
            paper's 256 is 8/7 of 224; for small images S is ``size``.
        colour: (C,C), float64. Column i is the i-th principal component of the pixels' colours; its length is the colours'
            standard deviation along it. Section 4.1 says eigenvalue, which is the variance. For pixels from 0 to 255 the
            variance is in the thousands; a shift by a tenth of it would destroy the picture. The authors' program uses the
            standard deviation, as here.

    Raises:
        TypeError: an attribute is of another kind.
        ValueError: the arrays do not fit together, or hold numbers that pixels from 0 to 255 cannot give.
    """

    size: int
    mirror: bool
    mean: np.ndarray
    colour: np.ndarray

    def __post_init__(self) -> None:
        S = scaled(self.size)
        checks.flag("Preprocessing", "mirror", self.mirror)
        for name in ("mean", "colour"):
            checks.array("Preprocessing", name, getattr(self, name))
        if self.mean.shape not in ((1, S, S), (3, S, S)) or self.colour.shape != 2 * self.mean.shape[:1]:
            raise ValueError(
                f"Preprocessing: for size {self.size}, mean must have shape (C,{S},{S}) and colour (C,C) with C 1 or 3, "
                f"got {self.mean.shape} and {self.colour.shape}"
            )
        for name, numbers in (("mean", self.mean), ("colour", self.colour)):
            low, high = float(numbers.min()), float(numbers.max())
            if not (low >= -PIXELS and high <= PIXELS):  # also true for NaN
                raise ValueError(
                    f"Preprocessing: {name} must lie between {-PIXELS} and {PIXELS}, got numbers from {low:g} to {high:g}"
                )

    @classmethod
    def fit(cls, images: Iterable[np.ndarray], *, size: int, channels: int, mirror: bool) -> Preprocessing:
        """The preprocessing for images like these, which all count equally.

        Args:
            images: the images that the network is trained on, or a fair sample.
            size: height and width of the network's input.
            channels: 1, for grey, or 3.
            mirror: whether mirror images show the same class.

        Raises:
            TypeError: ``channels`` or ``size`` is not an int, or ``images`` not iterable.
            ValueError: ``channels`` is neither 1 nor 3, there are no images, or one is not uint8 of shape (H,W) or (H,W,3).
        """
        if checks.integer("Preprocessing.fit", "channels", channels) not in (1, 3):
            raise ValueError(f"Preprocessing.fit: channels must be 1 or 3, got {channels!r}")
        S, count = scaled(size), 0
        total, products = np.zeros((channels, S, S)), np.zeros((channels, channels))
        for image in iterator("Preprocessing.fit", "images", images):
            pixels = prepare(image, S, channels)
            total += pixels
            pixels = pixels.reshape(channels, -1)
            products += matmul(pixels, pixels.T)
            count += 1
        if count == 0:
            raise ValueError("Preprocessing.fit: there must be at least one image, got none")
        mean = total / count
        if size < SMALL:
            return cls(size, mirror, mean, np.zeros_like(products))
        centre = mean.mean(axis=(1, 2))
        covariance = products / (count * S * S) - np.outer(centre, centre)
        variances, directions = np.linalg.eigh(covariance)
        colour = directions * np.sqrt(np.maximum(variances, 0))
        # An eigenvector's sign is arbitrary. Its largest component is made positive, so that scratch and torch_impl shift the
        # same way.
        colour *= np.sign(np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[np.newaxis], axis=0))
        return cls(size, mirror, mean, colour)

    def training(self, images: Sequence[np.ndarray], choices: Choices) -> np.ndarray:
        """N images as training uses them, altered at random as ``choices`` say: (N,C,size,size), float32.

        Raises:
            TypeError: ``images`` is not iterable, or ``choices`` not Choices.
            ValueError: an image is not uint8 of shape (H,W) or (H,W,3), or there are not as many choices as images.
        """
        images = list(iterator("Preprocessing.training", "images", images))
        require_choices(choices, len(images))
        out = np.empty((len(images), len(self.mean), self.size, self.size), np.float32)
        for i, image in enumerate(images):
            shift = self.colour @ (COLOUR_NOISE * choices.colour[i, : len(self.mean)])
            canvas = self._canvas(image, shift)
            top, left = (int(offset * (canvas.shape[-1] - self.size + 1)) for offset in choices.offset[i])
            crop = canvas[:, top : top + self.size, left : left + self.size]
            out[i] = crop[..., ::-1] if self.mirror and choices.mirror[i] else crop
        return out

    def evaluation(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """N images as testing uses them, the centre crop of each: (N,C,size,size), float32.

        Raises:
            TypeError: ``images`` is not iterable.
            ValueError: an image is not uint8 of shape (H,W) or (H,W,3).
        """
        images = list(iterator("Preprocessing.evaluation", "images", images))
        out = np.empty((len(images), len(self.mean), self.size, self.size), np.float32)
        for i, image in enumerate(images):
            out[i] = centre_crop(self._canvas(image), self.size)
        return out

    def ten_crops(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Ten crops of each image: the four corners, the middle, and the mirror image of each. (N,10,C,size,size), float32.

        Without ``mirror`` there are only five: (N,5,C,size,size). :func:`mean_probabilities` averages what a network predicts
        for them.

        Raises:
            TypeError: ``images`` is not iterable.
            ValueError: an image is not uint8 of shape (H,W) or (H,W,3).
        """
        images = list(iterator("Preprocessing.ten_crops", "images", images))
        out = np.empty((len(images), 10 if self.mirror else 5, len(self.mean), self.size, self.size), np.float32)
        for i, image in enumerate(images):
            canvas = self._canvas(image)
            end = canvas.shape[-1] - self.size
            for j, (top, left) in enumerate([(0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2)]):
                out[i, j] = canvas[:, top : top + self.size, left : left + self.size]
            if self.mirror:
                out[i, 5:] = out[i, :5, ..., ::-1]
        return out

    def state_dict(self) -> dict[str, np.ndarray]:
        """All attributes as arrays, to be stored with a network's weights."""
        return {
            "size": np.array(self.size, np.int64),
            "mirror": np.array(self.mirror),
            "mean": self.mean,
            "colour": self.colour,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray]) -> Preprocessing:
        """The preprocessing that :meth:`state_dict` was called on.

        Raises:
            TypeError: ``state`` is not a mapping, or a value is not a plain array.
            ValueError: names, shapes or types are wrong, or the numbers are impossible.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"Preprocessing: state must be a mapping of names to arrays, got {type(state).__name__}")
        shapes = {name: checks.plain("Preprocessing", name, array).shape for name, array in state.items()}
        numbers = dict.fromkeys(("size", "mirror"), ())
        if not (set(shapes) == {*numbers, "mean", "colour"} and shapes.items() >= numbers.items()):
            raise ValueError(
                f"Preprocessing: state must have the numbers size and mirror and the arrays mean and colour, got {shapes}"
            )
        size, mirror = (state[name].item() for name in numbers)
        if type(size) is not int or type(mirror) is not bool:
            raise ValueError(f"Preprocessing: size must be an int and mirror a bool, got {size} and {mirror}")
        for name in ("mean", "colour"):
            if state[name].dtype.kind not in "fiu":
                raise ValueError(f"Preprocessing: {name} must be real numbers, got {state[name].dtype}")
        mean, colour = (state[name].astype(np.float64) for name in ("mean", "colour"))
        return cls(size, mirror, mean, colour)

    def _canvas(self, image: np.ndarray, shift: np.ndarray | None = None) -> np.ndarray:
        """The image to crop, (C,S,S): minus the mean, with shifted colours; small images have a border of zeros."""
        C, S, _ = self.mean.shape
        pixels: np.ndarray = prepare(image, S, C) - self.mean
        if shift is not None:
            pixels += shift[:, np.newaxis, np.newaxis]
        if self.size >= SMALL:
            return pixels
        border = self.size // 14
        canvas = np.zeros((C, S + 2 * border, S + 2 * border))
        canvas[:, border : border + S, border : border + S] = pixels
        return canvas


def scaled(size: int) -> int:
    """The size to which images are scaled for a network with input ``size``: 256 for 224; small images are not cropped.

    Raises:
        TypeError: ``size`` is not an int.
        ValueError: ``size`` is below 1.
    """
    size = checks.integer("Preprocessing", "size", size, low=1)
    return size if size < SMALL else size * 8 // 7


def mean_probabilities(logits: np.ndarray) -> np.ndarray:
    """Average a network's predictions over several crops of an image: logits (N,crops,classes) to probabilities (N,classes).

    Raises:
        TypeError: ``logits`` is not a float32 or float64 array.
        ValueError: ``logits`` does not have three axes.
    """
    logits = checks.array("mean_probabilities", "logits", logits)
    if logits.ndim != 3:
        raise ValueError(f"mean_probabilities: logits must have shape (N,crops,classes), got {logits.shape}")
    probabilities, _ = softmax.forward(logits, dim=2)
    mean: np.ndarray = probabilities.mean(axis=1)
    return mean


def resize(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale images (…,H,W) to (…,*size), by weighted means: first of rows, then of columns.

    A new pixel is the mean of the old ones around its position, with weights that fall off linearly to 0: within one old pixel
    when scaling up, which is bilinear interpolation, and within one *new* pixel when scaling down, so that every old pixel counts
    and there is no aliasing. Same as ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)``.

    Raises:
        TypeError: ``images`` is not a float32 or float64 array, or ``size`` not ints.
        ValueError: ``images`` has fewer than 2 axes, or a size is below 1 or too large for memory.
    """
    images = checks.array("resize", "images", images)
    height, width = checks.pair("resize", "size", size, low=1)
    if images.ndim < 2 or 0 in images.shape[-2:]:
        raise ValueError(f"resize: images must have shape (…,H,W) with H and W of at least 1, got {images.shape}")
    checks.room("resize", "size", size, "the images", (*images.shape[:-2], height, width), images.dtype)
    for axis, length in ((-2, height), (-1, width)):
        if images.shape[axis] != length:
            images = _resize_axis(images, axis, length)
    return images


def _resize_axis(images: np.ndarray, axis: int, new: int) -> np.ndarray:
    old = images.shape[axis]
    scale = old / new
    reach = max(1, scale)
    centre = (np.arange(new) + 0.5) * scale  # of the new pixels, in old pixels; old pixel i covers i … i+1
    first = np.ceil(centre - reach - 0.5)  # the first old pixel whose centre is within reach
    index = first[:, np.newaxis] + np.arange(int(2 * reach) + 1)  # (new,taps): all pixels within reach, and some of weight 0
    weights = np.maximum(0, 1 - np.abs(index + 0.5 - centre[:, np.newaxis]) / reach)
    weights[(index < 0) | (index >= old)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    weights, index = weights.astype(images.dtype), index.clip(0, old - 1).astype(np.intp)

    along = (slice(None),) + (np.newaxis,) * (-axis - 1)  # puts a column of ``weights`` along ``axis``
    out = np.zeros((*images.shape[:axis], new, *images.shape[axis:][1:]), images.dtype)
    for tap in range(weights.shape[1]):
        out += images.take(index[:, tap], axis) * weights[:, tap][along]
    return out


def prepare(image: np.ndarray, size: int = 256, channels: int = 3) -> np.ndarray:
    """The central square of an image (H,W) or (H,W,3), uint8, scaled: (channels,size,size), float64 from 0 to 255.

    The paper scales first and then crops. Cropping first gives the same except for the outermost pixels. It also scales no
    pixels that are then thrown away; a very long image, scaled, might not fit into memory.

    Raises:
        TypeError: ``size`` or ``channels`` is not an int, or ``image`` is an array of a subclass such as a masked array.
        ValueError: ``image`` is something else, ``size`` is below 1, or ``channels`` is neither 1 nor 3.
    """
    if checks.integer("prepare", "channels", channels) not in (1, 3):
        raise ValueError(f"prepare: channels must be 1 or 3, got {channels}")
    if isinstance(image, np.ndarray):
        checks.plain("prepare", "image", image)
    shape, dtype = (image.shape, image.dtype) if isinstance(image, np.ndarray) else ((), type(image).__name__)
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape or dtype != np.uint8:
        raise ValueError(f"prepare: image must have shape (H,W) or (H,W,3) and dtype uint8, got {shape} and {dtype}")
    image = np.asarray(image)  # a matrix keeps two axes
    planes = image[np.newaxis] if image.ndim == 2 else image.transpose(2, 0, 1)
    square = centre_crop(planes, min(planes.shape[1:])).astype(np.float64)
    if channels < len(square):
        red, green, blue = square
        square = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[np.newaxis]
    return resize(square, (size, size)).repeat(channels // len(square), axis=0)


def centre_crop(images: np.ndarray, size: int) -> np.ndarray:
    """The central (…,size,size) of images (…,H,W).

    Raises:
        TypeError: ``images`` is not a plain array, or ``size`` not an int.
        ValueError: the images are smaller than ``size``, or ``size`` is below 1.
    """
    checks.plain("centre_crop", "images", images)
    size = checks.integer("centre_crop", "size", size, low=1)
    if images.ndim < 2 or min(images.shape[-2:]) < size:
        raise ValueError(f"centre_crop: images must be at least {size} high and wide, got {images.shape}")
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


def batch(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``n`` different crops of the photographs, as the paper trains on them, and the index of each crop's photograph.

    The photographs are used in rotation. The crops and mirror images of each come in an order drawn from ``seed``, none twice.

    Returns:
        images (n,3,224,224), float32, the mean image subtracted, and labels (n,), int64, indices into ``PHOTOGRAPHS``.

    Raises:
        TypeError: ``n`` or ``seed`` is not an int.
        ValueError: ``n`` is below 1, or more than the number of different crops; ``seed`` is below 0.
        ModuleNotFoundError: scikit-image is not installed.
    """
    n = checks.integer("batch", "n", n, low=1)
    seed = checks.integer("batch", "seed", seed, low=0)
    crops = (33, 33, 2)  # of a photograph: 256 - 224 + 1 positions down and across, each also mirrored
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
