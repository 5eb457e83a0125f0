"""From pictures to a network's input: the same pixels as in ``scratch/data.py``, which describes every step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from alexnet_from_scratch.arguments import integer, iterator, require_flag
from alexnet_from_scratch.data.choices import Choices, require_choices
from alexnet_from_scratch.data.datasets import PHOTOGRAPHS, photographs

__all__ = ["Preprocessing", "batch", "centre_crop", "mean_probabilities", "prepare", "resize", "scaled"]

SMALL = 64
LUMA = (0.299, 0.587, 0.114)
PIXELS = 256
COLOUR_NOISE = 0.1


@dataclass(frozen=True)
class Preprocessing:
    """Turns images into a network's input: uint8, (H,W) or (H,W,3) of any size, to float32, (N,C,size,size), on the CPU."""

    size: int
    mirror: bool
    mean: torch.Tensor  # (C,S,S), float64
    colour: torch.Tensor  # (C,C), float64

    def __post_init__(self) -> None:
        S = scaled(self.size)
        require_flag("Preprocessing", "mirror", self.mirror)
        for name in ("mean", "colour"):
            _require_tensor("Preprocessing", name, getattr(self, name))
        if self.mean.shape not in ((1, S, S), (3, S, S)) or self.colour.shape != 2 * self.mean.shape[:1]:
            raise ValueError(
                f"Preprocessing: for size {self.size}, mean must have shape (C,{S},{S}) and colour (C,C) with C 1 or 3, "
                f"got {tuple(self.mean.shape)} and {tuple(self.colour.shape)}"
            )
        for name, numbers in (("mean", self.mean), ("colour", self.colour)):
            low, high = float(numbers.min()), float(numbers.max())
            if not (low >= -PIXELS and high <= PIXELS):  # also catches NaN
                raise ValueError(
                    f"Preprocessing: {name} must lie between {-PIXELS} and {PIXELS}, got numbers from {low:g} to {high:g}"
                )

    @classmethod
    def fit(cls, images: Iterable[np.ndarray], *, size: int, channels: int, mirror: bool) -> Preprocessing:
        """The preprocessing for images like these, each counted with equal weight."""
        if integer("Preprocessing.fit", "channels", channels) not in (1, 3):
            raise ValueError(f"Preprocessing.fit: channels must be 1 or 3, got {channels!r}")
        S, count, channels = scaled(size), 0, int(channels)
        total = torch.zeros(channels, S, S, dtype=torch.float64)
        products = torch.zeros(channels, channels, dtype=torch.float64)
        for image in iterator("Preprocessing.fit", "images", images):
            pixels = prepare(image, S, channels)
            total += pixels
            pixels = pixels.flatten(1)
            products += pixels @ pixels.T
            count += 1
        if count == 0:
            raise ValueError("Preprocessing.fit: there must be at least one image, got none")
        mean = total / count
        if size < SMALL:
            return cls(size, mirror, mean, torch.zeros_like(products))
        centre = mean.mean(dim=(1, 2))
        covariance = products / (count * S * S) - centre.outer(centre)
        variances, directions = torch.linalg.eigh(covariance)
        colour = directions * variances.clamp(min=0).sqrt()
        colour *= directions.gather(0, directions.abs().argmax(dim=0, keepdim=True)).sign()
        return cls(size, mirror, mean, colour)

    def training(self, images: Sequence[np.ndarray], choices: Choices) -> torch.Tensor:
        """N images as the network is trained on them, altered at random as ``choices`` say: (N,C,size,size), float32."""
        images = list(iterator("Preprocessing.training", "images", images))
        require_choices(choices, len(images))
        out = torch.empty(len(images), len(self.mean), self.size, self.size)
        for i, image in enumerate(images):
            shift = self.colour @ torch.from_numpy(COLOUR_NOISE * choices.colour[i, : len(self.mean)])
            canvas = self._canvas(image, shift)
            top, left = (int(offset * (canvas.shape[-1] - self.size + 1)) for offset in choices.offset[i])
            crop = canvas[:, top : top + self.size, left : left + self.size]
            out[i] = crop.flip(-1) if self.mirror and choices.mirror[i] else crop
        return out

    def evaluation(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """N images as the network is tested on them, the centre crop of each: (N,C,size,size), float32."""
        images = list(iterator("Preprocessing.evaluation", "images", images))
        out = torch.empty(len(images), len(self.mean), self.size, self.size)
        for i, image in enumerate(images):
            out[i] = centre_crop(self._canvas(image), self.size)
        return out

    def ten_crops(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Ten crops of each image: the four corners, the middle, and the mirror image of each.

        (N,10,C,size,size), float32; (N,5,C,size,size) without ``mirror``.
        """
        images = list(iterator("Preprocessing.ten_crops", "images", images))
        out = torch.empty(len(images), 10 if self.mirror else 5, len(self.mean), self.size, self.size)
        for i, image in enumerate(images):
            canvas = self._canvas(image)
            end = canvas.shape[-1] - self.size
            for j, (top, left) in enumerate([(0, 0), (0, end), (end, 0), (end, end), (end // 2, end // 2)]):
                out[i, j] = canvas[:, top : top + self.size, left : left + self.size]
            if self.mirror:
                out[i, 5:] = out[i, :5].flip(-1)
        return out

    def state_dict(self) -> dict[str, np.ndarray]:
        """The preprocessing as arrays, the same as scratch's."""
        return {
            "size": np.array(self.size, np.int64),
            "mirror": np.array(self.mirror),
            "mean": self.mean.numpy(),
            "colour": self.colour.numpy(),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, np.ndarray]) -> Preprocessing:
        """The preprocessing that :meth:`state_dict` was called on, torch_impl's or scratch's."""
        if not isinstance(state, Mapping):
            raise TypeError(f"Preprocessing: state must be a mapping of names to arrays, got {type(state).__name__}")
        for name, array in state.items():
            if not isinstance(array, np.ndarray):
                raise TypeError(f"Preprocessing: {name} must be a NumPy array, got {type(array).__name__}")
        shapes = {name: array.shape for name, array in state.items()}
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
        mean, colour = (torch.from_numpy(state[name].astype(np.float64)) for name in ("mean", "colour"))
        return cls(size, mirror, mean, colour)

    def _canvas(self, image: np.ndarray, shift: torch.Tensor | None = None) -> torch.Tensor:
        C, S, _ = self.mean.shape
        pixels = prepare(image, S, C) - self.mean
        if shift is not None:
            pixels += shift[:, None, None]
        border = self.size // 14 if self.size < SMALL else 0
        return F.pad(pixels, (border, border, border, border))


def _require_tensor(where: str, name: str, value: Any) -> None:
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{where}: {name} must be a tensor, got {type(value).__name__}")


def scaled(size: int) -> int:
    """The size to which images are scaled for a network with input ``size``."""
    size = integer("Preprocessing", "size", size, low=1)
    return size if size < SMALL else size * 8 // 7


def mean_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Logits (N,crops,classes) to mean probabilities (N,classes)."""
    _require_tensor("mean_probabilities", "logits", logits)
    if logits.ndim != 3:
        raise ValueError(f"mean_probabilities: logits must have shape (N,crops,classes), got {tuple(logits.shape)}")
    return F.softmax(logits, dim=2).mean(dim=1)


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Scale images (…,H,W) to (…,*size), bilinearly; when scaling down, every old pixel counts."""
    _require_tensor("resize", "images", images)
    height, width = (
        integer("resize", "size", number, low=1)
        for number in (size if isinstance(size, (tuple, list)) and len(size) == 2 else (size, size))
    )
    if images.ndim < 2 or 0 in images.shape[-2:]:
        raise ValueError(f"resize: images must have shape (…,H,W) with H and W of at least 1, got {tuple(images.shape)}")
    *leading, H, W = images.shape
    resized = F.interpolate(images.reshape(-1, 1, H, W), (height, width), mode="bilinear", antialias=True)
    return resized.reshape(*leading, height, width)


def prepare(image: np.ndarray, size: int = 256, channels: int = 3) -> torch.Tensor:
    """The middle square of an image (H,W) or (H,W,3), uint8, scaled: (channels,size,size), float64 from 0 to 255."""
    if integer("prepare", "channels", channels) not in (1, 3):
        raise ValueError(f"prepare: channels must be 1 or 3, got {channels!r}")
    if isinstance(image, np.ma.MaskedArray):
        raise TypeError("prepare: image must be a plain NumPy array, got MaskedArray")
    integer("prepare", "size", size, low=1)
    shape, dtype = (image.shape, image.dtype) if isinstance(image, np.ndarray) else ((), type(image).__name__)
    if not (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)) or 0 in shape or dtype != np.uint8:
        raise ValueError(f"prepare: image must have shape (H,W) or (H,W,3) and dtype uint8, got {shape} and {dtype}")
    pixels = torch.from_numpy(np.array(image, order="C"))  # a copy: an array read from a file may be read-only
    planes = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    square = centre_crop(planes, min(planes.shape[1:])).to(torch.float64)
    if channels < len(square):
        red, green, blue = square
        square = (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[None]
    resized = resize(square, (size, size))
    return resized.expand(channels, size, size)


def centre_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle (…,size,size) of images (…,H,W)."""
    _require_tensor("centre_crop", "images", images)
    integer("centre_crop", "size", size, low=1)
    if images.ndim < 2 or min(images.shape[-2:]) < size:
        raise ValueError(f"centre_crop: images must be at least {size} high and wide, got {tuple(images.shape)}")
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


def batch(n: int, *, seed: int = 0, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n,3,224,224), float32, the mean image subtracted, and labels (n,), int64. The same seed gives scratch's."""
    crops = (33, 33, 2)  # per photograph: 256 - 224 + 1 offsets down and across, and the mirror image
    n, seed = integer("batch", "n", n), integer("batch", "seed", seed, low=0)
    if not 1 <= n <= len(PHOTOGRAPHS) * math.prod(crops):
        raise ValueError(f"batch: n must be from 1 to {len(PHOTOGRAPHS) * math.prod(crops)}, the number of crops, got {n}")
    prepared = torch.stack([prepare(photograph) for photograph in photographs().values()])
    prepared -= prepared.mean(dim=0)
    rng = np.random.default_rng(seed)  # NumPy's, not torch's, so that scratch gives the same crops
    orders = [rng.permutation(math.prod(crops)) for _ in PHOTOGRAPHS]
    labels = torch.arange(n) % len(PHOTOGRAPHS)
    images = torch.empty(n, 3, 224, 224)
    for i, label in enumerate(labels.tolist()):
        top, left, mirror = (int(index) for index in np.unravel_index(orders[label][i // len(PHOTOGRAPHS)], crops))
        crop = prepared[label, :, top : top + 224, left : left + 224]
        images[i] = crop.flip(-1) if mirror else crop
    return images.to(device), labels.to(device)
