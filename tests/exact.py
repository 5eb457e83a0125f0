"""What is known to the last digit, checked by functions that :mod:`tests.mutants_training` also runs on planted mistakes."""

from __future__ import annotations

import numpy as np
import torch

from alexnet_from_scratch.data.datasets import Split, digits, open_dataset
from alexnet_from_scratch.data.loader import sample
from alexnet_from_scratch.runs.evaluation import Evaluation
from torch_impl import convert

# 255/16 times 0 to 16, to the nearest whole number; 127.5 to the even one.
GREYS = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]


def check_digits() -> None:
    """The digits' 17 levels of grey are rounded, not cut; a fifth of each digit's images is held out."""
    assert np.unique(digits()[0]).tolist() == GREYS
    dataset = open_dataset("digits")
    assert np.bincount(dataset.test.labels).tolist() == [36, 37, 36, 37, 37, 37, 37, 36, 35, 36]
    assert len(dataset.train) == 1433


def check_photographs() -> None:
    """An epoch shows each of the seven photographs sixteen times."""
    dataset = open_dataset("photographs")
    assert np.bincount(dataset.train.labels).tolist() == [16] * 7
    assert len(dataset.test) == 7


def check_sample() -> None:
    """The statistics of many images come from 5,000 of them."""
    split = Split(np.zeros(12_000, np.int64), lambda i: np.array(i))
    assert [int(image) for image in sample(split)] == [i * 12_000 // 5_000 for i in range(5_000)]


def check_rescaled() -> None:
    """The scale of torchvision's first layer is exact until the weight is rounded, once."""
    weight = np.random.default_rng(0).standard_normal((64, 3, 11, 11), np.float32)
    scale = 255 * np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    for power, wanted in ((1, weight * scale), (-1, weight / scale)):
        np.testing.assert_array_equal(convert.rescaled(torch.from_numpy(weight), power).numpy(), wanted.astype(np.float32))


def check_ties() -> None:
    """Among equal probabilities the first classes are the likeliest, with a thousand classes as with six."""
    for classes in (6, 20, 1000):
        likely = np.arange(classes) % 3 != 1
        five = np.concatenate([np.flatnonzero(likely), np.flatnonzero(~likely)])[:5]
        evaluation = Evaluation.of(classes)
        evaluation.add(np.tile(np.where(likely, np.float32(2), np.float32(1)) / classes, (5, 1)), five)
        assert evaluation.top5 == 5, f"{classes} classes"
