"""How good a network is on images that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Evaluation:
    """Counts over held-out images; add batches to it.

    Attributes:
        confusion: (classes,classes), int64: how many images of each class (row) were predicted as each class (column).
        top5: how many had their class among the five likeliest predictions.
        loss: the sum of the images' losses.
    """

    confusion: np.ndarray
    top5: int = 0
    loss: float = 0.0

    @classmethod
    def of(cls, classes: int) -> Evaluation:
        """An empty evaluation."""
        return cls(np.zeros((classes, classes), np.int64))

    def add(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        """Count a batch: probabilities (N,classes) for labels (N,)."""
        chosen = probabilities[np.arange(len(labels)), labels]
        np.add.at(self.confusion, (labels, probabilities.argmax(axis=1)), 1)
        likeliest = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        self.top5 += int((likeliest == labels[:, np.newaxis]).sum())
        # A probability below the smallest normal float counts as that float, so that the mean loss stays finite.
        self.loss -= float(np.log(np.maximum(chosen, np.finfo(chosen.dtype).tiny), dtype=np.float64).sum())

    @property
    def images(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share of images classified correctly."""
        return int(self.confusion.trace()) / self.images

    @property
    def error(self) -> float:
        """The share classified wrongly, the paper's top-1 error."""
        return 1 - self.accuracy

    def numbers(self) -> dict[str, float]:
        """The numbers in a line of metrics."""
        return {
            "held_out_loss": self.loss / self.images,
            "held_out_accuracy": self.accuracy,
            "held_out_top5": self.top5 / self.images,
        }
