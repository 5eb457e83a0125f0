"""What is compared: one library in one configuration, in its own process."""

from __future__ import annotations

import importlib.util
import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.subjects.cases import Case, Layer, Network, operation

Arrays = dict[str, np.ndarray]


class Subject(ABC):
    """A case, ready to run in one library."""

    note = ""  # how it ran: the rung that took the case

    @abstractmethod
    def run(self) -> list[float]:
        """One pass: the seconds of each phase. Buffers rotate from pass to pass, so that caches do not help too much."""

    @abstractmethod
    def results(self) -> Arrays:
        """Everything that the case computes, by name, to be checked before anything is timed."""

    def pools(self) -> dict[str, int]:
        """The threads of pools that only the library itself knows of."""
        return {}

    def move(self) -> None:  # noqa: B027 - a network's memory is spread out already
        """Move the rotating buffers to other addresses."""


def shift() -> np.ndarray:
    """A block of random size that is never used. What is allocated while it exists gets other addresses.

    Without the block, buffers only swap addresses with those freed a turn ago. It is larger than 32 MiB, so it always comes fresh
    from the system.
    """
    return np.empty((32 << 20) + 4096 * random.randrange(1 << 13), np.uint8)


@dataclass(frozen=True)
class Side:
    """A library and how it is used: a rung of scratch ("" is the fastest), or eager, channels_last or compile of torch."""

    library: str
    mode: str = ""
    device: str = "cpu"
    again: bool = False  # the same side again, in another process, to see how much equals differ: A/A
    slow: Mapping[str, float] = field(default_factory=dict)  # operation → factor: a planted slowdown that must be found

    @property
    def name(self) -> str:
        """The side's name in tables."""
        words = [self.library, self.mode, self.device if self.device != "cpu" else "", "again" if self.again else "",
                 "slowed" if self.slow else ""]  # fmt: skip
        return " ".join(word for word in words if word)


def original(name: str) -> str:
    """The name of the side that ``name`` is a twin or a slowed copy of; else ``name``."""
    return name.removesuffix(" slowed").removesuffix(" again")


# Momentum and weight decay are the paper's (section 5). The learning rate is small, so that a hundred steps on one batch stay
# finite.
SGD: dict[str, Any] = {"lr": 1e-4, "momentum": 0.9, "weight_decay": 5e-4}


def torch_sides(case: Case, device: str, *, compile_: bool | None) -> list[Side]:
    """The ways to use torch that differ on ``case``: channels_last needs images, compile needs a loop to generate."""
    modes = ["eager"]
    if isinstance(case, Network) or (isinstance(case, Layer) and len(case.shape) == 3):
        modes.append("channels_last")
    if case.compiled if compile_ is None else compile_:
        modes.append("compile")
    return [Side("torch", mode, device) for mode in modes]


# Other libraries, and what each can do with a network. Inference engines read ONNX models.
PEERS = {"openvino": ("inference",), "onnxruntime": ("inference",), "jax": ("inference", "step")}
NEEDS = {"openvino": ("openvino", "onnx"), "onnxruntime": ("onnxruntime", "onnx"), "jax": ("jax",)}


def peers(case: Network) -> list[Side]:
    """The other libraries that can run the case."""
    return [Side(library) for library, phases in PEERS.items() if case.phase in phases]


def missing(side: Side) -> str:
    """Why a side cannot even start; "" if it can."""
    lacking = [package for package in NEEDS.get(side.library, ()) if importlib.util.find_spec(package) is None]
    return f"{', '.join(lacking)} not installed; pip install --editable '.[peers]'" if lacking else ""


def optional(side: Side) -> bool:
    """Whether the side is merely left out if it fails. A failure counts only in scratch, and in torch without torch.compile."""
    return side.mode == "compile" or side.library in PEERS


def parameters(arrays: Arrays) -> list[str]:
    """The names of a network's weights and biases, in the order of its layers."""
    return [name for name in arrays if name not in ("x", "target")]


def copies(moved: int, cache_bytes: int) -> int:
    """How many copies of the rotating arrays, ``moved`` bytes together, fit into twice the last-level cache; from 2 to 4.

    All of them move after every turn. If there were more, a cache of hundreds of MiB would make moving take longer than timing.
    """
    return max(2, min(4, 2 * cache_bytes // max(moved, 1)))


def rotating(arrays: Arrays) -> int:
    """The bytes of the arrays that rotate from pass to pass."""
    return sum(arrays[name].nbytes for name in ("x", "grad_out") if name in arrays)


def slowdown(side: Side, case: Case) -> float:
    """The slowdown factor planted for a case's operation; 1 if none."""
    return side.slow.get(operation(case), 1.0)
