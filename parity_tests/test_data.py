"""The pictures and their preprocessing: the same pixels on both sides."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import scratch.data
import torch_impl.data
from alexnet_from_scratch.data import datasets
from alexnet_from_scratch.data.choices import Choices

SIDES: list[Any] = [scratch.data, torch_impl.data]
PIXEL = np.spacing(np.float32(255))  # float32's step there: the final rounding may turn equal numbers into numbers this far apart
lengths = st.integers(2, 40)  # not 1: torch 2.13 does not scale the rows of an image that stays one pixel wide


@given(old=st.tuples(lengths, lengths), new=st.tuples(lengths, lengths), seed=st.integers(0, 2**32 - 1))
def test_resize_is_torchs(old, new, seed):
    images = np.random.default_rng(seed).uniform(-1, 1, (2, 3, *old))
    ours = scratch.data.resize(images, new)
    theirs = F.interpolate(torch.from_numpy(images), new, mode="bilinear", antialias=True).numpy()
    # Two weighted means, of at most 80 pixels each: every element is accurate to 2·80 roundings of 1.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=160 * np.finfo(np.float64).eps)
    assert np.array_equal(torch_impl.data.resize(torch.from_numpy(images), new).numpy(), theirs)


def test_resize_to_the_same_size_changes_nothing():
    images = np.random.default_rng(0).random((2, 5, 7), np.float32)
    assert np.array_equal(scratch.data.resize(images, (5, 7)), images)


def test_prepare_keeps_the_middle():
    # Brightness grows from left to right and does not depend on the row, so it shows what was cut off.
    photograph = np.broadcast_to(np.linspace(0, 255, 768)[:, np.newaxis], (512, 768, 3)).round().astype(np.uint8)
    prepared = scratch.data.prepare(photograph)
    assert prepared.shape == (3, 256, 256)
    middle = 255 * (np.arange(64, 320) + 0.5) / 384
    np.testing.assert_allclose(prepared, np.broadcast_to(middle, prepared.shape), atol=1)
    theirs = torch_impl.data.prepare(photograph).numpy()
    np.testing.assert_allclose(prepared, theirs, rtol=1e-13)


@pytest.mark.parametrize("seed", [0, 1])
def test_batch_is_the_same_on_both_sides(seed):
    images, labels = scratch.data.batch(32, seed=seed)
    their_images, their_labels = torch_impl.data.batch(32, seed=seed)
    # Both sides round to float32 once, at the end, from numbers that agree to 1e-12, so they differ by one step at most.
    np.testing.assert_allclose(images, their_images.numpy(), rtol=0, atol=PIXEL)
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
    photographs = [scratch.data.prepare(photograph) for photograph in datasets.photographs().values()]
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
            pytest.fail(f"the image of photograph {label} is not a crop of it")
        mirrored += candidate is not whole
    assert 0 < mirrored < 14


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: scratch.data.batch(0), ValueError, "batch: n must be at least 1, got 0"),
        (lambda: SIDES[0].batch("2"), TypeError, "batch: n must be an int, got '2'"),
        (lambda: scratch.data.batch(15247), ValueError, "batch: n must be at most 15246, the number of crops, got 15247"),
        (lambda: torch_impl.data.batch(15247), ValueError, "batch: n must be from 1 to 15246, the number of crops, got 15247"),
        (lambda: scratch.data.centre_crop(np.ones((3, 9, 5)), 6), ValueError, r"at least 6 high and wide, got \(3, 9, 5\)"),
        (lambda: scratch.data.centre_crop(np.ones((3, 9, 5)), -1), ValueError, "centre_crop: size must be at least 1, got -1"),
        (lambda: SIDES[0].centre_crop(np.ones((9, 9)), 2.5), TypeError, "centre_crop: size must be an int, got 2.5"),
        (lambda: scratch.data.centre_crop(np.ones(9), 1), ValueError, r"at least 1 high and wide, got \(9,\)"),
        (lambda: scratch.data.centre_crop(np.ma.ones((9, 9)), 2), TypeError, "images must be a plain NumPy array, got Masked"),
        (lambda: scratch.data.batch(1, seed=-1), ValueError, "batch: seed must be at least 0, got -1"),
        (lambda: SIDES[0].batch(1, seed="x"), TypeError, "batch: seed must be an int, got 'x'"),
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


@pytest.mark.parametrize("name", ["mirror", "mean", "colour"])
@pytest.mark.parametrize("value", [None, "x", [], np.ma.ones((1, 28, 28)), 1j, np.ones((1, 28, 28), complex)], ids=type)
def test_preprocessing_of_odd_kinds(name, value):
    good = scratch.data.Preprocessing(28, False, np.zeros((1, 28, 28)), np.zeros((1, 1)))
    for make in (lambda: replace(good, **{name: value}), lambda: good.from_state_dict({**good.state_dict(), name: value})):
        with pytest.raises((TypeError, ValueError), match=f"Preprocessing: .*{name}"):
            make()


IMAGE = np.zeros((9, 8), np.uint8)


@pytest.mark.parametrize("value", [None, 1.5, -1, True, 1j, object()], ids=type)
@pytest.mark.parametrize("side", SIDES)
def test_arguments_of_odd_kinds_are_named(side, value):
    """The message says which argument is wrong: none of these can be ``value``."""
    good = side.Preprocessing.fit([IMAGE], size=8, channels=1, mirror=True)
    choices = Choices.draw(1, np.random.default_rng(0))
    calls: dict[str, Any] = {
        "Preprocessing.fit: images": lambda: side.Preprocessing.fit(value, size=8, channels=1, mirror=True),
        "Preprocessing.fit: channels": lambda: side.Preprocessing.fit([IMAGE], size=8, channels=value, mirror=True),
        "Preprocessing: size": lambda: side.Preprocessing.fit([IMAGE], size=value, channels=1, mirror=True),
        "Preprocessing.training: images": lambda: good.training(value, choices),
        "Preprocessing.training: choices": lambda: good.training([IMAGE], value),
        "Preprocessing.evaluation: images": lambda: good.evaluation(value),
        "Preprocessing.ten_crops: images": lambda: good.ten_crops(value),
        "Preprocessing: state": lambda: side.Preprocessing.from_state_dict(value),
        "Preprocessing: mean": lambda: replace(good, mean=value),
        "Preprocessing: colour": lambda: replace(good, colour=value),
        "mean_probabilities: logits": lambda: side.mean_probabilities(value),
        "resize: images": lambda: side.resize(value, (2, 2)),
        "prepare: image": lambda: side.prepare(value),
        "prepare: channels": lambda: side.prepare(IMAGE, 4, value),
        "centre_crop: images": lambda: side.centre_crop(value, 2),
        "batch: n": lambda: side.batch(value),
    }
    for name, call in calls.items():
        with pytest.raises((TypeError, ValueError), match=f"^{name} must "):
            call()


@pytest.mark.parametrize("value", [None, "x", 1.5, True, [1], np.ones(3)], ids=type)
def test_choices_of_odd_kinds(value):
    with pytest.raises(TypeError, match=r"^Choices.draw: n must be an int, got "):
        Choices.draw(value, np.random.default_rng(0))
    with pytest.raises(TypeError, match=r"^Choices.draw: rng must be a numpy.random.Generator, got "):
        Choices.draw(1, value)


def test_a_matrix_is_prepared_as_an_array_is():
    image = np.arange(8 * 6, dtype=np.uint8).reshape(8, 6)
    with warnings.catch_warnings(action="ignore", category=PendingDeprecationWarning):
        matrix = np.matrix(image)
    assert np.array_equal(scratch.data.prepare(matrix, 4, 1), scratch.data.prepare(image, 4, 1))


@st.composite
def pictures(draw):
    """A few images, grey and in colour, of different sizes, whose pixels are noise."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = draw(st.lists(st.tuples(lengths, lengths, st.sampled_from([(), (3,)])), min_size=1, max_size=4))
    images = [rng.integers(0, 256, (H, W, *colours), np.uint8) for H, W, colours in shapes]
    for image in images:
        image.setflags(write=False)  # like images that were read from files
    return images


networks = st.fixed_dictionaries(
    {"size": st.sampled_from([8, 28, 72]), "channels": st.sampled_from([1, 3]), "mirror": st.booleans()}
)


@given(images=pictures(), network=networks, seed=st.integers(0, 2**32 - 1))
def test_preprocessing_is_the_same_on_both_sides(images, network, seed):
    ours, theirs = (side.Preprocessing.fit(images, **network) for side in SIDES)
    for name, array in ours.state_dict().items():
        other = theirs.state_dict()[name]
        assert array.shape == other.shape
        assert array.dtype == other.dtype
        if name != "colour":
            np.testing.assert_allclose(array, other, rtol=1e-10, atol=1e-10, err_msg=name)
    # Components of equal length can be rotated into each other; their covariance is the same.
    ours_covariance, their_covariance = ours.colour @ ours.colour.T, (theirs.colour @ theirs.colour.T).numpy()
    np.testing.assert_allclose(ours_covariance, their_covariance, rtol=0, atol=1e-9)

    theirs = torch_impl.data.Preprocessing.from_state_dict(ours.state_dict())
    choices = Choices.draw(len(images), np.random.default_rng(seed))
    for mine, other in [
        (ours.training(images, choices), theirs.training(images, choices)),
        (ours.evaluation(images), theirs.evaluation(images)),
        (ours.ten_crops(images), theirs.ten_crops(images)),
    ]:
        assert mine.dtype == np.float32
        assert mine.shape == other.shape
        np.testing.assert_allclose(mine, other.numpy(), rtol=0, atol=2 * PIXEL)  # colours are shifted beyond 255


@pytest.mark.parametrize("side", SIDES)
def test_the_choices_show(side):
    """The drawn choices are applied: the crop, the mirror image, the shift of colours along their components."""
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    preprocessing = side.Preprocessing.fit(
        [np.zeros_like(image), np.full_like(image, 255), image], size=224, channels=3, mirror=True
    )
    whole = image.transpose(2, 0, 1) - np.asarray(preprocessing.mean)
    choices = Choices(np.array([[0, 0.999], [0.5, 0]]), np.array([False, True]), np.array([[0, 0, 0], [0, 2, -1.0]]))
    plain, altered = np.asarray(preprocessing.training([image, image], choices))
    np.testing.assert_allclose(plain, whole[:, :224, 32:], atol=1e-4)
    shift = np.asarray(preprocessing.colour) @ [0, 0.2, -0.1]
    np.testing.assert_allclose(altered, whole[:, 16:240, 223::-1] + shift[:, np.newaxis, np.newaxis], atol=1e-4)


@pytest.mark.parametrize("side", SIDES)
def test_small_images_are_shifted(side):
    images = list(np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8))
    preprocessing = side.Preprocessing.fit(images, size=28, channels=1, mirror=False)
    tested = np.asarray(preprocessing.evaluation(images))
    np.testing.assert_allclose(tested[:, 0], np.stack(images) - np.mean(images, axis=0), atol=1e-4)
    choices = Choices(np.array([[0, 0.9]]), np.array([True]), np.zeros((1, 3)))
    trained = np.asarray(preprocessing.training(images[:1], choices))[0, 0]  # two down and two to the left, not mirrored
    np.testing.assert_array_equal(trained[2:, :-2], tested[0, 0, :-2, 2:])
    assert not trained[:2].any()
    assert not trained[:, -2:].any()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mirror", [True, False])
def test_ten_crops_are_corners_middle_and_mirror_images(side, mirror):
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    preprocessing = side.Preprocessing.fit([image], size=224, channels=3, mirror=mirror)
    other = np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    whole = (other.transpose(2, 0, 1) - np.asarray(preprocessing.mean)).astype(np.float32)
    corners = [whole[:, top : top + 224, left : left + 224] for top, left in [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]]
    expected = [*corners, *(corner[..., ::-1] for corner in corners)] if mirror else corners
    crops = np.asarray(preprocessing.ten_crops([other]))
    assert np.array_equal(crops, [expected])
    assert np.array_equal(np.asarray(preprocessing.evaluation([other]))[0], corners[4])


@pytest.mark.parametrize("side", SIDES)
def test_colours_components_are_those_of_all_pixels(side):
    rng = np.random.default_rng(0)
    images = [rng.normal([100, 120, 140], [40, 20, 5], (80, 80, 3)).clip(0, 255).astype(np.uint8) for _ in range(5)]
    preprocessing = side.Preprocessing.fit(images, size=70, channels=3, mirror=True)
    pixels = np.stack(images).reshape(-1, 3).astype(np.float64)
    colour = np.asarray(preprocessing.colour)
    np.testing.assert_allclose(colour @ colour.T, np.cov(pixels.T, bias=True), rtol=1e-9, atol=1e-9)
    assert (np.take_along_axis(colour, np.abs(colour).argmax(axis=0)[np.newaxis], axis=0) > 0).all()


def test_mean_probabilities():
    logits = np.random.default_rng(0).standard_normal((4, 10, 6))
    ours = scratch.data.mean_probabilities(logits)
    theirs = torch_impl.data.mean_probabilities(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    np.testing.assert_allclose(ours.sum(axis=1), 1, rtol=1e-14)
    exact = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    np.testing.assert_allclose(ours, exact.mean(axis=1), rtol=1e-13)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("shape", [(1, 4000), (4000, 1), (1, 1)])
@pytest.mark.parametrize("size", [28, 224])
def test_long_and_tiny_images_are_taken(side, shape, size):
    image = np.full(shape, 100, np.uint8)
    preprocessing = side.Preprocessing.fit([image], size=size, channels=3, mirror=True)
    np.testing.assert_allclose(np.asarray(preprocessing.evaluation([image])), np.zeros((1, 3, size, size)), atol=1e-10)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.ones((9, 9, 4), np.uint8), r"\(9, 9, 4\) and uint8"),
        (np.ones((9, 9, 3)), r"\(9, 9, 3\) and float64"),
        (np.ones((0, 9), np.uint8), r"\(0, 9\) and uint8"),
        (np.ones(9, np.uint8), r"\(9,\) and uint8"),
        ([[1]], r"\(\) and list"),
    ],
)
def test_what_is_no_image_is_refused(side, image, got):
    with pytest.raises(ValueError, match=r"prepare: image must have shape \(H,W\) or \(H,W,3\) and dtype uint8, got " + got):
        side.Preprocessing.fit([image], size=28, channels=1, mirror=True)


@pytest.mark.parametrize("side", SIDES)
def test_bad_statistics_are_refused(side):
    image = np.zeros((28, 28), np.uint8)
    preprocessing = side.Preprocessing.fit([image], size=28, channels=1, mirror=True)
    state = preprocessing.state_dict()
    again = side.Preprocessing.from_state_dict(state)
    assert {name: array.tobytes() for name, array in again.state_dict().items()} == {
        name: array.tobytes() for name, array in state.items()
    }
    for bad, message in [
        ({}, r"state must have the numbers size and mirror and the arrays mean and colour, got \{\}"),
        (state | {"extra": np.zeros(1)}, "state must have"),
        (state | {"size": np.zeros(2)}, "state must have"),
        (state | {"size": np.array(224)}, r"for size 224, mean must have shape \(C,256,256\)"),
        (state | {"size": np.array(0)}, "size must be at least 1, got 0"),
        (state | {"mean": np.zeros((2, 28, 28)), "colour": np.zeros((2, 2))}, r"C 1 or 3, got \(2, 28, 28\) and \(2, 2\)"),
        (state | {"colour": np.zeros((3, 3))}, r"got \(1, 28, 28\) and \(3, 3\)"),
        (state | {"mean": np.full((1, 28, 28), np.nan)}, "mean must lie between -256 and 256, got numbers from nan to nan"),
        (state | {"mean": np.full((1, 28, 28), -np.inf)}, "mean must lie .*, got numbers from -inf to -inf"),
        (state | {"mean": np.full((1, 28, 28), 1e300)}, r"mean must lie .*, got numbers from 1e\+300 to"),
        (state | {"colour": np.full((1, 1), -1e39)}, r"colour must lie .*, got numbers from -1e\+39"),
        (state | {"colour": np.full((1, 1), np.nan)}, "colour must lie .*, got numbers from nan"),
        (state | {"mean": np.zeros((1, 28, 28), complex)}, "must be real numbers, got complex128"),
        (state | {"mean": np.full((1, 28, 28), "0")}, "must be real numbers, got <U1"),
        (state | {"size": np.array(28.7)}, r"size must be an int and mirror a bool, got 28\.7 and True"),
        (state | {"size": np.array(np.nan)}, "size must be an int and mirror a bool, got nan and True"),
        (state | {"size": np.array(True)}, "size must be an int and mirror a bool, got True and True"),
        (state | {"mirror": np.array(2)}, "size must be an int and mirror a bool, got 28 and 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            side.Preprocessing.from_state_dict(bad)
    with pytest.raises(ValueError, match="there must be at least one image, got none"):
        side.Preprocessing.fit([], size=28, channels=1, mirror=True)
    with pytest.raises(ValueError, match="channels must be 1 or 3, got 2"):
        side.Preprocessing.fit([image], size=28, channels=2, mirror=True)
    with pytest.raises(ValueError, match="prepare: channels must be 1 or 3, got 5"):
        side.prepare(image, 28, 5)
    with pytest.raises(ValueError, match=r"centre_crop: images must be at least 9 high and wide, got \(1, 8, 8\)"):
        side.centre_crop(side.prepare(image, 8, 1), 9)
    with pytest.raises(ValueError, match=r"centre_crop: images must be at least 3 high and wide, got \(8,\)"):
        side.centre_crop(side.prepare(image, 8, 1)[0, 0], 3)
    with pytest.raises(ValueError, match="centre_crop: size must be at least 1, got -1"):
        side.centre_crop(side.prepare(image, 8, 1), -1)
    with pytest.raises(TypeError, match="prepare: image must be a plain NumPy array, got MaskedArray"):
        side.prepare(np.ma.masked_array(image, image > 3), 8, 1)
    with pytest.raises(ValueError, match="choices must be for 1 images, got 2"):
        preprocessing.training([image], Choices.draw(2, np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"logits must have shape \(N,crops,classes\), got \(2, 3\)"):
        side.mean_probabilities(torch.zeros(2, 3) if side is torch_impl.data else np.zeros((2, 3)))
