"""The pictures and their preprocessing: the same pixels on both sides."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import scratch.data
import torch_impl.data

SIDES: list[Any] = [scratch.data, torch_impl.data]
lengths = st.integers(2, 40)  # not 1: torch 2.13 leaves the rows of an image alone that is and stays one pixel wide


@given(old=st.tuples(lengths, lengths), new=st.tuples(lengths, lengths), seed=st.integers(0, 2**32 - 1))
def test_resize_is_torchs(old, new, seed):
    images = np.random.default_rng(seed).uniform(-1, 1, (2, 3, *old))
    ours = scratch.data.resize(images, new)
    theirs = F.interpolate(torch.from_numpy(images), new, mode="bilinear", antialias=True).numpy()
    # Two weighted means, of at most 80 pixels each: every element is good to 2·80 roundings of 1.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=160 * np.finfo(np.float64).eps)
    assert np.array_equal(torch_impl.data.resize(torch.from_numpy(images), new).numpy(), theirs)


def test_resize_to_the_same_size_changes_nothing():
    images = np.random.default_rng(0).random((2, 5, 7), np.float32)
    assert np.array_equal(scratch.data.resize(images, (5, 7)), images)


def test_photographs():
    ours, theirs = scratch.data.photographs(), torch_impl.data.photographs()
    assert tuple(ours) == tuple(theirs) == scratch.data.PHOTOGRAPHS == torch_impl.data.PHOTOGRAPHS
    for name, photograph in ours.items():
        assert photograph.dtype == np.uint8
        assert photograph.shape[2] == 3
        assert min(photograph.shape[:2]) >= 256
        assert np.array_equal(photograph, theirs[name].numpy())


def test_prepare_keeps_the_middle():
    # Brightness grows from left to right and does not depend on the row, so what was cut off shows.
    photograph = np.broadcast_to(np.linspace(0, 255, 768)[:, np.newaxis], (512, 768, 3)).round().astype(np.uint8)
    prepared = scratch.data.prepare(photograph)
    assert prepared.shape == (3, 256, 256)
    middle = 255 * (np.arange(64, 320) + 0.5) / 384
    np.testing.assert_allclose(prepared, np.broadcast_to(middle, prepared.shape), atol=1)
    theirs = torch_impl.data.prepare(torch.from_numpy(photograph)).numpy()
    np.testing.assert_allclose(prepared, theirs, rtol=1e-13)


@pytest.mark.parametrize("seed", [0, 1])
def test_batch_is_the_same_on_both_sides(seed):
    images, labels = scratch.data.batch(32, seed=seed)
    their_images, their_labels = torch_impl.data.batch(32, seed=seed)
    # Both sides round to float32 once, at the end, from numbers that agree to 1e-12: they differ there by one step at most.
    np.testing.assert_allclose(images, their_images.numpy(), rtol=0, atol=np.spacing(np.float32(255)))
    assert np.array_equal(labels, their_labels.numpy())
    assert images.shape == (32, 3, 224, 224)
    assert images.dtype == np.float32
    assert labels.dtype == np.int64
    assert np.array_equal(labels, np.arange(32) % 7)
    assert len({image.tobytes() for image in images}) == 32


def test_batch_repeats_itself_and_grows_at_its_end():
    images, _ = scratch.data.batch(16)
    assert np.array_equal(images[:9], scratch.data.batch(9)[0])
    assert not np.array_equal(images, scratch.data.batch(16, seed=1)[0])


def test_batch_shows_crops_and_mirror_images_without_their_mean():
    photographs = [scratch.data.prepare(photograph) for photograph in scratch.data.photographs().values()]
    mean = np.mean(photographs, axis=0)
    images, labels = scratch.data.batch(14)
    mirrored = 0
    for image, label in zip(images, labels, strict=True):
        whole = (photographs[label] - mean).astype(np.float32)
        for candidate in (whole, whole[..., ::-1]):
            corners = np.argwhere((candidate[0, :33, :33] == image[0, 0, 0]) & (candidate[1, :33, :33] == image[1, 0, 0]))
            if any(np.array_equal(candidate[:, top : top + 224, left : left + 224], image) for top, left in corners):
                break
        else:
            pytest.fail(f"the image of photograph {label} is no crop of it")
        mirrored += candidate is not whole
    assert 0 < mirrored < 14


def test_digits():
    images, labels = scratch.data.digits()
    their_images, their_labels = torch_impl.data.digits()
    assert images.shape == (1797, 1, 28, 28)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert set(labels) == set(range(10))
    np.testing.assert_allclose(images, their_images.numpy(), rtol=0, atol=2.0**-24)
    assert np.array_equal(labels, their_labels.numpy())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("function", "module"), [("photographs", "skimage.data"), ("digits", "sklearn.datasets")])
def test_absent_packages_are_named(side, function, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install 'alexnet-from-scratch\[data\]'"):
        getattr(side, function)()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: scratch.data.batch(0), ValueError, "batch: n must be at least 1, got 0"),
        (lambda: SIDES[0].batch("2"), TypeError, "batch: n must be an int, got '2'"),
        (lambda: scratch.data.batch(15247), ValueError, "batch: n must be at most 15246, the number of crops, got 15247"),
        (lambda: torch_impl.data.batch(15247), ValueError, "batch: n must be from 1 to 15246, the number of crops, got 15247"),
        (
            lambda: scratch.data.prepare(np.ones((300, 300), np.uint8)),
            ValueError,
            r"prepare: photograph .*got \(300, 300\) and uint8",
        ),
        (lambda: scratch.data.prepare(np.ones((300, 300, 3))), ValueError, r"got \(300, 300, 3\) and float64"),
        (lambda: scratch.data.centre_crop(np.ones((3, 9, 5)), 6), ValueError, r"at least 6 high and wide, got \(3, 9, 5\)"),
        (lambda: scratch.data.resize(np.ones(3), (2, 2)), ValueError, r"resize: images must have shape .*, got \(3,\)"),
        (lambda: scratch.data.resize(np.ones((0, 3)), (2, 2)), ValueError, r"H and W of at least 1, got \(0, 3\)"),
        (lambda: scratch.data.resize(np.ones((3, 3)), (0, 2)), ValueError, "resize: size must be at least 1, got 0"),
        (
            lambda: scratch.data.resize(np.ones((3, 3), np.uint8), (2, 2)),
            TypeError,
            "images must be float32 or float64, got uint8",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
