"""torch's autograd with scratch's interface: ``forward -> (out, cache)``, ``backward(grad_out, cache) -> gradients``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Cache:
    """The recorded graph: its leaves in argument order (None for an absent one) and its output."""

    leaves: tuple[torch.Tensor | None, ...]
    out: torch.Tensor


def forward(function: Callable[..., torch.Tensor], *tensors: torch.Tensor | None) -> tuple[torch.Tensor, Cache]:
    """``function(*tensors)`` with its graph recorded, detached from any graph that the tensors came from."""
    leaves = tuple(None if tensor is None else tensor.detach().requires_grad_() for tensor in tensors)
    with torch.enable_grad():
        out = function(*leaves)
    return out.detach(), Cache(leaves, out)


def backward(grad_out: torch.Tensor, cache: Cache, *, need_grad_x: bool = True) -> tuple[torch.Tensor | None, ...]:
    """The gradient of every leaf, in argument order, None for an absent one; ``grad_out`` has the output's shape.

    Without ``need_grad_x`` the first gradient is None, and autograd does not compute it.
    """
    wanted = cache.leaves if need_grad_x else (None, *cache.leaves[1:])
    present = [leaf for leaf in wanted if leaf is not None]
    gradients = iter(torch.autograd.grad(cache.out, present, grad_out, retain_graph=True))
    return tuple(None if leaf is None else next(gradients) for leaf in wanted)
