"""SGD in the form of an operation, for the generic test: ``forward(parameter, *gradients, lr=...)`` takes one step per gradient.

``backward`` returns no gradients: an optimizer has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from alexnet_from_scratch.proof.bounds import Rounding
from alexnet_from_scratch.proof.draws import Case, choice, draw_arrays, drawn
from alexnet_from_scratch.proof.reference import Result


@dataclass(frozen=True)
class Steps:
    """The operation as ``module`` does it, which is the ``sgd`` of scratch or of torch_impl."""

    module: ModuleType

    @property
    def RUNGS(self) -> Any:  # noqa: N802 - as in every operation's file
        return self.module.RUNGS

    def forward(self, data: Any, *gradients: Any, lr: tuple[float, ...], **options: Any) -> tuple[Any, Any]:
        parameter: Any
        if isinstance(data, np.ndarray):
            parameter = SimpleNamespace(data=np.array(data, data.dtype.newbyteorder("=")), grad=None)
        else:  # a tensor
            parameter = data.clone()
        optimizer = self.module.SGD([parameter], lr=lr[0], **options)
        for rate, gradient in zip(lr, gradients, strict=True):
            for group in getattr(optimizer, "param_groups", []):
                group["lr"] = rate
            optimizer.lr = rate
            parameter.grad = gradient
            optimizer.step()
        out = parameter.data
        return out, SimpleNamespace(rung=self.module.RUNGS.chosen()) if isinstance(out, np.ndarray) else None

    def backward(self, grad_out: Any, cache: Any) -> tuple[()]:
        return ()


@drawn
def cases(draw: DrawFn, dtype: np.dtype[Any], large: bool = False, palettes: Sequence[str] | None = None) -> Case:
    shape = (draw(st.integers(50, 300)),) if large else tuple(draw(st.lists(choice(1, 2, 3, 0), max_size=3)))
    steps = draw(st.integers(1, 4))
    *given, palette = draw_arrays(draw, dtype, *[shape] * (steps + 1), palettes=palettes)
    rule = draw(choice("momentum", "dampening", "nesterov", "paper"))
    rates = choice(0.1, 0.01, 1.0)
    params = {
        "lr": tuple(draw(st.lists(rates, min_size=steps, max_size=steps))),
        "momentum": draw(choice(0.9, 0.5) if rule == "nesterov" else choice(0.9, 0.5, 0.0)),
        "dampening": 0.3 if rule == "dampening" else 0.0,
        "weight_decay": draw(choice(0.0, 5e-4, 0.5)),
        "nesterov": rule == "nesterov",
        "maximize": draw(st.booleans()),
        "update": "paper" if rule == "paper" else "torch",
    }
    return Case(tuple(given), params, palette)


def reference(
    rounding: Rounding,
    data: Any,
    *gradients: Any,
    lr: tuple[float, ...],
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    update: str,
) -> Result:
    """The rule as printed on torch's page and in the paper's section 5; each step rounds its result."""
    w, v = rounding.exact(data), None
    m, decay = rounding.rounded(momentum), rounding.rounded(weight_decay)
    for rate, gradient in zip(lr, gradients, strict=True):
        g = rounding.exact(-gradient if maximize else gradient)
        d = g + decay * w if weight_decay else g
        step = rounding.rounded(rate)
        if update == "paper":
            v = -(step * d) if v is None or not momentum else m * v - step * d
            w = w + v
            continue
        if momentum:
            v = d if v is None else m * v + rounding.rounded(1 - dampening) * d
            d = d + m * v if nesterov else v
        w = w - step * d
    return (w,), lambda grad_out: ()
