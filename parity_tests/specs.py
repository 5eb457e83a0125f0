"""The table of operations: for each how to draw its calls, what judges it, what it must refuse, and AlexNet's own sizes.

A new operation is one row here. The tests go through the table, and through the rungs of each operation's own ``RUNGS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import strategies as st

from parity_tests import cases, reference
from parity_tests.draws import Case


@dataclass(frozen=True)
class Spec:
    """One operation."""

    name: str
    cases: Callable[[np.dtype[Any]], st.SearchStrategy[Case]]
    reference: Callable[..., Any]  # carries the error bounds

    @property
    def scratch(self) -> ModuleType:
        return import_module(f"scratch.{self.name}")

    @property
    def torch(self) -> ModuleType:
        return import_module(f"torch_impl.{self.name}")

    @property
    def rungs(self) -> list[str]:
        return list(self.scratch.RUNGS)

    def __str__(self) -> str:
        return self.name


SPECS = (
    Spec("conv2d", cases.conv2d, reference.conv2d),
    Spec("relu", cases.relu, reference.relu),
    Spec("linear", cases.linear, reference.linear),
)

RUNGS = [(spec, rung) for spec in SPECS for rung in spec.rungs]
