"""Logarithm of the softmax, by ``torch.nn.functional.log_softmax``; mirrors ``scratch/log_softmax.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward"]


def forward(x: torch.Tensor, *, dim: int = 1) -> tuple[torch.Tensor, Cache]:
    """Turn every row of ``x`` along ``dim`` into the logarithms of probabilities."""
    return autograd.forward("log_softmax", lambda x: F.log_softmax(x, dim), x=x)


def backward(grad_out: torch.Tensor, cache: Cache) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x,)``."""
    return autograd.backward(grad_out, cache)
