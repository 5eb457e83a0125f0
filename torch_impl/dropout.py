"""Dropout, by torch; mirrors ``scratch/dropout.py``.

``torch.nn.functional.dropout`` does not return its mask and takes no generator, so this file computes training mode itself. It
draws the mask that torch would draw from the same generator, and computes the same product.
"""

from __future__ import annotations

import reprlib
from dataclasses import dataclass

import torch

from alexnet_from_scratch.arguments import require_flag
from torch_impl.core import autograd
from torch_impl.core.autograd import Cache

__all__ = ["backward", "forward"]


@dataclass(frozen=True, slots=True)
class DropoutCache(Cache):
    """The recorded graph, and the mask; None outside training."""

    mask: torch.Tensor | None


def forward(
    x: torch.Tensor,
    *,
    p: float = 0.5,
    training: bool = True,
    mask: torch.Tensor | None = None,
    rng: torch.Generator | None = None,
) -> tuple[torch.Tensor, DropoutCache]:
    """Drop elements at random and scale up the rest.

    ``mask`` is bool, True where an element is kept; None draws one with ``rng``, or with torch's own generator.
    """
    autograd.require_tensor("dropout", "x", x)
    if mask is not None:
        autograd.require_tensor("dropout", "mask", mask)
    require_flag("dropout", "training", training)
    try:
        possible = bool(0 <= p <= 1)
    except (TypeError, ValueError, RuntimeError):  # no number, or an array of several
        raise TypeError(f"dropout: p must be a number, got {reprlib.repr(p)}") from None
    if not possible:
        raise ValueError(f"dropout: p must lie between 0 and 1, got {p}")
    if not training:
        out, cache = autograd.forward("dropout", lambda x: x, x=x)
        return out, DropoutCache(cache.operation, cache.leaves, cache.out, None)
    if mask is None:
        mask = torch.empty_like(x).bernoulli_(1 - p, generator=rng).bool()
    noise = mask.to(x.dtype).div_(1 - p) if p < 1 else torch.zeros_like(x)
    out, cache = autograd.forward("dropout", lambda x: x * noise, x=x)
    return out, DropoutCache(cache.operation, cache.leaves, cache.out, mask)


def backward(grad_out: torch.Tensor, cache: DropoutCache) -> tuple[torch.Tensor | None, ...]:
    """``(grad_x,)``: drop and scale ``grad_out`` as the input was."""
    return autograd.backward(grad_out, cache)


def kept(cache: DropoutCache) -> torch.Tensor | None:
    """The mask that ``forward`` used, True where an element was kept; None where it ran without training."""
    return cache.mask
