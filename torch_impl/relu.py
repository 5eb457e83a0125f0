"""Rectified linear unit, by ``torch.nn.functional.relu``; mirrors ``scratch/relu.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_impl.core import autograd
from torch_impl.core.autograd import Cache


def forward(x: torch.Tensor) -> tuple[torch.Tensor, Cache]:
    """Set what is negative to zero."""
    return autograd.forward(F.relu, x)


def backward(grad_out: torch.Tensor, cache: Cache) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x,)``: let ``grad_out`` through where the output was above zero."""
    return autograd.backward(grad_out, cache)
