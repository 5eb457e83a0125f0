"""Data sets: what is read from disk, what is refused and with which message, and in which order things come."""

from __future__ import annotations

import gzip
import itertools
import struct
import sys
import threading
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import scratch.data
import torch_impl.data
from alexnet_from_scratch.data import datasets
from alexnet_from_scratch.data.ahead import ahead
from alexnet_from_scratch.data.choices import Choices
from alexnet_from_scratch.data.datasets import Split, open_dataset
from alexnet_from_scratch.data.idx import read_idx
from alexnet_from_scratch.data.images import BrokenImageError, read_image
from alexnet_from_scratch.data.loader import Loader, sample

# --- what comes with packages -----------------------------------------------------------------------------------------


def test_digits():
    dataset = open_dataset("digits")
    assert dataset.classes == tuple("0123456789")
    assert not dataset.mirror
    assert len(dataset.train) + len(dataset.test) == 1797
    images, labels = datasets.digits()
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (0, 255)
    seen = {dataset.train.image(i).tobytes() for i in range(len(dataset.train))}
    assert not any(dataset.test.image(i).tobytes() in seen for i in range(len(dataset.test)))
    for split in (dataset.train, dataset.test):
        assert split.labels.dtype == np.int64
        np.testing.assert_allclose(np.bincount(split.labels) / len(split), np.bincount(labels) / 1797, atol=0.005)
        for i in range(0, len(split), 100):
            assert split.labels[i] in labels[(images == split.image(i)).all(axis=(1, 2))]


def test_photographs():
    photographs = datasets.photographs()
    assert tuple(photographs) == datasets.PHOTOGRAPHS
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 and min(image.shape[:2]) >= 256 for image in photographs.values())
    dataset = open_dataset("photographs")
    for split in (dataset.train, dataset.test):
        for i in (0, 5, len(split) - 1):
            assert np.array_equal(split.image(i), photographs[dataset.classes[split.labels[i]]])


@pytest.mark.parametrize(("name", "module"), [("photographs", "skimage.data"), ("digits", "sklearn.datasets")])
def test_absent_packages_are_named(name, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install 'alexnet-from-scratch\[data\]'"):
        open_dataset(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenet",), "name must be one of digits, fashion-mnist, photographs, imagefolder, got 'imagenet'"),
        (("imagefolder",), "imagefolder needs the folder that its images are in, got none"),
        (("digits", "/tmp"), "digits comes with a package and takes no folder, got '/tmp'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        open_dataset(*arguments)


def test_there_must_be_a_thread():
    with pytest.raises(ValueError, match="open_dataset: workers must be at least 1, got 0"):
        open_dataset("digits", workers=0)


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=5), one_in=st.integers(2, 10), seed=st.integers(0, 99))
def test_held_out_is_a_share_of_every_class(counts, one_in, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    chosen = datasets.held_out(labels, one_in, seed)
    assert np.array_equal(chosen, datasets.held_out(labels, one_in, seed))
    for label, count in enumerate(counts):
        out = np.count_nonzero(chosen[labels == label])
        assert out == (0 if count < 2 else -(-count // one_in))
        assert out < max(count, 1)


# --- IDX files --------------------------------------------------------------------------------------------------------


def outcome(read, *arguments):
    """What was read, or the message of the ValueError."""
    try:
        return read(*arguments)
    except ValueError as error:
        return str(error)


def idx(array, *, kind=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def clothes(tmp_path):
    """Fashion-MNIST's four files, with a few images in them, and the arrays."""
    rng, arrays = np.random.default_rng(0), {}
    for part, n in [("train", 30), ("t10k", 10)]:
        arrays[part] = rng.integers(0, 256, (n, 28, 28), np.uint8), np.arange(n, dtype=np.uint8) % 10
        for kind, array in zip(("images-idx3", "labels-idx1"), arrays[part], strict=True):
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    return tmp_path, arrays


def test_fashion_mnist(clothes):
    folder, arrays = clothes
    dataset = open_dataset("fashion-mnist", folder)
    assert dataset.classes[9] == "Ankle boot"
    for split, (images, labels) in zip((dataset.train, dataset.test), arrays.values(), strict=True):
        assert np.array_equal(split.labels, labels)
        assert split.labels.dtype == np.int64
        assert all(np.array_equal(split.image(i), image) for i, image in enumerate(images))


@pytest.mark.skipif(not datasets.FASHION_MNIST.exists(), reason="dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist():
    dataset = open_dataset("fashion-mnist")
    assert (len(dataset.train), len(dataset.test)) == (60_000, 10_000)
    assert np.array_equal(np.bincount(dataset.train.labels), [6000] * 10)


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
WHOLE = np.zeros((30, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (IMAGES, b"", f"{IMAGES}: magic number must be 00000803, got an empty file"),
        (IMAGES, b"not gzip", f"{IMAGES}: magic number must be 00000803, got 6e6f7420"),
        (IMAGES, b"\x1f", f"{IMAGES}: magic number must be 00000803, got 1f"),
        (IMAGES, b"\x1f\x8bnot gzip", f"{IMAGES} is not a complete gzip file: "),
        (IMAGES, idx(WHOLE)[:9], f"{IMAGES} is truncated: it ends in its header"),
        (IMAGES, idx(WHOLE)[:-1], r"\(30, 28, 28\) in its header means 23,520 bytes, got 23,519"),
        (IMAGES, idx(WHOLE) + b"\0", r"\(30, 28, 28\) in its header means 23,520 bytes, got more"),
        (IMAGES, struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "must make at most 1,073,741,824 bytes, got"),
        (IMAGES, idx(WHOLE[:29]), r"as many 28×28 images as labels, got \(29, 28, 28\) and \(30,\)"),
        (IMAGES, gzip.compress(b""), "magic number must be 00000803, got an empty file"),
        (IMAGES, gzip.compress(idx(WHOLE, kind=13)), "magic number must be 00000803, got 00000d03"),
        (IMAGES, gzip.compress(idx(np.zeros(30, np.uint8))), "magic number must be 00000803, got 00000801"),
        (IMAGES, gzip.compress(idx(WHOLE)[:9]), f"{IMAGES} is truncated: it ends in its header"),
        (IMAGES, gzip.compress(idx(WHOLE)[:-1]), r"\(30, 28, 28\) in its header means 23,520 bytes, got 23,519"),
        (IMAGES, gzip.compress(idx(WHOLE) + b"\0"), r"\(30, 28, 28\) in its header means 23,520 bytes, got more"),
        (IMAGES, gzip.compress(idx(WHOLE))[:-9], f"{IMAGES} is truncated: Compressed file ended"),
        (IMAGES, gzip.compress(idx(WHOLE))[:-8] + b"12345678", "is not a complete gzip file: CRC check failed"),
        (IMAGES, gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3)), "must make at most 1,073,741,824 bytes, got"),
        (IMAGES, gzip.compress(idx(WHOLE[:29])), r"as many 28×28 images as labels, got \(29, 28, 28\) and \(30,\)"),
        (IMAGES, gzip.compress(idx(WHOLE[:, :27])), r"as many 28×28 images as labels, got \(30, 27, 28\) and \(30,\)"),
        (LABELS, gzip.compress(idx(np.arange(1, 11, dtype=np.uint8))), f"labels must be from 0 to 9, got 10 in .*{LABELS}"),
        (LABELS, idx(np.full(10, 255, np.uint8)), f"labels must be from 0 to 9, got 255 in .*{LABELS}"),
        (LABELS, gzip.compress(idx(np.zeros(0, np.uint8))), r"got \(10, 28, 28\) and \(0,\)"),
    ],
    ids=lambda value: "content" if isinstance(value, bytes) else None,  # gzip's bytes contain the time
)
def test_damaged_fashion_mnist(clothes, file, content, message):
    folder, _ = clothes
    (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_dataset("fashion-mnist", folder)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_may_be_packed_or_not_whatever_they_are_called(clothes, suffix, packed):
    folder, _ = clothes
    expected = open_dataset("fashion-mnist", folder)
    for path in list(folder.iterdir()):
        content = path.read_bytes() if packed else gzip.decompress(path.read_bytes())
        path.unlink()
        path.with_name(path.name.removesuffix(".gz") + suffix).write_bytes(content)
    dataset = open_dataset("fashion-mnist", folder)
    for split, other in ((dataset.train, expected.train), (dataset.test, expected.test)):
        assert np.array_equal(split.labels, other.labels)
        assert all(np.array_equal(split.image(i), other.image(i)) for i in range(len(other)))


def test_of_two_files_the_packed_one_is_read(clothes):
    """It has a checksum that shows whether it is whole."""
    folder, arrays = clothes
    (folder / IMAGES.removesuffix(".gz")).write_bytes(b"half a download")
    assert np.array_equal(open_dataset("fashion-mnist", folder).train.image(0), arrays["train"][0][0])


def test_absent_fashion_mnist_says_where_to_get_it(clothes):
    folder, _ = clothes
    (folder / LABELS).unlink()
    with pytest.raises(FileNotFoundError, match=f"/{LABELS} is not there.* apt install dataset-fashion-mnist.* https://"):
        open_dataset("fashion-mnist", folder)
    (folder / LABELS).mkdir()  # as some archives unpack
    with pytest.raises(FileNotFoundError, match=f"/{LABELS} is a folder, not a file"):
        open_dataset("fashion-mnist", folder)
    with pytest.raises(FileNotFoundError, match=r"/nothing is not there.* apt install"):
        open_dataset("fashion-mnist", folder / "nothing")
    with pytest.raises(FileNotFoundError, match=f"/{IMAGES} is a file, not a folder"):
        open_dataset("fashion-mnist", folder / IMAGES)


def test_no_images_are_no_data_set(clothes):
    folder, _ = clothes
    (folder / LABELS).write_bytes(idx(np.zeros(0, np.uint8)))
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((0, 28, 28), np.uint8)))
    with pytest.raises(ValueError, match=f"{LABELS} has no labels"):
        open_dataset("fashion-mnist", folder)


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_claims_much_takes_no_memory(tmp_path, packed):
    """Nor does a decompression bomb: never more is unpacked than the header claims, plus one byte."""
    path = tmp_path / "file"
    for claimed, content in [((2**30,), b"few"), ((9,), bytes(2**26))]:
        whole = struct.pack(">4BI", 0, 0, 8, 1, *claimed) + content
        path.write_bytes(gzip.compress(whole) if packed else whole)
        tracemalloc.start()
        try:
            message = outcome(read_idx, path, 1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert str(path) in message
        assert peak < 2**24


@given(position=st.integers(0, 400), bit=st.integers(0, 7), cut=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_packed_idx_file_is_whole_or_refused(tmp_path, position, bit, cut):
    """Gzip's checksum covers the content: whichever bit flips, the result is either an error or the original."""
    array = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    content = bytearray(gzip.compress(idx(array)))
    position %= len(content)
    content[position] ^= 1 << bit
    path = tmp_path / "file.gz"
    path.write_bytes(content[:position] if cut else content)
    read = outcome(read_idx, path, 3)
    assert str(path) in read if isinstance(read, str) else np.array_equal(read, array)


# --- image files ------------------------------------------------------------------------------------------------------

RAMP = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5


def in_colour():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8))


def test_pixels_are_as_stored(tmp_path):
    for name, image, expected in [
        ("grey.png", Image.fromarray(RAMP), RAMP),
        ("colour.png", in_colour(), np.asarray(in_colour())),
        ("palette.png", in_colour().quantize(48), np.asarray(in_colour().quantize(48).convert("RGB"))),
        ("bits.png", Image.fromarray(RAMP > 99), np.where(RAMP > 99, 255, 0)),
        ("deep.png", Image.fromarray(RAMP.astype(np.uint16) * 257), RAMP),
        ("deep.tif", Image.fromarray(RAMP.astype(np.uint16) * 257), RAMP),
        ("grey.gif", Image.fromarray(RAMP), np.repeat(RAMP[..., np.newaxis], 3, axis=2)),
        ("colour.webp", in_colour(), None),
        ("ink.jpg", Image.new("CMYK", (8, 6), (0, 255, 255, 0)), np.broadcast_to(np.array([255, 0, 0], np.uint8), (6, 8, 3))),
        ("colour.jpg", Image.new("RGB", (8, 6), (200, 100, 50)), np.broadcast_to(np.array([200, 100, 50], np.uint8), (6, 8, 3))),
        ("video.tif", Image.new("RGB", (8, 6), (200, 100, 50)).convert("YCbCr"), None),
    ]:
        image.save(tmp_path / name, lossless=True) if name.endswith("webp") else image.save(tmp_path / name)
        pixels = read_image(tmp_path / name)
        assert pixels.dtype == np.uint8
        assert pixels.shape in ((6, 8), (6, 8, 3)), name
        if expected is not None:
            assert np.abs(pixels.astype(int) - expected).max() <= (2 if name.endswith("jpg") else 0), name


def test_what_is_transparent_is_white(tmp_path):
    clear = np.zeros((6, 8), np.uint8)
    clear[:, 4:] = 255
    for name, channels in [("colour.png", [RAMP] * 3), ("grey.png", [RAMP])]:
        Image.fromarray(np.dstack([*channels, clear])).save(tmp_path / name)
        pixels = read_image(tmp_path / name)
        assert pixels.ndim == (2 if name == "grey.png" else 3)
        assert (pixels[:, :4] == 255).all()
        assert (pixels[:, 4:].reshape(6, 4, -1) == RAMP[:, 4:, np.newaxis]).all()
    palette = Image.fromarray(RAMP).convert("P")
    palette.save(tmp_path / "palette.png", transparency=0)
    assert (read_image(tmp_path / "palette.png")[0, 0] == 255).all()


@pytest.mark.parametrize(
    ("orientation", "turned"), [(1, RAMP), (2, RAMP[:, ::-1]), (3, RAMP[::-1, ::-1]), (6, np.rot90(RAMP, -1))]
)
def test_exif_orientation(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RAMP).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), turned)


def broken_images(folder):
    """Every sort of broken image, and what the message says."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    noise.save(folder / "whole.jpg")
    noise.save(folder / "whole.png")
    jpeg, png = (folder / "whole.jpg").read_bytes(), (folder / "whole.png").read_bytes()
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 1
    Image.fromarray(RAMP.astype(np.float32)).save(folder / "float.tif")
    Image.fromarray(RAMP.astype(np.int32)).save(folder / "int.tif")
    (folder / "vector.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name, content in [
        ("empty.jpg", b""),
        ("text.jpg", b"<html>404</html>"),
        ("cut.jpg", jpeg[: len(jpeg) // 2]),
        ("header.jpg", jpeg[:20]),
        ("cut.png", png[: len(png) // 2]),
        ("flipped.png", bytes(flipped)),
        ("bomb.ppm", b"P5 60000 60000 255\n"),
    ]:
        (folder / name).write_bytes(content)
    return {
        "empty.jpg": "is not an image in a known format",
        "text.jpg": "is not an image in a known format",
        "vector.png": "is not an image in a known format",
        "header.jpg": "is not an image in a known format|cannot be decoded",
        "cut.jpg": "cannot be decoded: .*truncated",
        "cut.png": "cannot be decoded: .*truncated",
        "flipped.png": "cannot be decoded: broken",
        "bomb.ppm": "has 60,000×60,000 pixels, more than the limit of",
        "float.tif": r"cannot be decoded: its pixels are signed or 32-bit numbers \(mode F\)",
        "int.tif": r"cannot be decoded: its pixels are signed or 32-bit numbers \(mode I\)",
    }


def test_broken_images_are_named(tmp_path):
    for name, message in broken_images(tmp_path).items():
        with pytest.raises(BrokenImageError, match=f"{name} ({message})"):
            read_image(tmp_path / name)


def test_what_the_system_refuses_is_not_a_broken_image(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "absent.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


@given(suffix=st.sampled_from(["png", "jpg", "gif", "bmp", "tif", "webp"]), data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_an_image_or_a_broken_one(tmp_path, suffix, data):
    path = tmp_path / f"image.{suffix}"
    in_colour().save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about some damage, and about large images
        pixels = outcome(read_image, path)
    if isinstance(pixels, str):
        assert str(path) in pixels
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 2 or pixels.shape[2:] == (3,)


# --- batches ----------------------------------------------------------------------------------------------------------


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
        ({"batch": 0}, "batch and workers must be at least 1, got 0 and 2"),
        ({"workers": 0}, "batch and workers must be at least 1, got 4 and 0"),
        ({"rank": 2, "world": 2}, "rank must be from 0 to world - 1, got 2 of 2"),
        ({"rank": -1}, "rank must be from 0 to world - 1, got -1 of 1"),
    ],
)
def test_loaders_refuse_what_makes_no_sense(options, message):
    with pytest.raises(ValueError, match=f"Loader: {message}"):
        loader(noise(4), **options)


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


def test_sample_is_spread_evenly():
    split = noise(10)
    assert [int(image[0, 0]) for image in sample(split, 5)] == [int(split.image(i)[0, 0]) for i in (0, 2, 4, 6, 8)]
    assert len(list(sample(split))) == 10


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
