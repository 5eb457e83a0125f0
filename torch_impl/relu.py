"""Rectified linear unit, by ``torch.nn.functional.relu``; mirrors ``scratch/relu.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward"]


def forward(x: torch.Tensor, *, inplace: bool = False) -> tuple[torch.Tensor, Cache]:
    """Set negative elements to zero; with ``inplace``, in ``x`` itself."""
    out, cache = autograd.forward("relu", F.relu, x=x)
    return x.copy_(out) if inplace else out, cache  # not by F.relu: autograd forbids writing to a leaf of its graph


def backward(grad_out: torch.Tensor, cache: Cache) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x,)``: let ``grad_out`` through where the output was above zero."""
    return autograd.backward(grad_out, cache)
