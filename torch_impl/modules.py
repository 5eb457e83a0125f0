"""torch.nn's classes, which ``scratch/modules.py`` mirrors.

Dropout also takes a mask, so that scratch and torch_impl can drop the same elements.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import (
    AdaptiveAvgPool2d,
    Conv2d,
    CrossEntropyLoss,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    Module,
    Parameter,
    ReLU,
    Sequential,
)

from torch_impl.core import autograd

__all__ = [
    "AdaptiveAvgPool2d",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
]


class Dropout(nn.Dropout):
    """``torch.nn.Dropout``; ``mask``, if not None, says what is kept: bool, of the input's shape."""

    mask: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mask is None or not self.training:
            return super().forward(x)
        autograd.require_tensor("Dropout", "mask", self.mask)
        noise = self.mask.to(x.dtype).div(1 - self.p) if self.p < 1 else torch.zeros_like(x)
        return x * noise  # as in torch: a dropped NaN stays NaN
