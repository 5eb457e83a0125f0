"""Training runs that take no time: a dozen images, a few steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratch.train
import torch_impl.train
from alexnet_from_scratch.data.datasets import Dataset, Split
from alexnet_from_scratch.runs import files, session
from alexnet_from_scratch.runs.checkpoints import checksum
from alexnet_from_scratch.runs.options import Options
from torch_impl.train import TorchOptions

SIDES: dict[str, Any] = {"scratch": (scratch.train, Options), "torch_impl": (torch_impl.train, TorchOptions)}
FLAGS: dict[str, Any] = {
    "batch": 4,
    "max_steps": 3,
    "checkpoint_every": 2,
    "lr": 1e-4,
    "threads": 1,
    "workers": 1,
    "no_pictures": True,
}
side_by_side = pytest.mark.parametrize("side", SIDES)


def data_of(classes: tuple[str, ...] = ("a", "b")) -> Dataset:
    """Ten images to train with, three batches, and four to test with."""
    images = np.random.default_rng(0).integers(0, 256, (14, 8, 8), np.uint8)
    labels = np.arange(14) % len(classes)
    return Dataset(
        "digits", classes, False, Split(labels[:10], images[:10].__getitem__), Split(labels[10:], images[10:].__getitem__)
    )


@contextmanager
def dataset(data: Dataset) -> Iterator[None]:
    """Make both sides train on this."""
    with pytest.MonkeyPatch.context() as patched:
        for module, _ in SIDES.values():
            patched.setattr(module, "open_dataset", lambda *_, **__: data)
        yield


def run(side: str, folder: Path, **flags: Any) -> dict[str, Any]:
    """Train, with ``FLAGS`` unless ``flags`` overrides them."""
    module, kind = SIDES[side]
    summary: dict[str, Any] = module.train(kind(out=str(folder), **{**FLAGS, **flags}))
    return summary


@contextmanager
def after_step(number: int, do: Callable[[session.Run], object]) -> Iterator[None]:
    """Do something in a run while it records that step, counted from 1."""
    noted = session.Run.after_step

    def doing(self: session.Run, loss: float, correct: int) -> None:
        if self.position.step + 1 == number:
            do(self)
        noted(self, loss, correct)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(session.Run, "after_step", doing)
        yield


def spoil(checkpoint: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray]], object]) -> None:
    """Change what a checkpoint holds, and make its checksum fit."""
    header = files.read_header(checkpoint, "checkpoint")
    about, arrays = header.about, header.read()
    change(about["content"], arrays)
    about["sha256"] = checksum(arrays, about["content"])
    files.write(checkpoint, "checkpoint", about, arrays)


def checkpoints_of(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("step-*"))


def weights_of(folder: Path) -> dict[str, bytes]:
    arrays = files.read_header(folder / "weights.safetensors", "weights").read()
    return {name: array.tobytes() for name, array in arrays.items()}


def steps_of(folder: Path) -> list[int]:
    """The steps in the lines of metrics; evaluations are negative."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] * (1 if "loss" in line else -1) for line in lines]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
