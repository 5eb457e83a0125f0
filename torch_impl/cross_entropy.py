"""Cross-entropy of softmax and target, by ``torch.nn.functional.cross_entropy``; mirrors ``scratch/cross_entropy.py``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_impl import log_softmax, softmax
from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward", "log_softmax", "softmax"]


def forward(
    logits: torch.Tensor,
    target: torch.Tensor,
    *,
    weight: torch.Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, Cache]:
    """Compare ``logits`` (C,), (N,C) or (N,C,D1,…) with ``target``, classes or probabilities."""

    def cross_entropy(logits: torch.Tensor, target: torch.Tensor = target) -> torch.Tensor:
        return F.cross_entropy(
            logits, target, weight, ignore_index=ignore_index, reduction=reduction, label_smoothing=label_smoothing
        )

    autograd.require_tensor("cross_entropy", "target", target)
    if target.is_floating_point():
        return autograd.forward("cross_entropy", cross_entropy, logits=logits, target=target)
    return autograd.forward("cross_entropy", cross_entropy, logits=logits)


def backward(grad_out: torch.Tensor, cache: Cache) -> tuple[torch.Tensor | None, ...]:
    """``(grad_logits,)`` for target classes, ``(grad_logits, grad_target)`` for target probabilities."""
    return autograd.backward(grad_out, cache)
