"""Data sets: what is read from disk, and what is refused with which message."""

from __future__ import annotations

import gzip
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_from_scratch.data import datasets
from alexnet_from_scratch.data.datasets import open_dataset
from alexnet_from_scratch.data.idx import read_idx
from tests.exact import check_digits, check_photographs
from tests.odd_files import pipe

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


def test_the_digits_greys_and_numbers():
    check_digits()


def test_photographs():
    photographs = datasets.photographs()
    assert tuple(photographs) == datasets.PHOTOGRAPHS
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 and min(image.shape[:2]) >= 256 for image in photographs.values())
    check_photographs()
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


@pytest.mark.parametrize("value", [1, 1.5, True, [], np.ones(3)], ids=type)
def test_arguments_of_odd_kinds(value):
    with pytest.raises(ValueError, match="open_dataset: name must be one of "):
        open_dataset(value)
    with pytest.raises(TypeError, match="open_dataset: a file must be given by its path, got "):
        open_dataset("imagefolder", value)
    if type(value) is not int:
        with pytest.raises(TypeError, match="open_dataset: workers must be an int, got "):
            open_dataset("digits", workers=value)


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
        (IMAGES, b"not gzip", f"{IMAGES}: magic number must be 00000803, got 6e6f7420, text that begins 'not gzip'"),
        (IMAGES, b"<!DOCTYPE html>", f"{IMAGES}: magic number must be 00000803, got 3c21444f, a web page or other markup"),
        (IMAGES, gzip.compress(b"<html>"), f"{IMAGES}: magic number must be 00000803, got 3c68746d, a web page or other markup"),
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


def test_a_pipe_is_no_idx_file_and_not_waited_for(tmp_path):
    pipe(tmp_path / "pipe")
    with pytest.raises(OSError, match="must be a file, got a pipe or a device"):
        read_idx(tmp_path / "pipe", 1)


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
