"""Softmax, by ``torch.nn.functional.softmax``; mirrors ``scratch/softmax.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward"]


def forward(x: torch.Tensor, *, dim: int = 1) -> tuple[torch.Tensor, Cache]:
    """Turn every row of ``x`` along ``dim`` into probabilities."""
    return autograd.forward("softmax", lambda x: F.softmax(x, dim), x=x)


def backward(grad_out: torch.Tensor, cache: Cache) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x,)``."""
    return autograd.backward(grad_out, cache)
