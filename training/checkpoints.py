"""Checkpoints: all that a run needs to go on as if nothing had happened, a file each.

Beside the arrays (weights, velocities) the header holds the rest as JSON, and a checksum over both: whatever a crash, a full
disk or a bad cable did to a file, it is either whole or known to be damaged, and then the one before it is used.

No state of a random generator is in it, because none has any: whatever is random in a step is drawn from a generator that
starts anew from the run's seed and the step's number (:func:`generator`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from training import files

KIND = "checkpoint"
FORMAT = 1


class Purpose(IntEnum):
    """What random numbers are drawn for. Each purpose has its own."""

    WEIGHTS = 0
    DROPOUT = 1


def seeds(seed: int, purpose: Purpose, step: int = 0) -> np.random.SeedSequence:
    """Where the random numbers of this purpose and step start."""
    return np.random.SeedSequence(seed, spawn_key=(purpose, step))


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds: arrays, and a dict that JSON can express."""

    path: Path
    arrays: dict[str, np.ndarray]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run, in a folder, of which the last ``keep`` stay.

    Args:
        folder: where they lie; made when the first is saved.
        side: "scratch" or "torch_impl".
        keep: how many, at least 1.
    """

    def __init__(self, folder: Path, side: str, keep: int) -> None:
        self.folder, self.side, self.keep = folder, side, keep

    def save(self, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> Path:
        """Write a checkpoint and remove those that are too many.

        Raises:
            OSError: it cannot be written. Those before are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:09}.safetensors"
        content = {"format": FORMAT, "side": self.side, "state": state}
        try:
            files.write(path, KIND, {"content": content, "sha256": checksum(arrays, content)}, arrays)
        except OSError as error:
            last = next(reversed(self.paths()), "none")
            raise OSError(
                error.errno, f"{path}: {error.strerror}. The last checkpoint, from which --resume goes on, is {last}"
            ) from error
        paths = self.paths()
        newer = paths.index(path) + 1  # those are damaged and were passed over when the run was resumed
        for useless in paths[newer:] + paths[: max(0, newer - self.keep)]:
            useless.unlink()
        return path

    def paths(self) -> list[Path]:
        """The files, oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def newest(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole, or None if there is no file at all; ``report`` hears of each that is not.

        Raises:
            ValueError: there are files, but none is a whole checkpoint; or it is one of the other side, or of another version.
        """
        problems = []
        for path in reversed(self.paths()):
            try:
                return self._load(path)
            except files.NotWholeError as error:
                report(f"{error}. The checkpoint before it is used, if there is one")
                problems.append(str(error))
        if problems:
            raise ValueError(f"{self.folder}: holds no checkpoint to go on from:\n  " + "\n  ".join(problems))
        return None

    def _load(self, path: Path) -> Checkpoint:
        header = files.read_header(path, KIND)
        arrays, content = header.read(), header.about.get("content")
        if not isinstance(content, dict) or checksum(arrays, content) != header.about.get("sha256"):
            raise files.NotWholeError(f"{path}: is damaged: its checksum is not that of its content")
        if (content["format"], content["side"]) != (FORMAT, self.side):
            raise ValueError(
                f"{path}: must be a checkpoint of {self.side} in format {FORMAT}, "
                f"got one of {content['side']} in format {content['format']}"
            )
        return Checkpoint(path, arrays, content["state"])


def checksum(arrays: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> str:
    """SHA-256 over all of it: names, types, shapes, bytes."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.require(arrays[name], requirements="C")
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data if array.size else b"")
    return digest.hexdigest()
