"""Data sets as uint8 images and labels. Each side's ``data.py`` does the arithmetic that turns images into a network's input.

=============  =======================================================================================================
digits         1,797 handwritten digits, 8×8, that come with scikit-learn; one in five is held out
fashion-mnist  70,000 pictures of clothes, 28×28 (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747), with its own test images
photographs    seven photographs that come with scikit-image, each its own class
imagefolder    FOLDER/train/CLASS/*.JPEG and FOLDER/val/CLASS/*.JPEG, as ImageNet is laid out, or FOLDER/CLASS/*.JPEG
=============  =======================================================================================================
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_from_scratch.arguments import integer, require_flag, require_path
from alexnet_from_scratch.data.idx import read_idx
from alexnet_from_scratch.data.image_folders import Part, index_folder
from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.packages import optional
from alexnet_from_scratch.paths import FILE, FOLDER, wrong_kind
from alexnet_from_scratch.text import shown

NAMES = ("digits", "fashion-mnist", "photographs", "imagefolder")

# Names in skimage.data; author and licence are from scikit-image's documentation.
PHOTOGRAPHS = (
    "astronaut",  # Eileen Collins; NASA, public domain
    "chelsea",  # a cat; Stéfan van der Walt, CC0
    "coffee",  # a cup; Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0
    "rocket",  # Falcon 9 with DSCOVR; SpaceX, public domain
    "hubble_deep_field",  # galaxies; NASA, public domain
    "immunohistochemistry",  # colonic glands; Center for Microscopy and Molecular Imaging, no known copyright restrictions
    "retina",  # fundus of an eye; Mikael Häggström, CC0
)
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SHOWN = 16  # how many times an epoch shows each photograph, each time with another crop


@dataclass(frozen=True)
class Split:
    """The images that a network trains on, or those it is tested on.

    Attributes:
        labels: (n,), int64, indices into the data set's classes.
        image: takes an index and returns that image: uint8, (H,W) if it is grey, else (H,W,3). The function may read from disk,
            and several threads may call it at once. It raises ``images.BrokenImageError`` for a file that cannot be decoded.
        skipped: what was left out, and why: one line for each.
    """

    labels: np.ndarray
    image: Callable[[int], np.ndarray]
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """A data set: what to train on and what to test on.

    Attributes:
        name: one of ``NAMES``.
        classes: the names of the labels.
        mirror: whether the mirror image of an image has the same class: it has for a shoe, but not for a 3.
    """

    name: str
    classes: tuple[str, ...]
    mirror: bool
    train: Split
    test: Split


def open_dataset(
    name: str,
    folder: Path | str | None = None,
    *,
    skip_broken: bool = False,
    seed: int = 0,
    workers: int = 2,
    for_size: int | None = None,
) -> Dataset:
    """The data set of that name.

    Args:
        name: one of ``NAMES``.
        folder: where imagefolder's images are, or fashion-mnist's four files if they are not where Debian puts them.
        skip_broken: leave out what is broken or in the wrong place in an imagefolder, and list it in ``Split.skipped``. Otherwise
            it is an error. This decodes every file once at the start, so that an index always means the same image.
        seed: chooses the images to test with, if an imagefolder has no folder of test images.
        workers: the number of threads that decode for ``skip_broken``.
        for_size: the size to which ``data.prepare`` will scale an imagefolder's images. Much larger images are then reduced
            while they are read (``images.read_image``).

    Raises:
        TypeError: an argument is of another kind.
        ValueError: there is no such data set, it takes no folder or needs one, or the folder's contents are not as they should
            be; a number is too small.
        FileNotFoundError: the files are not there; the message says how to get them.
        ModuleNotFoundError: the package that contains or reads the images is not installed.
    """
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"open_dataset: name must be one of {', '.join(NAMES)}, got {reprlib.repr(name)}")
    if folder is not None:
        require_path("open_dataset", folder)
    if folder is not None and not str(folder):
        raise ValueError("open_dataset: folder must be a path, got ''")
    require_flag("open_dataset", "skip_broken", skip_broken)
    seed = integer("open_dataset", "seed", seed, low=0)
    workers = integer("open_dataset", "workers", workers, low=1)
    if for_size is not None:
        for_size = integer("open_dataset", "for_size", for_size, low=1)
    if name == "imagefolder":
        if folder is None:
            raise ValueError("open_dataset: imagefolder needs the folder that its images are in, got none")
        return _imagefolder(Path(folder), skip_broken, seed, workers, for_size)
    if name == "fashion-mnist":
        return _fashion_mnist(FASHION_MNIST if folder is None else Path(folder))
    if folder is not None:
        raise ValueError(f"open_dataset: {name} comes with a package and takes no folder, got {str(folder)!r}")
    return _digits() if name == "digits" else _photographs()


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The digits of scikit-learn: images (1797,8,8), uint8 from 0 to 255, and labels (1797,), int64.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    bunch = optional("sklearn.datasets").load_digits()
    return np.rint(bunch.images * (255 / 16)).astype(np.uint8), bunch.target.astype(np.int64)


def photographs() -> dict[str, np.ndarray]:
    """The photographs by name, each (H,W,3), uint8.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
    """
    data = optional("skimage.data")
    return {name: getattr(data, name)() for name in PHOTOGRAPHS}


def held_out(labels: np.ndarray, one_in: int, seed: int) -> np.ndarray:
    """Which images to test with, (n,), bool: of every class one in ``one_in``, rounded up, but never all. ``seed`` chooses."""
    plain = isinstance(labels, np.ndarray) and not isinstance(labels, np.ma.MaskedArray)
    if not plain or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise TypeError(f"held_out: labels must be an array (n,) of ints, got {reprlib.repr(labels)}")
    one_in, seed = integer("held_out", "one_in", one_in, low=1), integer("held_out", "seed", seed, low=0)
    rng = np.random.default_rng(seed)
    out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        out[rng.permutation(members)[: min(-(-len(members) // one_in), len(members) - 1)]] = True
    return out


def _digits() -> Dataset:
    images, labels = digits()
    test = held_out(labels, 5, seed=0)  # the same ones in every run
    names = tuple(str(digit) for digit in range(10))
    return Dataset("digits", names, False, _in_memory(images[~test], labels[~test]), _in_memory(images[test], labels[test]))


def _fashion_mnist(folder: Path) -> Dataset:
    parts = []
    for part in ("train", "t10k"):
        images_file, labels_file = (_idx_file(folder, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
        images, labels = read_idx(images_file, axes=3), read_idx(labels_file, axes=1)
        if images.shape[1:] != (28, 28) or len(images) != len(labels):
            raise ValueError(
                f"fashion-mnist: {shown(images_file)} and {shown(labels_file)} must have as many 28×28 images as labels, "
                f"got {images.shape} and {labels.shape}"
            )
        if len(labels) == 0:
            raise ValueError(f"fashion-mnist: {shown(labels_file)} has no labels")
        if labels.max() >= len(CLOTHES):
            raise ValueError(f"fashion-mnist: labels must be from 0 to 9, got {labels.max()} in {shown(labels_file)}")
        parts.append(_in_memory(images, labels.astype(np.int64)))
    return Dataset("fashion-mnist", CLOTHES, True, *parts)


def _idx_file(folder: Path, name: str) -> Path:
    """The file of that name, compressed or not. If both are there, it is the compressed one: its checksum reveals damage."""
    packed = folder / f"{name}.gz"
    for path in (packed, folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"fashion-mnist: {wrong_kind(folder, FOLDER) or wrong_kind(packed, FILE)}. On Debian and Ubuntu: "
        "apt install dataset-fashion-mnist. Elsewhere put the four files from https://github.com/zalandoresearch/fashion-mnist "
        "into a folder and name it with --data-dir"
    )


def _photographs() -> Dataset:
    """An epoch shows each photograph several times. The test uses the same photographs, so it says nothing about other images."""
    images = list(photographs().values())
    labels = np.arange(len(images))
    train = Split(np.tile(labels, SHOWN), lambda i: images[i % len(images)])
    return Dataset("photographs", PHOTOGRAPHS, True, train, _in_memory(images, labels))


def _imagefolder(folder: Path, skip_broken: bool, seed: int, workers: int, for_size: int | None) -> Dataset:
    index = index_folder(folder, skip_broken=skip_broken, workers=workers, held_out=lambda labels: held_out(labels, 10, seed))
    return Dataset("imagefolder", index.classes, True, _on_disk(index.train, for_size), _on_disk(index.test, for_size))


def _on_disk(part: Part, for_size: int | None) -> Split:
    return Split(part.labels, lambda i: read_image(part.files[i], for_size), part.skipped)


def _in_memory(images: Any, labels: np.ndarray) -> Split:
    return Split(labels, images.__getitem__)
