"""Batches that are ready in time: threads prepare the next images while the network works on the current batch.

A batch depends only on seed, epoch and its own number, not on the number of threads or on where a run was interrupted. So there
is no state to save: to resume, ask for the epoch's batches from ``first`` on.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from alexnet_from_scratch.arguments import integer
from alexnet_from_scratch.data.ahead import ahead
from alexnet_from_scratch.data.choices import Choices
from alexnet_from_scratch.data.datasets import Split

X = TypeVar("X", covariant=True)


class Preprocessing(Protocol[X]):
    """What both sides' ``data.Preprocessing`` can do; X is an array or a tensor."""

    def training(self, images: list[np.ndarray], choices: Choices) -> X:
        """uint8 images to the network's input, altered at random as ``choices`` say."""

    def evaluation(self, images: list[np.ndarray]) -> X:
        """uint8 images to the network's input."""

    def ten_crops(self, images: list[np.ndarray]) -> X:
        """uint8 images to several inputs each."""


@dataclass(frozen=True)
class Loader(Generic[X]):
    """A split's images in batches, on their way to a network.

    Attributes:
        split: the images and labels.
        preprocessing: turns them into the network's input.
        batch: the number of images in a batch. An epoch's last batch is smaller if they do not divide evenly.
        seed: determines the order of the images and how each is altered.
        workers: the number of threads; each works on one batch.
        rank: which part of every batch this process takes, where several share it: 0 to ``world`` - 1.
        world: the number of processes. Their parts together are the batch that a single process would see. Their sizes differ by
            one image at most, so a last batch of fewer images than processes leaves some without.

    Raises:
        TypeError: a number is not an int.
        ValueError: batch or workers is below 1, or there is no such rank.
    """

    split: Split
    preprocessing: Preprocessing[X]
    batch: int
    seed: int = 0
    workers: int = 2
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        for name in ("batch", "seed", "workers", "rank", "world"):
            integer("Loader", name, getattr(self, name))
        if self.batch < 1 or self.workers < 1:
            raise ValueError(f"Loader: batch and workers must be at least 1, got {self.batch} and {self.workers}")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"Loader: rank must be from 0 to world - 1, got {self.rank} of {self.world}")

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self.split) // self.batch)

    def training(self, epoch: int, first: int = 0) -> Generator[tuple[X, np.ndarray], None, None]:
        """The batches of an epoch, from batch ``first`` on: images shuffled and altered at random, and labels (n,), int64.

        Raises:
            images.BrokenImageError: an image cannot be decoded; raised when its batch is due.
        """
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.split))

        def load(number: int) -> tuple[X, np.ndarray]:
            indices = order[number * self.batch : (number + 1) * self.batch]
            # Drawn for the whole batch, so that every image gets the same choices however many processes share it.
            choices = Choices.draw(len(indices), np.random.default_rng([self.seed, epoch, number]))
            part = slice(*(len(indices) * rank // self.world for rank in (self.rank, self.rank + 1)))
            return self.preprocessing.training(self._images(indices[part]), choices[part]), self.split.labels[indices[part]]

        return ahead(load, range(first, len(self)), workers=self.workers)

    def evaluation(self, *, ten_crops: bool = False) -> Generator[tuple[X, np.ndarray], None, None]:
        """All images once, in their own order and unaltered, and labels (n,), int64; ten crops of each if asked for.

        With several processes, each gets its part of every batch.

        Raises:
            images.BrokenImageError: an image cannot be decoded; raised when its batch is due.
        """
        transform = self.preprocessing.ten_crops if ten_crops else self.preprocessing.evaluation

        def load(number: int) -> tuple[X, np.ndarray]:
            start, stop = number * self.batch, min((number + 1) * self.batch, len(self.split))
            part = np.arange(*(start + (stop - start) * rank // self.world for rank in (self.rank, self.rank + 1)))
            return transform(self._images(part)), self.split.labels[part]

        return ahead(load, range(len(self)), workers=self.workers)

    def _images(self, indices: np.ndarray) -> list[np.ndarray]:
        return [self.split.image(int(index)) for index in indices]


def sample(split: Split, limit: int = 5000, *, workers: int = 2) -> Generator[np.ndarray, None, None]:
    """At most ``limit`` of a split's images, evenly spaced, for statistics."""
    count = min(integer("sample", "limit", limit), len(split))
    return ahead(split.image, (i * len(split) // count for i in range(count)), workers=workers)
