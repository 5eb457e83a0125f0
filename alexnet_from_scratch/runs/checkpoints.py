"""Checkpoints: everything that a run needs to continue as if nothing had happened, one file each.

The file holds the arrays (weights, velocities); its header holds the rest as JSON, and a checksum over both. So whatever a crash,
a full disk or a bad cable did to a file, it is either whole or known to be damaged. In place of a damaged checkpoint, the one
before it is used.

A checkpoint holds no state of a random generator, because none needs to be kept: each step draws from a fresh generator, made
from the run's seed and the step's number (:func:`seeds`).
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_from_scratch.runs import files
from alexnet_from_scratch.runs.arithmetic import arithmetic
from alexnet_from_scratch.text import shown

KIND = "checkpoint"
FORMAT = 1
NAME = re.compile(r"step-[0-9]{9,}\.safetensors")
NAMED = 10  # the most problems that an error message lists


class Purpose(IntEnum):
    """What random numbers are drawn for. Each purpose has its own stream."""

    WEIGHTS = 0
    DROPOUT = 1


def seeds(seed: int, purpose: Purpose, step: int = 0) -> np.random.SeedSequence:
    """The seed of the random numbers for this purpose and step."""
    return np.random.SeedSequence(seed, spawn_key=(purpose, step))


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: its arrays; its state, which is a dict that can be stored as JSON; and ``arithmetic``.

    ``arithmetic`` says which code, libraries and processor computed the arrays (see ``arithmetic.py``).
    """

    path: Path
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    arithmetic: Any = None

    def require_arrays(self, expected: Mapping[str, np.ndarray]) -> None:
        """Raise ValueError, which lists up to ``NAMED`` problems, unless names, dtypes and shapes of the arrays are these."""
        problems = [f"{name} is missing" for name in expected if name not in self.arrays]
        for name, array in self.arrays.items():
            if name not in expected:
                problems.append(f"{shown(name)} must not be there")
            elif (array.dtype, array.shape) != (dtype_shape := (expected[name].dtype, expected[name].shape)):
                problems.append(
                    f"{name} must be {dtype_shape[0]} with shape {dtype_shape[1]}, got {array.dtype} with {array.shape}"
                )
        if problems:
            named = "".join(f"\n  {problem}" for problem in problems[:NAMED])
            raise ValueError(f"{self.path}: must hold the arrays of this run's network and optimizer, but{named}")


class Checkpoints:
    """The checkpoints of a run, in a folder; the last ``keep`` are kept.

    Args:
        folder: where they are. It is made when the first checkpoint is saved.
        side: "scratch" or "torch_impl".
        keep: how many to keep, at least 1.
    """

    def __init__(self, folder: Path, side: str, keep: int) -> None:
        self.folder, self.side, self.keep = folder, side, keep
        self._passed_over: list[Path] = []  # damaged ones, when the run was resumed; the next save removes them

    def path(self, step: int) -> Path:
        """The path of this step's checkpoint."""
        return self.folder / f"step-{step:09}.safetensors"

    def save(self, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint and remove the surplus ones.

        Raises:
            OSError: it cannot be written. Earlier checkpoints are untouched.
        """
        path = self.path(step)
        content = {"format": FORMAT, "side": self.side, "arithmetic": dict(arithmetic(self.side)), "state": state}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._remove_folder(path)
            files.write(path, KIND, {"content": content, "sha256": checksum(arrays, content)}, arrays)
        except OSError as error:
            raise self.failure(path, error) from error
        others = [other for other in self.paths() if other not in (path, *self._passed_over)]
        older = [other for other in others if _step(other) < step]
        newer = others[len(older) :]  # an earlier resumed run passed these over, and stopped before it saved
        for useless in [*older[: max(0, len(older) + 1 - self.keep)], *newer, *self._passed_over]:
            if useless != path:
                self._remove_folder(useless)
                useless.unlink(missing_ok=True)
        self._passed_over = []
        return path

    def failure(self, path: Path, error: OSError) -> OSError:
        """The error to raise when the system refuses to write ``path``: it says which checkpoint to resume from."""
        last = next(reversed(self.paths()), None)
        way = f"--resume continues from {last}" if last else "No checkpoint was saved before, so there is nothing to resume"
        return OSError(error.errno, f"{path}: {error.strerror or error}. {way}")

    def paths(self) -> list[Path]:
        """The files, oldest first.

        Raises:
            OSError: the folder cannot be read.
        """
        try:
            return sorted((path for path in self.folder.iterdir() if NAME.fullmatch(path.name)), key=_step)
        except FileNotFoundError:
            return []

    def newest(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None if there are no files at all; ``report`` is called for each damaged one.

        Raises:
            ValueError: there are files, but none is a whole checkpoint; or the newest one is the other side's, has another
                format, or has no valid state.
        """
        problems = []
        for path in reversed(self.paths()):
            try:
                return self._load(path)
            except (files.NotWholeError, OSError) as error:
                problem = f"{path}: {error.strerror}" if isinstance(error, OSError) and error.strerror else f"{error}"
                report(f"{problem}. Trying the checkpoint before it")
                problems.append(problem)
                self._passed_over.append(path)
        if problems:
            raise ValueError(f"{self.folder}: holds no checkpoint that --resume could continue from:\n  " + "\n  ".join(problems))
        return None

    def _load(self, path: Path) -> Checkpoint:
        header = files.read_header(path, KIND)
        arrays, content = header.read(), header.about.get("content")
        if not isinstance(content, dict) or checksum(arrays, content) != header.about.get("sha256"):
            raise files.NotWholeError(f"{path}: is damaged: its checksum does not match its content")
        found = {name: content.get(name) for name in ("format", "side", "state")}
        if (repr(found["format"]), found["side"]) != (repr(FORMAT), self.side):
            got = f"one of {shown(found['side'])[:40]} in format {shown(found['format'])[:40]}"
            raise ValueError(f"{path}: must be a checkpoint of {self.side} in format {FORMAT}, got {got}")
        if not isinstance(found["state"], dict):
            raise ValueError(f"{path}: its state must be a JSON object, got {reprlib.repr(found['state'])}")
        return Checkpoint(path, arrays, found["state"], content.get("arithmetic"))

    def _remove_folder(self, path: Path) -> None:
        """If the path leads to a folder, move it aside: its contents are not ours to remove."""
        if path.is_dir() and not path.is_symlink():
            path.rename(Path(tempfile.mkdtemp(prefix="aside-", dir=self.folder)) / path.name)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-").removesuffix(".safetensors"))


def checksum(arrays: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> str:
    """SHA-256 over ``content`` and over the names, types, shapes and bytes of the arrays."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.require(arrays[name], requirements="C")
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
