"""How much of its bound does a rung use in long sums? :data:`LONG_SUMS` says how much it may use.

The a-priori bound is the worst case, in which every rounding goes the same way. The short sums of drawn cases come near it. Over
n terms the roundings cancel, like the steps of a random walk, and about 1/√n of the bound is left; :attr:`LongSum.share` allows
twice that (Higham and Mary, A new approach to probabilistic rounding error analysis, 2019). A rung that uses more adds less
carefully than it seems, in lower precision or by subtracting what it added before, and no drawn case would show that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_from_scratch.proof.draws import Case

Array = Callable[..., np.ndarray]
DTYPE = np.dtype(np.float32)


@dataclass(frozen=True)
class LongSum:
    """One result of one call."""

    operation: str
    result: str
    at: int  # its index among the outputs and gradients
    terms: int
    call: Callable[[Array], tuple[tuple[Any, ...], dict[str, Any]]]  # positional and other arguments, from random arrays

    @property
    def share(self) -> float:
        """The largest part of the bound that a rung may use."""
        return 2 / math.sqrt(self.terms)

    def cases(self) -> Iterator[tuple[Case, Array]]:
        """The call with numbers of both signs and with positive ones, each with the source of its cotangent."""
        for seed in range(2):
            for sign in ("either sign", "positive"):
                generator = np.random.default_rng(seed)

                def array(*shape: int, generator: np.random.Generator = generator, sign: str = sign) -> np.ndarray:
                    numbers = generator.standard_normal(shape)
                    return np.asarray(abs(numbers) if sign == "positive" else numbers, DTYPE)

                arrays, params = self.call(array)
                yield Case(arrays, params, f"normal numbers, {sign}"), array

    def __str__(self) -> str:
        return f"{self.operation} {self.result}"


SGD = {"momentum": 0.9, "dampening": 0.0, "weight_decay": 5e-4, "nesterov": False, "maximize": False, "update": "torch"}

LONG_SUMS = (
    LongSum("conv2d", "output", 0, 1201, lambda a: ((a(2, 96, 7, 6), a(4, 48, 5, 5), a(4)), {"groups": 2, "stride": 2})),
    LongSum("conv2d", "output, 3 by 3", 0, 1153, lambda a: ((a(1, 128, 5, 4), a(3, 128, 3, 3), a(3)), {"padding": 1})),
    LongSum("conv2d", "output, 5 by 5", 0, 1201, lambda a: ((a(1, 48, 7, 6), a(3, 48, 5, 5), a(3)), {"padding": 2})),
    LongSum("conv2d", "grad_x", 1, 1200, lambda a: ((a(1, 2, 4, 5), a(96, 1, 5, 5), None), {"groups": 2, "padding": 2})),
    LongSum("conv2d", "grad_weight", 2, 2584, lambda a: ((a(2, 1, 40, 36), a(2, 1, 3, 3), a(2)), {})),
    LongSum("conv2d", "grad_bias", 3, 2584, lambda a: ((a(2, 1, 40, 36), a(2, 1, 3, 3), a(2)), {})),
    LongSum("linear", "output", 0, 1025, lambda a: ((a(17, 1024), a(14, 1024), a(14)), {})),
    LongSum("linear", "output, few rows", 0, 1025, lambda a: ((a(8, 1024), a(14, 1024), a(14)), {})),
    LongSum("linear", "output, one row", 0, 1025, lambda a: ((a(1, 1024), a(56, 1024), a(56)), {})),
    LongSum("linear", "grad_x", 1, 1024, lambda a: ((a(17, 32), a(1024, 32), a(1024)), {})),
    LongSum("linear", "grad_x, few rows", 1, 1024, lambda a: ((a(8, 32), a(1024, 32), a(1024)), {})),
    LongSum("linear", "grad_weight", 2, 1024, lambda a: ((a(1024, 32), a(14, 32), a(14)), {})),
    LongSum("linear", "grad_bias", 3, 1024, lambda a: ((a(1024, 32), a(14, 32), a(14)), {})),
    LongSum("local_response_norm", "output", 0, 255, lambda a: ((a(1, 256, 2),), {"size": 255, "alpha": 1.0, "k": 2.0})),
    LongSum("local_response_norm", "grad_x", 1, 255, lambda a: ((a(1, 256, 2),), {"size": 255, "alpha": 1.0, "k": 2.0})),
    LongSum("max_pool2d", "grad_x", 1, 224, lambda a: ((a(1, 2, 24, 20),), {"kernel_size": 15, "stride": 1})),
    LongSum("adaptive_avg_pool2d", "output", 0, 1536, lambda a: ((a(2, 3, 64, 48),), {"output_size": (1, 2)})),
    LongSum("softmax", "output", 0, 1000, lambda a: ((a(8, 1000),), {"dim": 1})),
    LongSum("softmax", "grad_x", 1, 1000, lambda a: ((a(8, 1000),), {"dim": 1})),
    LongSum("log_softmax", "output", 0, 1000, lambda a: ((a(8, 1000),), {"dim": 1})),
    LongSum("log_softmax", "grad_x", 1, 1000, lambda a: ((a(8, 1000),), {"dim": 1})),
    LongSum("cross_entropy", "output", 0, 1000, lambda a: ((a(32, 1000), np.arange(32) * 31), {"label_smoothing": 0.1})),
    # Probabilities, because with classes one addend is almost the whole sum; with similar logits, so that every element shows it.
    LongSum("cross_entropy", "grad_logits", 1, 1000, lambda a: ((a(32, 1000) / 10, a(32, 1000)), {})),
    LongSum("sgd", "parameter", 0, 20, lambda a: (tuple(a(500) for _ in range(21)), {"lr": (0.1,) * 20, **SGD})),
)
