"""Batches: what is in them, in which order, and the threads that prepare them."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest

import scratch.data
import torch_impl.data
from alexnet_from_scratch.data.ahead import ahead
from alexnet_from_scratch.data.choices import Choices
from alexnet_from_scratch.data.datasets import Split
from alexnet_from_scratch.data.loader import Loader, sample
from tests.exact import check_jobs_that_have_not_begun, check_sample


def noise(n):
    images = np.random.default_rng(0).integers(0, 256, (n, 28, 28), np.uint8)
    return Split(np.arange(n), images.__getitem__)


def loader(split, batch=4, side=scratch.data, **options):
    preprocessing = side.Preprocessing.fit(sample(split), size=28, channels=1, mirror=True)
    return Loader(split, preprocessing, batch, **options)


def flat(batches):
    return [(np.asarray(x).tobytes(), labels.tolist()) for x, labels in batches]


def test_every_image_comes_once_an_epoch_with_its_label():
    split = noise(22)
    loading = loader(split)
    assert len(loading) == 6
    evaluated = list(loading.evaluation())
    expected = loading.preprocessing.evaluation([split.image(i) for i in range(22)])
    assert np.array_equal(np.concatenate([x for x, _ in evaluated]), expected)
    assert np.array_equal(np.concatenate([labels for _, labels in evaluated]), np.arange(22))
    trained = list(loading.training(0))
    assert [len(x) for x, _ in trained] == [4, 4, 4, 4, 4, 2]
    assert sorted(np.concatenate([labels for _, labels in trained])) == list(range(22))
    for x, labels in trained:  # the middle of a shifted or mirrored image still shows part of the image with that label
        for picture, label in zip(x[:, 0], labels, strict=True):
            whole = expected[label, 0]
            assert any(
                np.array_equal(picture[4:24, 4:24], candidate[4 + down : 24 + down, 4 + right : 24 + right])
                for candidate in (whole, whole[:, ::-1])
                for down, right in itertools.product(range(-2, 3), repeat=2)
            )
    crops, _ = next(loading.evaluation(ten_crops=True))
    assert crops.shape == (4, 10, 1, 28, 28)


@pytest.mark.parametrize("side", [scratch.data, torch_impl.data])
def test_batches_depend_on_seed_and_epoch_alone(side):
    split = noise(22)
    expected = flat(loader(split, side=side, seed=3, workers=1).training(2))
    for workers in (2, 5):
        assert flat(loader(split, side=side, seed=3, workers=workers).training(2)) == expected
    for first in (1, 5, 6):
        assert flat(loader(split, side=side, seed=3).training(2, first)) == expected[first:]
    for seed, epoch in [(4, 2), (3, 1)]:
        other = flat(loader(split, side=side, seed=seed).training(epoch))
        assert not {x for x, _ in other} & {x for x, _ in expected}
        assert [labels for _, labels in other] != [labels for _, labels in expected]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_share_a_batch(world):
    split = noise(22)
    whole = list(loader(split).training(1)), list(loader(split).evaluation())
    parts = [loader(split, rank=rank, world=world) for rank in range(world)]
    for one, shared in zip(whole, ([part.training(1) for part in parts], [part.evaluation() for part in parts]), strict=True):
        for (x, labels), *pieces in zip(one, *shared, strict=True):
            assert np.array_equal(np.concatenate([piece[0] for piece in pieces]), x)
            assert np.array_equal(np.concatenate([piece[1] for piece in pieces]), labels)
            assert max(len(piece[1]) for piece in pieces) - min(len(piece[1]) for piece in pieces) <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"rank": 2, "world": 2}, "rank must be from 0 to world - 1, got 2 of 2"),
        ({"rank": -1}, "rank must be at least 0, got -1"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_loaders_refuse_what_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=f"^Loader: {message}"):
        loader(noise(4), **options)


@pytest.mark.parametrize("value", [None, "x", 1.5, True, [1], np.ones(3)], ids=type)
@pytest.mark.parametrize("name", ["batch", "seed", "workers", "rank", "world"])
def test_loaders_count_in_ints(name, value):
    with pytest.raises(TypeError, match=f"^Loader: {name} must be an int, got "):
        loader(noise(4), **{name: value})
    with pytest.raises(TypeError, match=r"^sample: limit must be an int, got "):
        sample(noise(4), value)


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("data")]


def test_work_ahead_is_bounded_in_order_and_ends():
    begun = []

    def work(i):
        begun.append(i)
        time.sleep(0.002 * (i % 3))
        return i * i

    assert list(ahead(work, range(20), workers=3)) == [i * i for i in range(20)]
    begun.clear()
    results = ahead(work, itertools.count(), workers=2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    time.sleep(0.05)
    assert max(begun) < 3 + 4
    results.close()
    assert not threads()
    for _ in ahead(work, itertools.count(), workers=2):
        break
    assert not threads()


def test_work_ahead_that_has_not_begun_is_dropped():
    check_jobs_that_have_not_begun()


def test_sample_is_spread_evenly():
    split = noise(10)
    assert [int(image[0, 0]) for image in sample(split, 5)] == [int(split.image(i)[0, 0]) for i in (0, 2, 4, 6, 8)]
    assert len(list(sample(split))) == 10
    check_sample()


def test_choices_are_spread_over_all_there_is():
    choices = Choices.draw(10_000, np.random.default_rng(0))
    assert abs(choices.mirror.mean() - 0.5) < 0.02
    assert abs(choices.offset.mean() - 0.5) < 0.01
    assert (choices.offset >= 0).all()
    assert (choices.offset < 1).all()
    assert abs(choices.colour.std() - 1) < 0.02
    part = choices[3:5]
    assert np.array_equal(part.offset, choices.offset[3:5])
    assert np.array_equal(part.mirror, choices.mirror[3:5])
    assert np.array_equal(part.colour, choices.colour[3:5])
