"""When the learning rate drops."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("plateau", "steps")


@dataclass
class Schedule:
    """The learning rate; every drop divides it by ten.

    "plateau": a drop when the held-out error has not improved for ``patience`` epochs, as the authors did by hand (section 5).
    "steps": a drop every ``every`` epochs.

    Attributes:
        drops: the number of drops so far.
        best: the lowest error so far.
        waited: epochs since the lowest error or since the last drop, whichever came later.
    """

    kind: str
    start: float
    patience: int
    every: int
    drops: int = 0
    best: float = 1.0
    waited: int = 0

    @property
    def rate(self) -> float:
        return self.start * 0.1**self.drops

    def after_epoch(self, epoch: int, error: float) -> None:
        """Record the held-out ``error`` (0 to 1) after ``epoch`` (counted from 0)."""
        if self.kind == "steps":
            self.drops = (epoch + 1) // self.every
        if error < self.best:
            self.best, self.waited = error, 0
        else:
            self.waited += 1
        if self.kind == "plateau" and self.waited >= self.patience:
            self.drops += 1
            self.waited = 0

    def state(self) -> dict[str, Any]:
        """What :func:`restore` takes."""
        return asdict(self)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from another schedule's state."""
        self.drops, self.best, self.waited = state["drops"], state["best"], state["waited"]
