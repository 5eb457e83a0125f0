"""Who is compared: one library in one configuration, in a process of its own."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.cases import Case, Layer, Network, operation

Arrays = dict[str, np.ndarray]


class Subject(ABC):
    """A case, ready to run in one library."""

    note = ""  # what is to be said about how it ran: the rung that took the case

    @abstractmethod
    def run(self) -> list[float]:
        """One pass: the seconds of each phase. Buffers rotate from pass to pass, so that no cache is flattered."""

    @abstractmethod
    def results(self) -> Arrays:
        """Everything that the case computes, by name, to be checked before anything is timed."""

    def move(self) -> None:  # noqa: B027 - a network's own memory is many places already
        """Put the buffers that rotate elsewhere in memory."""


def shift() -> np.ndarray:
    """A block of random size that nobody touches: what is allocated while it lives lies elsewhere.

    Without it buffers only change places with what was freed a turn ago. More than 32 MiB, for then it is fresh from the system.
    """
    return np.empty((32 << 20) + 4096 * random.randrange(1 << 13), np.uint8)


@dataclass(frozen=True)
class Side:
    """A library and how it is used: a rung of scratch ("" is the fastest), or eager, channels_last or compile of torch."""

    library: str
    mode: str = ""
    device: str = "cpu"
    again: bool = False  # the same side once more, in another process, to see how far equals differ: A/A
    slow: Mapping[str, float] = field(default_factory=dict)  # operation → factor: a slowdown planted to see it found

    @property
    def name(self) -> str:
        """What tables call it."""
        words = [self.library, self.mode, self.device if self.device != "cpu" else "", "again" if self.again else "",
                 "slowed" if self.slow else ""]  # fmt: skip
        return " ".join(word for word in words if word)


def original(name: str) -> str:
    """The name of the side that ``name`` is a twin of, or slowed from; else ``name``."""
    return name.removesuffix(" slowed").removesuffix(" again")


# The paper's, section 5; the learning rate is small so that a hundred timed steps on one batch stay finite.
SGD: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}


def torch_sides(case: Case, device: str, *, compile_: bool | None) -> list[Side]:
    """The ways to use torch that differ on ``case``: channels_last needs images, compile a loop to generate."""
    modes = ["eager"]
    if isinstance(case, Network) or (isinstance(case, Layer) and len(case.shape) == 3):
        modes.append("channels_last")
    if case.compiled if compile_ is None else compile_:
        modes.append("compile")
    return [Side("torch", mode, device) for mode in modes]


def copies(arrays: Arrays, cache_bytes: int) -> int:
    """How many copies of the rotating arrays outgrow the last-level cache twice over; 2 … 8."""
    moved = sum(arrays[name].nbytes for name in ("x", "grad_out") if name in arrays)
    return max(2, min(8, 2 * cache_bytes // max(moved, 1)))


def slowdown(side: Side, case: Case) -> float:
    """The factor planted for a case's operation; 1 without."""
    return side.slow.get(operation(case), 1.0)
