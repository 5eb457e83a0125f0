"""2-D max pooling, by ``torch.nn.functional.max_pool2d``; mirrors ``scratch/max_pool2d.py``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward"]


def forward(
    x: torch.Tensor,
    *,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Any, Cache]:
    """Take the maximum under every window of ``x`` (N,C,H,W) or (C,H,W): ``out``, or with return_indices ``(out, indices)``."""
    indices: list[torch.Tensor] = []

    def max_pool2d(x: torch.Tensor) -> torch.Tensor:
        out, index = F.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode, return_indices=True)
        indices.append(index)
        return out

    out, cache = autograd.forward("max_pool2d", max_pool2d, x=x)
    return ((out, indices[0]) if return_indices else out), cache


def backward(grad_out: torch.Tensor, cache: Cache) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x,)``: every gradient goes to the cell that was the maximum."""
    return autograd.backward(grad_out, cache)
