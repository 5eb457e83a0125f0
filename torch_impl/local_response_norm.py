"""Local response normalization, by ``torch.nn.functional.local_response_norm``; mirrors ``scratch/local_response_norm.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward"]


def forward(x: torch.Tensor, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> tuple[torch.Tensor, Cache]:
    """Normalize every value of ``x`` (N,C,…) by the mean square over a window of ``size`` channels around its own."""

    def local_response_norm(x: torch.Tensor) -> torch.Tensor:
        return F.local_response_norm(x, size, alpha=alpha, beta=beta, k=k)

    return autograd.forward("local_response_norm", local_response_norm, x=x)


def backward(grad_out: torch.Tensor, cache: Cache) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x,)``."""
    return autograd.backward(grad_out, cache)
