"""What a run must find in its folder to continue, and what it does if it has already ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from alexnet_from_scratch.data.datasets import Dataset
from alexnet_from_scratch.runs import weights
from alexnet_from_scratch.runs.checkpoints import Checkpoint
from alexnet_from_scratch.runs.options import Options, spelled
from alexnet_from_scratch.runs.run_folder import RunFolder
from alexnet_from_scratch.runs.schedule import Schedule
from alexnet_from_scratch.runs.state import Position
from alexnet_from_scratch.signs import require_file

# Options that may differ when an ended run is resumed: where things are; and if it is evaluated again, what that depends on.
WITHOUT_STEPS = {"data_dir", "out", "resume"}
OF_AN_EVALUATION = {"ten_crops", "threads", "workers", "device", "no_pictures"}


def checked(
    checkpoint: Checkpoint, options: Options, dataset: Dataset, schedule: Schedule, arrays: Mapping[str, np.ndarray]
) -> tuple[Options, Position]:
    """The options of the checkpoint's run, and its position.

    Args:
        checkpoint: it may come from anywhere, so nothing in it is trusted.
        options: those of the run that is to continue.
        dataset: what the run learns.
        schedule: that of its learning rate, as it is at the start.
        arrays: the learner's, under their names in checkpoints; only the types and shapes of the network's matter.

    Raises:
        ValueError: the checkpoint belongs to another run, or is not valid; the message says why, and names the file.
    """
    path = checkpoint.path
    found = options.of(checkpoint)
    options.require_same_run(path, found)
    if checkpoint.state["data"] != fingerprint(dataset):
        raise ValueError(f"{path}: belongs to a run on other images than {options.data} has now, so it cannot continue")
    position = Position.of(
        path,
        checkpoint.state["position"],
        batches=batches(found, dataset),
        last=last_step(found, dataset),
        schedule=schedule,
    )
    if path.name != f"step-{position.step:09}.safetensors":
        raise ValueError(f"{path}: must have the name of step {position.step}, whose state it holds")
    if position.step > (last := last_step(options, dataset)):
        raise ValueError(
            f"{path}: --epochs and --max-steps end the run after step {last}, but it has already taken {position.step} steps"
        )
    network = {name: array for name, array in arrays.items() if name.startswith(weights.NETWORK)}
    velocities = {"velocity." + name.removeprefix(weights.NETWORK): array for name, array in network.items()}
    checkpoint.require_arrays(network | (velocities if position.step > 0 and options.momentum > 0 else {}))
    return found, position


def evaluated_again(options: Options, found: Options, step: int, folder: RunFolder) -> bool:
    """Whether to evaluate an ended run again: because that was asked for, or because its results are gone.

    Raises:
        ValueError: an option differs from before, and nothing is left for it to change.
    """
    changed = set(options.differences(found))
    again = "ten_crops" in changed or summary_of(folder, step) is None or not folder.weights.exists()
    useless = changed - WITHOUT_STEPS - (OF_AN_EVALUATION if again else set())
    if useless:
        flags = ", ".join(map(spelled, sorted(useless)))
        raise ValueError(
            f"{folder.path}: the run ended after {step} steps, so another {flags} changes nothing. "
            "To continue, raise --epochs or --max-steps; to evaluate again, give --ten-crops"
        )
    return again


def summary_of(folder: RunFolder, step: int) -> dict[str, Any] | None:
    """The summary of a run that ended after this step, or None if it is gone or damaged."""
    try:
        require_file(folder.summary)
        summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) and summary.get("steps") == step else None


def batches(options: Options, dataset: Dataset) -> int:
    """The number of batches in an epoch."""
    return -(-len(dataset.train) // options.batch)


def last_step(options: Options, dataset: Dataset) -> int:
    """The step after which a run ends."""
    whole = options.epochs * batches(options, dataset)
    return min(whole, options.max_steps or whole)


def fingerprint(dataset: Dataset) -> str:
    """Identifies a data set by its classes and labels. It changes if images are added or removed, not if pixels change."""
    digest = hashlib.sha256(json.dumps(dataset.classes).encode())
    for split in (dataset.train, dataset.test):
        digest.update(b"%d" % len(split))
        digest.update(split.labels.tobytes())
    return digest.hexdigest()
