"""Stochastic gradient descent, by ``torch.optim.SGD``; mirrors ``scratch/sgd.py``, which explains the paper's form."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["SGD"]


class SGD(torch.optim.SGD):
    """``torch.optim.SGD``; with update='paper' the learning rate is part of the velocity.

    The paper's rule has neither dampening nor nesterov and refuses them with a ValueError.
    """

    def __init__(
        self,
        parameters: Iterable[torch.Tensor],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        maximize: bool = False,
        *,
        update: str = "torch",
    ) -> None:
        if not isinstance(update, str) or update not in ("torch", "paper"):
            raise ValueError(f"sgd: update must be 'torch' or 'paper', got {reprlib.repr(update)}")
        if update == "paper" and (nesterov or dampening != 0):
            raise ValueError(
                f"sgd: update 'paper' must come without dampening and nesterov, got dampening {dampening} and nesterov {nesterov}"
            )
        super().__init__(parameters, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize)
        for group in self.param_groups:
            group["update"] = update

    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        if self.param_groups[0].get("update", "torch") == "torch":  # torch.optim.SGD's state dict lacks this key
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for w in group["params"]:
                    if w.grad is not None:
                        _paper_update(w, w.grad, group, self.state[w])
        return loss


def _paper_update(w: torch.Tensor, grad: torch.Tensor, group: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    """``v = momentum · v - weight_decay · lr · w - lr · grad;  w = w + v``."""
    d = -grad if group["maximize"] else grad
    if group["weight_decay"] != 0:
        d = d + group["weight_decay"] * w
    v = -group["lr"] * d
    if group["momentum"] != 0:
        velocity = state.get("momentum_buffer")
        v = state["momentum_buffer"] = v if velocity is None else velocity.mul_(group["momentum"]).add_(v)
    w.add_(v)
