"""What is known exactly, checked by functions that :mod:`tests.mutants_training` also runs on planted mistakes."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alexnet_from_scratch.data.ahead import ahead
from alexnet_from_scratch.data.datasets import Dataset, Split, digits, open_dataset
from alexnet_from_scratch.data.loader import Loader, sample
from alexnet_from_scratch.runs import resuming
from alexnet_from_scratch.runs.evaluation import Evaluation
from tests.runs import data_of
from torch_impl import convert
from torch_impl.alexnet import AlexNet
from torch_impl.data import Preprocessing
from torch_impl.train import Workers, evaluate

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


def check_fingerprint() -> None:
    """Other classes, and labels that change on either side or between the sides, make another data set."""

    def of(train: str, test: str, classes: tuple[str, ...] = ("a", "b")) -> str:
        labels = (np.array(list(part), np.int64) for part in (train, test))
        return resuming.fingerprint(Dataset("digits", classes, False, *(Split(part, lambda i: np.array(i)) for part in labels)))

    first = of("0101", "01")
    assert of("0101", "01") == first
    # In the first two, all labels one after the other are the same.
    others = (("01", "0101"), ("010", "101"), ("0101", "00"), ("0101", "010"), ("0100", "01"), ("010", "01"))
    assert first not in [of(*labels) for labels in others]
    assert first not in [of("0101", "01", classes) for classes in (("a", "c"), ("a", "b", "c"))]


def check_sample() -> None:
    """The statistics of many images come from 5,000 of them."""
    split = Split(np.zeros(12_000, np.int64), lambda i: np.array(i))
    assert [int(image) for image in sample(split)] == [i * 12_000 // 5_000 for i in range(5_000)]


def check_jobs_that_have_not_begun() -> None:
    """When work ahead is closed, the jobs that have begun end, and no other begins."""
    begun, gate = [], threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, *args: Any, **options: Any) -> None:
            gate.set()  # only now, when the jobs that wait have been dropped
            super().shutdown(*args, **options)

    def work(i: int) -> int:
        begun.append(i)
        if i > 0:
            gate.wait()
        return i

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("alexnet_from_scratch.data.ahead.ThreadPoolExecutor", Pool)
        results = ahead(work, itertools.count(), workers=2)
        assert next(results) == 0
        results.close()
    assert 3 not in begun


def check_rescaled() -> None:
    """The scale of torchvision's first layer is exact until the weight is rounded, once."""
    weight = np.random.default_rng(0).standard_normal((64, 3, 11, 11), np.float32)
    scale = 255 * np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    for power, wanted in ((1, weight * scale), (-1, weight / scale)):
        np.testing.assert_array_equal(convert.rescaled(torch.from_numpy(weight), power).numpy(), wanted.astype(np.float32))


def check_empty_shares() -> None:
    """Five processes share batches of four images, so each batch leaves one process without any; together they count them all."""
    data = data_of()
    preprocessing = Preprocessing.fit(sample(data.train), size=28, channels=1, mirror=True)
    torch.manual_seed(0)
    model = AlexNet("mini", 2)
    for ten_crops in (False, True):

        def evaluated(rank: int, world: int, ten_crops: bool = ten_crops) -> Evaluation:
            loader = Loader(data.test, preprocessing, 4, rank=rank, world=world)
            return evaluate(model, loader, 2, Workers(rank, world, torch.device("cpu")), ten_crops=ten_crops)

        whole, shares = evaluated(0, 1), [evaluated(rank, 5) for rank in range(5)]
        assert sorted(share.confusion.sum() for share in shares) == [0, 1, 1, 1, 1]
        np.testing.assert_array_equal(sum(share.confusion for share in shares), whole.confusion)
        np.testing.assert_allclose(sum(share.loss for share in shares), whole.loss, rtol=1e-5)


def check_ties() -> None:
    """Among equal probabilities the first classes are the likeliest, with a thousand classes as with six."""
    for classes in (6, 20, 1000):
        likely = np.arange(classes) % 3 != 1
        five = np.concatenate([np.flatnonzero(likely), np.flatnonzero(~likely)])[:5]
        evaluation = Evaluation.of(classes)
        evaluation.add(np.tile(np.where(likely, np.float32(2), np.float32(1)) / classes, (5, 1)), five)
        assert evaluation.top5 == 5, f"{classes} classes"


def check_names(folder: Path) -> None:
    """A name of a class keeps its blanks, wherever its line is; empty lines at the end are none."""
    path = folder / "names.txt"
    path.write_bytes("a\n\n b\t\n\u2003\n\n\r\n".encode())
    assert convert.read_names(path) == ["a", "", " b\t", "\u2003"]
