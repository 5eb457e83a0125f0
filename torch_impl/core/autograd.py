"""torch's autograd with scratch's interface: ``forward -> (out, cache)``, ``backward(grad_out, cache) -> gradients``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from alexnet_from_scratch.arguments import require_flag


@dataclass(frozen=True, slots=True)
class Cache:
    """The recorded graph: its leaves in argument order (None for an absent one) and its output."""

    operation: str
    leaves: tuple[torch.Tensor | None, ...]
    out: torch.Tensor


def forward(operation: str, function: Callable[..., torch.Tensor], **tensors: torch.Tensor | None) -> tuple[torch.Tensor, Cache]:
    """``function(*tensors.values())`` with its graph recorded, detached from any graph that the tensors came from."""
    for name, tensor in tensors.items():
        if tensor is not None or name in ("x", "logits"):
            require_tensor(operation, name, tensor)
    leaves = tuple(None if tensor is None else tensor.detach().requires_grad_() for tensor in tensors.values())
    with torch.enable_grad():
        out = function(*leaves)
    return out.detach(), Cache(operation, leaves, out)


def backward(grad_out: torch.Tensor, cache: Cache, *, need_grad_x: bool = True) -> tuple[torch.Tensor | None, ...]:
    """The gradient of every leaf, in argument order, None for an absent one; ``grad_out`` has the output's shape.

    Without ``need_grad_x`` the first gradient is None, and autograd does not compute it.
    """
    if not isinstance(cache, Cache):
        raise TypeError(f"backward: cache must be a cache of torch_impl's forward, got {type(cache).__name__}")
    require_tensor(f"{cache.operation}.backward", "grad_out", grad_out)
    require_flag(f"{cache.operation}.backward", "need_grad_x", need_grad_x)
    wanted = cache.leaves if need_grad_x else (None, *cache.leaves[1:])
    present = [leaf for leaf in wanted if leaf is not None]
    gradients = iter(torch.autograd.grad(cache.out, present, grad_out, retain_graph=True))
    return tuple(None if leaf is None else next(gradients) for leaf in wanted)


def require_tensor(operation: str, name: str, value: Any) -> None:
    """Raise TypeError, in the name of the operation, unless ``value`` is a tensor: most of torch would say what it lacks."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{operation}: {name} must be a tensor, got {type(value).__name__}")
