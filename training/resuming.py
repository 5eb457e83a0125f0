"""What a run must find in its folder to go on, and what it does where it has ended already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from training import weights
from training.checkpoints import Checkpoint
from training.datasets import Dataset
from training.options import Options, spelled
from training.run_folder import RunFolder
from training.schedule import Schedule
from training.state import Position

# Options that may differ when an ended run is resumed: where everything is; and what an evaluation depends on, if there is one.
WITHOUT_STEPS = {"data_dir", "out", "resume"}
OF_AN_EVALUATION = {"ten_crops", "threads", "workers", "device", "no_pictures"}


def checked(
    checkpoint: Checkpoint, options: Options, dataset: Dataset, schedule: Schedule, arrays: Mapping[str, np.ndarray]
) -> tuple[Options, Position]:
    """The options of the run that the checkpoint is of, and where it was.

    Args:
        checkpoint: which came from anywhere, so nothing in it is believed.
        options: of the run that is to go on.
        dataset: what it learns.
        schedule: of its learning rate, at the start.
        arrays: the network's, under the names that checkpoints have; only their types and shapes matter.

    Raises:
        ValueError: it is of another run, or of none; the message names the file and the field.
    """
    path = checkpoint.path
    found = options.of(checkpoint)
    options.require_same_run(path, found)
    if checkpoint.state["data"] != fingerprint(dataset):
        raise ValueError(f"{path}: is of a run on other images than {options.data} has now: nothing to go on with")
    position = Position.of(
        path,
        checkpoint.state["position"],
        batches=batches(found, dataset),
        last=last_step(found, dataset),
        schedule=schedule,
    )
    if path.name != f"step-{position.step:09}.safetensors":
        raise ValueError(f"{path}: must have the name of step {position.step}, of which it is")
    if position.step > (last := last_step(options, dataset)):
        raise ValueError(
            f"{path}: --epochs and --max-steps end the run after step {last}, but it has taken {position.step} steps already"
        )
    network = {name: array for name, array in arrays.items() if name.startswith(weights.NETWORK)}
    velocities = {"velocity." + name.removeprefix(weights.NETWORK): array for name, array in network.items()}
    checkpoint.require_arrays(network | (velocities if position.step > 0 and options.momentum > 0 else {}))
    return found, position


def evaluated_again(options: Options, found: Options, step: int, folder: RunFolder) -> bool:
    """Whether a run that has ended is to be evaluated again: that was asked for, or its results are gone.

    Raises:
        ValueError: an option is another one than before, and nothing is left for it to change.
    """
    changed = set(options.differences(found))
    again = "ten_crops" in changed or summary_of(folder, step) is None or not folder.weights.exists()
    useless = changed - WITHOUT_STEPS - (OF_AN_EVALUATION if again else set())
    if useless:
        flags = ", ".join(map(spelled, sorted(useless)))
        raise ValueError(
            f"{folder.path}: the run has ended after {step} steps, where another {flags} changes nothing. "
            "To go on, give more --epochs or --max-steps; to evaluate again, --ten-crops"
        )
    return again


def summary_of(folder: RunFolder, step: int) -> dict[str, Any] | None:
    """The summary of a run that has ended after so many steps, unless it is gone or damaged."""
    try:
        summary = json.loads(folder.summary.read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) and summary.get("steps") == step else None


def batches(options: Options, dataset: Dataset) -> int:
    """How many an epoch has."""
    return -(-len(dataset.train) // options.batch)


def last_step(options: Options, dataset: Dataset) -> int:
    """After which step a run ends."""
    whole = options.epochs * batches(options, dataset)
    return min(whole, options.max_steps or whole)


def fingerprint(dataset: Dataset) -> str:
    """What tells a data set from another one, or from itself when images have come or gone: classes and labels."""
    digest = hashlib.sha256(json.dumps(dataset.classes).encode())
    for split in (dataset.train, dataset.test):
        digest.update(b"%d" % len(split))
        digest.update(split.labels.tobytes())
    return digest.hexdigest()
