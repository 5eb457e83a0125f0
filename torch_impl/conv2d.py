"""2-D convolution, by ``torch.nn.functional.conv2d``; mirrors ``scratch/conv2d.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward"]


def forward(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> tuple[torch.Tensor, Cache]:
    """Slide ``weight`` (OC,C/groups,KH,KW) over ``x`` (N,C,H,W) or (C,H,W)."""

    def conv2d(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)

    return autograd.forward("conv2d", conv2d, x=x, weight=weight, bias=bias)


def backward(grad_out: torch.Tensor, cache: Cache, *, need_grad_x: bool = True) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x, grad_weight, grad_bias)``, None for an absent bias or an unneeded grad_x."""
    return autograd.backward(grad_out, cache, need_grad_x=need_grad_x)
