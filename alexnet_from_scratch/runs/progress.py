"""The progress bar of a run."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from alexnet_from_scratch.packages import optional

if TYPE_CHECKING:  # if rich is missing, the command itself says so
    from rich.console import Console


class ProgressBar:
    """Shows where a run is, how fast it is and how well it does; shows nothing if the output is not a terminal."""

    def __init__(self, console: Console, step: int, steps: int) -> None:
        rich = optional("rich.progress")
        self._progress = rich.Progress(
            rich.TextColumn("epoch {task.fields[epoch]}"),
            rich.BarColumn(),
            rich.TextColumn("{task.completed}/{task.total}  loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.1%}"),
            rich.TextColumn("{task.fields[speed]:.0f} images/s"),
            rich.TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._smooth: np.ndarray | None = None  # loss, accuracy, images/s
        self._task = self._progress.add_task("", total=steps, completed=step, epoch=1, loss=0.0, accuracy=0.0, speed=0.0)
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, step: int, epoch: int, images: int, loss: float, accuracy: float) -> None:
        """Show that a step is done, with each number's mean over about twenty steps."""
        now = time.monotonic()
        numbers = np.array([loss, accuracy, images / max(now - self._last, 1e-9)])
        self._last = now
        self._smooth = numbers if self._smooth is None else 0.95 * self._smooth + 0.05 * numbers
        loss, accuracy, speed = self._smooth.tolist()
        self._progress.update(self._task, completed=step, epoch=epoch + 1, loss=loss, accuracy=accuracy, speed=speed)
