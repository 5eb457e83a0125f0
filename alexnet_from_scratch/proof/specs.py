"""The table of operations: how to draw the calls of each, what judges it, and what a rung may decline.

A new operation is one row here. The tests go through the table, and through the rungs of each operation's own ``RUNGS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import strategies as st

from alexnet_from_scratch.proof import cases, optimizer, reference, reference_nonlinear, reference_winograd
from alexnet_from_scratch.proof.draws import Case
from scratch.compiled.emission import VECTOR_BITS
from scratch.compiled.microkernel import MR, NR_VECTORS

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Spec:
    """One operation."""

    name: str
    cases: Callable[..., st.SearchStrategy[Case]]  # takes a dtype, whether to draw large ones, and palettes
    reference: Callable[..., Any]  # carries the error bounds
    exact: bool = False  # its outputs are selected, not computed: even zeros keep their sign
    hands_back: Callable[[Case], bool] = lambda case: False  # whether the output is the input itself, as torch's is
    adapt: Callable[[ModuleType], Any] = lambda module: module  # turns something else into an operation
    wavers: Callable[[Case], bool] = lambda case: (
        False
    )  # whether torch's code paths differ on NaN, so that only the reference counts
    declines: Callable[[str, Case], bool] = lambda rung, case: False  # whether the rung leaves the case to another
    own_bounds: Mapping[str, Callable[..., Any]] = field(
        default_factory=dict
    )  # for rungs that round other numbers than the definition
    own_cases: Mapping[str, Callable[..., st.SearchStrategy[Case]]] = field(default_factory=dict)  # for rungs that decline most

    @property
    def scratch(self) -> Any:
        return self.adapt(import_module(f"scratch.{self.name}"))

    @property
    def torch(self) -> Any:
        return self.adapt(import_module(f"torch_impl.{self.name}"))

    def reference_of(self, rung: str) -> Callable[..., Any]:
        return self.own_bounds.get(rung, self.reference)

    def call(self, draw: Draw, rung: str, dtype: np.dtype[Any]) -> Case:
        """A drawn call for the rung: one in five is large, except for the naive rung, which would take long."""
        large = rung != "naive" and draw(st.integers(0, 4)) == 4
        return draw(self.cases_of(rung)(dtype, large))

    def cases_of(self, rung: str) -> Callable[..., st.SearchStrategy[Case]]:
        """``cases`` for the rung. If it would decline most of them, about half are drawn from ``own_cases`` instead."""
        if rung not in self.own_cases:
            return self.cases
        return lambda *args, **options: st.one_of(self.own_cases[rung](*args, **options), self.cases(*args, **options))

    @property
    def rungs(self) -> list[str]:
        return list(self.scratch.RUNGS)

    def __str__(self) -> str:
        return self.name


def _evaluation(case: Case) -> bool:
    return not case.params["training"]


def _special(case: Case) -> bool:
    """Some of torch's convolutions skip the padding's zeros; others multiply by zeros that the definition does not have."""
    return "special" in case.palette


def _beyond_the_fast(rung: str, case: Case) -> bool:
    x, weight, bias = case.arrays
    if rung == "winograd":
        return not reference_winograd.takes(x, weight, bias, **case.params)
    return rung == "implicit_gemm" and (x.size == 0 or not np.isfinite(weight).all())


def _less_than_a_tile(rung: str, case: Case) -> bool:
    """A tile of weight, and of its transpose, has MR rows and NR columns."""
    x, weight, _ = case.arrays
    OUT, IN = weight.shape
    NR = NR_VECTORS * VECTOR_BITS // (8 * x.itemsize)
    return rung == "numba" and (MR > OUT or max(MR, NR) > IN)


SPECS = (
    Spec(
        "conv2d",
        cases.conv2d,
        reference.conv2d,
        wavers=_special,
        declines=_beyond_the_fast,
        own_bounds={"winograd": reference_winograd.conv2d},
        own_cases={"winograd": cases.conv2d_for_winograd},
    ),
    Spec("relu", cases.relu, reference.relu, exact=True),
    Spec("linear", cases.linear, reference.linear, declines=_less_than_a_tile, own_cases={"numba": cases.linear_of_tiles}),
    Spec("local_response_norm", cases.local_response_norm, reference_nonlinear.local_response_norm),
    Spec("adaptive_avg_pool2d", cases.adaptive_avg_pool2d, reference.adaptive_avg_pool2d),
    Spec("max_pool2d", cases.max_pool2d, reference.max_pool2d, exact=True),
    Spec(
        "dropout",
        cases.dropout,
        reference.dropout,
        exact=True,
        hands_back=_evaluation,
        declines=lambda rung, case: _evaluation(case),
    ),
    Spec("softmax", cases.softmax, reference_nonlinear.softmax),
    Spec("log_softmax", cases.softmax, reference_nonlinear.log_softmax),
    Spec("cross_entropy", cases.cross_entropy, reference_nonlinear.cross_entropy),
    Spec("sgd", optimizer.cases, optimizer.reference, adapt=optimizer.Steps),
)

RUNGS = [(spec, rung) for spec in SPECS for rung in spec.rungs]
