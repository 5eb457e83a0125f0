"""Batches that are ready in time: threads prepare the next images while the network works on the current batch.

A batch depends only on seed, epoch and its own number, not on the number of threads or on where a run was interrupted. So there
is no state to save: to resume, ask for the epoch's batches from ``first`` on.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from alexnet_from_scratch.arguments import integer, require_flag
from alexnet_from_scratch.data.ahead import ahead
from alexnet_from_scratch.data.choices import Choices
from alexnet_from_scratch.data.datasets import Split

X = TypeVar("X", covariant=True)


class Preprocessing(Protocol[X]):
    """What both sides' ``data.Preprocessing`` can do; X is an array or a tensor."""

    def training(self, images: list[np.ndarray], choices: Choices) -> X:
        """Turn uint8 images into the network's input, altered as ``choices`` say."""

    def evaluation(self, images: list[np.ndarray]) -> X:
        """Turn uint8 images into the network's input."""

    def ten_crops(self, images: list[np.ndarray]) -> X:
        """Turn each uint8 image into several inputs."""


@dataclass(frozen=True)
class Loader(Generic[X]):
    """A split's images in batches, on their way to a network.

    Attributes:
        split: the images and labels.
        preprocessing: turns them into the network's input.
        batch: the number of images in a batch. The last batch of an epoch is smaller if too few images are left.
        seed: determines the order of the images and how each is altered.
        workers: the number of threads; each works on one batch.
        rank: which part of every batch this process takes, if several processes share it: 0 to ``world`` - 1.
        world: the number of processes. Their parts together are the batch that a single process would see. The parts differ by at
            most one image. If a batch has fewer images than there are processes, some processes get none.

    Raises:
        TypeError: a number is not an int, ``split`` no Split, or ``preprocessing`` lacks a method.
        ValueError: batch or workers is below 1, seed below 0, or there is no such rank.
    """

    split: Split
    preprocessing: Preprocessing[X]
    batch: int
    seed: int = 0
    workers: int = 2
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        _require_split("Loader", self.split)
        if not all(callable(getattr(self.preprocessing, name, None)) for name in ("training", "evaluation", "ten_crops")):
            raise TypeError(f"Loader: preprocessing must be a Preprocessing, got {type(self.preprocessing).__name__}")
        for name, least in {"batch": 1, "seed": 0, "workers": 1, "rank": 0, "world": 1}.items():
            object.__setattr__(self, name, integer("Loader", name, getattr(self, name), low=least))
        if not self.rank < self.world:
            raise ValueError(f"Loader: rank must be from 0 to world - 1, got {self.rank} of {self.world}")

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self.split) // self.batch)

    def training(self, epoch: int, first: int = 0) -> Generator[tuple[X, np.ndarray], None, None]:
        """The batches of an epoch, from batch ``first`` on: images shuffled and altered at random, and labels (n,), int64.

        Raises:
            TypeError: ``epoch`` or ``first`` is not an int.
            ValueError: ``epoch`` or ``first`` is below 0.
            images.BrokenImageError: an image cannot be decoded; raised when its batch is due.
        """
        epoch = integer("Loader.training", "epoch", epoch, low=0)
        first = integer("Loader.training", "first", first, low=0)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.split))

        def load(number: int) -> tuple[X, np.ndarray]:
            indices = order[number * self.batch : (number + 1) * self.batch]
            # Drawn for the whole batch, so that every image gets the same choices however many processes share the batch.
            choices = Choices.draw(len(indices), np.random.default_rng([self.seed, epoch, number]))
            part = slice(*(len(indices) * rank // self.world for rank in (self.rank, self.rank + 1)))
            return self.preprocessing.training(self._images(indices[part]), choices[part]), self.split.labels[indices[part]]

        return ahead(load, range(first, len(self)), workers=self.workers)

    def evaluation(self, *, ten_crops: bool = False) -> Generator[tuple[X, np.ndarray], None, None]:
        """All images once, in order and without random changes, in batches with their labels, (n,), int64.

        With ``ten_crops``, several crops of each image. If several processes share a batch, each gets its part.

        Raises:
            images.BrokenImageError: an image cannot be decoded; raised when its batch is due.
        """
        require_flag("Loader.evaluation", "ten_crops", ten_crops)
        transform = self.preprocessing.ten_crops if ten_crops else self.preprocessing.evaluation

        def load(number: int) -> tuple[X, np.ndarray]:
            start, stop = number * self.batch, min((number + 1) * self.batch, len(self.split))
            part = np.arange(*(start + (stop - start) * rank // self.world for rank in (self.rank, self.rank + 1)))
            return transform(self._images(part)), self.split.labels[part]

        return ahead(load, range(len(self)), workers=self.workers)

    def _images(self, indices: np.ndarray) -> list[np.ndarray]:
        return [self.split.image(int(index)) for index in indices]


def sample(split: Split, limit: int = 5000, *, workers: int = 2) -> Generator[np.ndarray, None, None]:
    """At most ``limit`` of a split's images, evenly spaced, for statistics.

    Raises:
        TypeError: ``split`` is no Split, or a number no int.
        ValueError: ``limit`` is below 0, or ``workers`` below 1.
    """
    _require_split("sample", split)
    count = min(integer("sample", "limit", limit, low=0), len(split))
    workers = integer("sample", "workers", workers, low=1)
    return ahead(split.image, (i * len(split) // count for i in range(count)), workers=workers)


def _require_split(where: str, split: object) -> None:
    if not isinstance(split, Split):
        raise TypeError(f"{where}: split must be a Split, got {type(split).__name__}")
