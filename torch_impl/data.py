"""Real input as tensors, the same pixels as in ``scratch/data.py``, where pictures and preprocessing are described."""

from __future__ import annotations

import importlib
import math
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

PHOTOGRAPHS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "hubble_deep_field",
    "immunohistochemistry",
    "retina",
)


def photographs() -> dict[str, torch.Tensor]:
    """The photographs by name, each (H,W,3), uint8."""
    data = _optional("skimage.data", "scikit-image")
    return {name: torch.from_numpy(getattr(data, name)()) for name in PHOTOGRAPHS}


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (1797,1,28,28), float32 from 0 to 1, and labels (1797,), int64."""
    bunch = _optional("sklearn.datasets", "scikit-learn").load_digits()
    images = resize(torch.from_numpy(bunch.images).unsqueeze(1) / 16, (28, 28))
    return images.to(torch.float32), torch.from_numpy(bunch.target).to(torch.int64)


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Scale images (…,H,W) to (…,*size), bilinearly, and so that every old pixel counts when scaling down."""
    *leading, H, W = images.shape
    resized = F.interpolate(images.reshape(-1, 1, H, W), size, mode="bilinear", antialias=True)
    return resized.reshape(*leading, *size)


def prepare(photograph: torch.Tensor) -> torch.Tensor:
    """(H,W,3) uint8 to (3,256,256) float64 from 0 to 255: shorter side to 256, then the middle."""
    H, W, _ = photograph.shape
    shorter = min(H, W)
    image = photograph.permute(2, 0, 1).to(torch.float64)
    return centre_crop(resize(image, (256 * H // shorter, 256 * W // shorter)), 256)


def centre_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle (…,size,size) of images (…,H,W)."""
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]


def batch(n: int, *, seed: int = 0, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n,3,224,224), float32, the mean image subtracted, and labels (n,), int64: scratch's own for the same seed."""
    crops = (33, 33, 2)  # of a photograph: 256 - 224 + 1 places down and across, and the mirror image
    if not 1 <= n <= len(PHOTOGRAPHS) * math.prod(crops):
        raise ValueError(f"batch: n must be from 1 to {len(PHOTOGRAPHS) * math.prod(crops)}, the number of crops, got {n}")
    prepared = torch.stack([prepare(photograph) for photograph in photographs().values()])
    prepared -= prepared.mean(dim=0)
    rng = np.random.default_rng(seed)  # NumPy's and not torch's, so that both sides show the same crops
    orders = [rng.permutation(math.prod(crops)) for _ in PHOTOGRAPHS]
    labels = torch.arange(n) % len(PHOTOGRAPHS)
    images = torch.empty(n, 3, 224, 224)
    for i, label in enumerate(labels.tolist()):
        top, left, mirror = (int(place) for place in np.unravel_index(orders[label][i // len(PHOTOGRAPHS)], crops))
        crop = prepared[label, :, top : top + 224, left : left + 224]
        images[i] = crop.flip(-1) if mirror else crop
    return images.to(device), labels.to(device)


def _optional(module: str, distribution: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{distribution}, which brings the photographs or digits, is not installed: pip install 'alexnet-from-scratch[data]'"
        ) from error
