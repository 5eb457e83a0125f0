"""2-D adaptive average pooling, by ``torch.nn.functional.adaptive_avg_pool2d``; mirrors ``scratch/adaptive_avg_pool2d.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward"]


def forward(x: torch.Tensor, *, output_size: int | tuple[int | None, int | None]) -> tuple[torch.Tensor, Cache]:
    """Take the mean over windows of ``x`` (N,C,H,W) or (C,H,W), laid out to give ``output_size``."""

    def adaptive_avg_pool2d(x: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(x, output_size)

    return autograd.forward("adaptive_avg_pool2d", adaptive_avg_pool2d, x=x)


def backward(grad_out: torch.Tensor, cache: Cache) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x,)``: every gradient spread evenly over its window."""
    return autograd.backward(grad_out, cache)
