"""What twins and separate runs showed (``training.py``), as files and as verdicts."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

RESULTS = Path(__file__).parent / "committed"  # the committed results
ALLOWED = 10.0  # in any layer, scratch may be this many times as far from float64 as torch
KEPT = 50  # of the steps after these, one in ten is kept
KINDS = ("gradients", "weights")


@dataclass
class Twins:
    """How far twins diverged.

    Attributes:
        options: the trainer's options, for both.
        layers: "conv1" to "fc8".
        images: the gradients' distances for each of the first step's images, shown alone to the starting networks: three lists
            with a relative distance for each layer, "twins" (scratch from torch), "scratch" and "torch" (from float64).
        steps: for each "step", "loss" by network, and for each of ``KINDS`` such distances.
        wall: seconds that each network took; they say little on a busy machine.
        cpu: the same, as seconds of all cores together.
        accuracy: each network's on the test images, afterwards.
        tested: the number of test images.
    """

    options: dict[str, Any]
    layers: list[str]
    date: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    images: list[dict[str, list[float]]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    wall: dict[str, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    tested: int = 0

    def rounding(self, which: str) -> np.ndarray:
        """The effect of rounding alone on each layer's gradients, (layers,): the smallest distance over the images.

        In some images a value is so close to zero, or two values in a window are so close, that rounding decides where ReLU or
        pooling sends the gradient. The difference is then no longer small, but it is not a mistake. A mistake is in every image.
        """
        return np.array([image[which] for image in self.images]).min(axis=0)

    def decided_otherwise(self) -> int:
        """In how many images rounding sent a gradient elsewhere, so that a layer is above ten times rounding alone."""
        distances = np.array([image["twins"] for image in self.images])
        return int((distances > 10 * self.rounding("twins")).any(axis=1).sum())

    def failures(self) -> list[str]:
        """The layers in which scratch's gradients are further from float64's than rounding explains."""
        ours, theirs = self.rounding("scratch"), self.rounding("torch")
        return [
            f"{layer}: in every image scratch's gradients are {ours[i]:.1e} or more from float64's, torch's {theirs[i]:.1e}"
            for i, layer in enumerate(self.layers)
            if not ours[i] <= ALLOWED * theirs[i]
        ]

    def grown(self, factor: float) -> dict[str, int | None]:
        """For each layer, the first step whose gradients are ``factor`` times as far apart as rounding alone makes them; None:
        never.
        """
        beyond = np.array([step["gradients"]["twins"] for step in self.steps]) > factor * self.rounding("twins")
        return {
            layer: self.steps[int(beyond[:, i].argmax())]["step"] if beyond[:, i].any() else None
            for i, layer in enumerate(self.layers)
        }


@dataclass
class Apart:
    """Runs that share only their settings.

    Attributes:
        runs: one for each, with "side", "seed", "accuracy", and the seconds "wall" and "cpu".
        tested: the number of images that an accuracy was measured on.
    """

    options: dict[str, Any]
    date: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    tested: int = 0

    def of(self, side: str, what: str) -> np.ndarray:
        """A side's accuracies or seconds."""
        return np.array([run[what] for run in self.runs if run["side"] == side])

    def difference(self) -> tuple[float, float, float]:
        """How far scratch's mean accuracy is above torch's, and the 95 % interval from the seeds' spread (Welch)."""
        sides = [self.of(side, "accuracy") for side in ("scratch", "torch")]
        difference = float(sides[0].mean() - sides[1].mean())
        squares = [accuracies.var(ddof=1) / len(accuracies) for accuracies in sides]  # the variances of the means
        error = math.sqrt(sum(squares))
        if error == 0:
            return difference, difference, difference
        freedom = sum(squares) ** 2 / sum(square**2 / (len(side) - 1) for square, side in zip(squares, sides, strict=True))
        reach = float(stats.t.ppf(0.975, freedom)) * error
        return difference, difference - reach, difference + reach

    def failures(self) -> list[str]:
        """Differences that the seeds do not explain."""
        difference, low, high = self.difference()
        if low <= 0 <= high:
            return []
        return [f"scratch's mean accuracy is {difference:+.2%} from torch's [{low:+.2%} … {high:+.2%}]"]


def save(result: Twins | Apart, path: Path) -> None:
    """Write JSON, differences to three digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = asdict(result)
    rows = {name: content.pop(name) for name in ("images", "steps", "runs") if name in content}
    head = json.dumps(content, indent=1).removesuffix("\n}")
    for name, values in rows.items():
        head += f',\n "{name}": [\n' + ",\n".join(json.dumps(_short(row)) for row in values) + "\n ]"
    path.write_text(head + "\n}\n")


def load(path: Path) -> Twins | Apart:
    """Read what :func:`save` wrote."""
    content = json.loads(path.read_text())
    return Twins(**content) if "steps" in content else Apart(**content)


def _short(value: Any) -> Any:
    """Fewer digits: a loss has those of float32, a distance has three."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    return [float(f"{item:.3g}") for item in value] if isinstance(value, list) else value
