"""What a checkpoint says about its run, apart from arrays. It is checked like anything from a file, despite the checksum."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from alexnet_from_scratch.runs.checkpoints import NAMED
from alexnet_from_scratch.runs.schedule import Schedule
from alexnet_from_scratch.text import shown

NUMBERS = ("held_out_loss", "held_out_accuracy", "held_out_top5")


@dataclass
class Position:
    """Where a run is, and what it must know to continue, apart from arrays.

    Attributes:
        step: steps taken.
        epoch: epochs finished.
        batch: batches of the current epoch that have been trained on.
        evaluated: the step after which the network was last evaluated; -1 if never.
        numbers: that evaluation's result.
        metrics: the length of the metrics file in bytes.
        seconds: how long the run has taken, over all its parts.
        schedule: the state of the learning rate's schedule.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    evaluated: int = -1
    numbers: dict[str, float] = field(default_factory=dict)
    metrics: int = 0
    seconds: float = 0.0
    schedule: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, value: Any, *, batches: int, last: int, schedule: Schedule) -> Self:
        """The position in the checkpoint ``path``.

        Args:
            path: for the message.
            value: what should be a position, from JSON.
            batches: the number of batches in an epoch.
            last: the step at which the run was to end.
            schedule: that of the learning rate, as it is at the start.

        Raises:
            ValueError: ``value`` is not a position, or is impossible in such a run; the message names the field.
        """
        require_fields(path, "position", value, [field.name for field in fields(cls)])
        position = cls(**value)
        for name, low, high in (
            ("step", 0, last),
            ("epoch", 0, math.inf),
            ("batch", 0, batches),
            ("evaluated", -1, math.inf),
            ("metrics", 0, math.inf),
        ):
            require_number(path, f"position.{name}", value[name], int, low, high)
        require_number(path, "position.seconds", value["seconds"], float, 0)
        if position.step != position.epoch * batches + position.batch or position.evaluated > position.step:
            raise ValueError(
                f"{path}: position.step must be that of position.epoch and position.batch, {batches} an epoch, and not before "
                f"position.evaluated, got {position.step} with {position.epoch}, {position.batch} and {position.evaluated}"
            )
        require_fields(path, "position.numbers", value["numbers"], () if position.evaluated < 0 else NUMBERS)
        for name, number in position.numbers.items():
            require_number(path, f"position.numbers.{name}", number, float, 0, math.inf if name == NUMBERS[0] else 1)
        expected = schedule.state()
        require_fields(path, "position.schedule", value["schedule"], expected)
        for name, number in position.schedule.items():
            if name in ("drops", "waited"):
                require_number(path, f"position.schedule.{name}", number, int, 0, position.epoch)
            elif name == "best":
                require_number(path, "position.schedule.best", number, float, 0, 1)
            elif number != expected[name] or isinstance(number, bool):
                raise ValueError(f"{path}: position.schedule.{name} must be {expected[name]!r}, got {reprlib.repr(number)}")
        if schedule.kind == "steps" and position.schedule["drops"] != position.epoch // schedule.every:
            raise ValueError(
                f"{path}: position.schedule.drops must be {position.epoch // schedule.every} after {position.epoch} epochs, "
                f"got {position.schedule['drops']}"
            )
        return position

    def state(self) -> dict[str, Any]:
        """What :meth:`of` takes."""
        return asdict(self)


def require_fields(path: Path, name: str, value: Any, fields: Collection[str]) -> None:
    """Raise ValueError unless ``value`` is a JSON object with exactly these fields."""
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {name} must be a JSON object, got {reprlib.repr(value)}")
    problems = [f"without {field}" for field in fields if field not in value]
    problems += [f"with {shown(field)}" for field in value if field not in fields]
    if problems:
        raise ValueError(f"{path}: {name} must have the fields {', '.join(fields)}, got it {', '.join(problems[:NAMED])}")


def require_number(path: Path, name: str, value: Any, kind: type, low: float, high: float = math.inf) -> None:
    """Raise ValueError unless ``value`` is of ``kind`` (int or float) and from ``low`` to ``high``.

    An int also counts as a float, a bool as neither. A float must be finite.
    """
    fits = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if not (fits and low <= value <= high and value < math.inf):
        upper = "or more" if high == math.inf else f"to {high}"
        raise ValueError(f"{path}: {name} must be {kind.__name__}, {low} {upper}, got {reprlib.repr(value)}")
