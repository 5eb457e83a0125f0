"""Linear (fully connected) layer, by ``torch.nn.functional.linear``; mirrors ``scratch/linear.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward"]


def forward(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> tuple[torch.Tensor, Cache]:
    """Multiply every row of ``x`` (…,IN) by ``weight`` (OUT,IN)."""
    return autograd.forward("linear", F.linear, x=x, weight=weight, bias=bias)


def backward(grad_out: torch.Tensor, cache: Cache, *, need_grad_x: bool = True) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x, grad_weight, grad_bias)``, None for an absent bias or an unneeded grad_x."""
    return autograd.backward(grad_out, cache, need_grad_x=need_grad_x)
