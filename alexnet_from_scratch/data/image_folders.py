"""Images in folders, one folder per class: FOLDER/train/CLASS/*.JPEG and FOLDER/val/CLASS/*.JPEG, or FOLDER/CLASS/*.JPEG.

Classes are sorted by name, as in torchvision's ImageFolder. Files that operating systems and archives leave among the images are
ignored. Anything else that is not an image, or that is in no class's folder, is reported.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_from_scratch.data.ahead import ahead
from alexnet_from_scratch.data.images import SUFFIXES, BrokenImageError, read_image
from alexnet_from_scratch.paths import FILE, FOLDER, kind, wrong_kind
from alexnet_from_scratch.text import shown

HELD_OUT = ("val", "valid", "validation", "test")  # folders of test images, next to train; the first that exists is used
NAMED = 10  # the most problems that an error message lists
# Names that Windows, macOS, their archives, disks and network storage leave in folders. Names that begin with a dot are ignored
# too.
LEFT_OVER = {
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "icon\r",
    "__macosx",
    "lost+found",
    "@eadir",
}


class Part(NamedTuple):
    """Image files; their labels, (n,), int64; and one line for each thing that was left out, which says why."""

    files: list[Path]
    labels: np.ndarray
    skipped: tuple[str, ...]


class Index(NamedTuple):
    """The names of the classes, sorted, and the files."""

    classes: tuple[str, ...]
    train: Part
    test: Part


def index_folder(folder: Path, *, skip_broken: bool, workers: int, held_out: Callable[[np.ndarray], np.ndarray]) -> Index:
    """The images in ``folder``.

    Args:
        folder: it holds ``train`` and one of ``HELD_OUT``, or the folders of the classes.
        skip_broken: decode every file now, and leave out what is broken, not an image or in no class. Otherwise no file is
            decoded, and anything else that is wrong is an error.
        workers: the number of threads that decode.
        held_out: takes all labels, (n,), and returns which images to test with, (n,), bool. It is called if no folder holds
            test images.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: its contents are wrong, or no images would be left to train or to test with.
        OSError: it cannot be read.
    """
    if wrong := wrong_kind(folder, FOLDER):
        raise FileNotFoundError(f"imagefolder: {wrong}")
    halves = _halves(folder)
    train = _scan(halves[0] if halves else folder, skip_broken, workers)
    classes = tuple(name for name, files in train.files.items() if files)
    test = _scan(halves[1], skip_broken, workers) if halves else _Found({})
    if halves:
        for name in sorted(set(test.files) - set(classes)):
            test.problems.append(f"{shown(halves[1] / name)} is a class, but {shown(halves[0])} has no images of it")
            del test.files[name]
        test.problems += [f"{shown(halves[1])} has no class {shown(name)}" for name in classes if name not in test.files]
    if not skip_broken:
        _refuse(train.problems + test.problems)

    parts = [_part(found, classes) for found in (train, test)]
    if not halves:
        chosen = held_out(parts[0].labels)
        parts = [
            Part([file for file, take in zip(parts[0].files, which, strict=True) if take], parts[0].labels[which], skipped)
            for which, skipped in ((~chosen, parts[0].skipped), (chosen, ()))
        ]
    for name, part in zip(("train", "test"), parts, strict=True):
        if not part.files:
            raise ValueError(f"imagefolder: {shown(folder)} has no images to {name} with")
    return Index(classes, *parts)


def _halves(folder: Path) -> tuple[Path, Path] | None:
    """The folders of images to train and to test with; None if ``folder`` holds the classes themselves."""
    there = [name for name in ("train", *HELD_OUT) if (folder / name).is_dir()]
    if len(there) > 1 and there[0] == "train":
        return folder / there[0], folder / there[1]
    if there and any(
        kind(entry) == FOLDER for entry in _entries(folder / there[0])
    ):  # without folders in it, it is a class of that name
        absent = f"none of {', '.join(HELD_OUT)}" if there[0] == "train" else "no train"
        raise ValueError(
            f"imagefolder: {shown(folder)} has {there[0]} but {absent}; it must have both, or the folders of the classes"
        )
    return None


@dataclass
class _Found:
    files: dict[str, list[Path]]  # class → its files; classes and files are sorted by name
    problems: list[str] = field(default_factory=list)


def _scan(folder: Path, skip_broken: bool, workers: int) -> _Found:
    """The classes in a folder and their files."""
    found = _Found({})
    entries = {entry: kind(entry) for entry in _entries(folder)}
    if FOLDER not in entries.values():
        files = "files but " if entries else ""
        raise ValueError(
            f"imagefolder: {shown(folder)} has {files}no folders of classes; images must be in FOLDER/CLASS/, or in "
            "FOLDER/train/CLASS/ and FOLDER/val/CLASS/"
        )
    for entry, what in entries.items():
        if what != FOLDER:
            found.problems.append(f"{shown(entry)} is {what}, but only folders of classes may be here")
        elif not os.access(entry, os.R_OK | os.X_OK):
            found.problems.append(f"{shown(entry)} cannot be read: no permission")
        else:
            found.files[entry.name] = _images(entry, found.problems, skip_broken, workers)
    alike: dict[str, str] = {}
    for name in found.files:
        other = alike.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            raise ValueError(
                f"imagefolder: {shown(folder)} has classes {other!a} and {name!a}, which differ only in how Unicode encodes them"
            )
    return found


def _images(folder: Path, problems: list[str], skip_broken: bool, workers: int) -> list[Path]:
    """The images of a class. Anything else in its folder is added to ``problems``."""
    files = []
    for entry in _entries(folder):
        what = kind(entry)
        if what != FILE:
            problems.append(f"{shown(entry)} is {what}, but only images may be here")
        elif entry.suffix.lower() not in SUFFIXES:
            problems.append(f"{shown(entry)} does not have an image's name, which ends in {', '.join(sorted(SUFFIXES))}")
        elif not os.access(entry, os.R_OK):
            problems.append(f"{shown(entry)} cannot be read: no permission")
        else:
            files.append(entry)
    if skip_broken:
        broken = list(ahead(_problem, files, workers=workers))
        files = [file for file, problem in zip(files, broken, strict=True) if problem is None]
        problems += [problem for problem in broken if problem is not None]
    if not files:
        problems.append(f"{shown(folder)} has no images")
    return files


def _entries(folder: Path) -> list[Path]:
    """The folder's entries by name, without leftovers of other programs."""
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.name.lower() not in LEFT_OVER)
    return sorted(entries, key=lambda entry: entry.name)


def _problem(file: Path) -> str | None:
    try:
        read_image(file, for_size=1)  # keeps the least in memory
    except BrokenImageError as error:
        return str(error)
    return None


def _part(found: _Found, classes: tuple[str, ...]) -> Part:
    files = [found.files.get(name, []) for name in classes]
    labels = np.repeat(np.arange(len(classes)), [len(of_class) for of_class in files])
    return Part([file for of_class in files for file in of_class], labels, tuple(found.problems))


def _refuse(problems: list[str]) -> None:
    if problems:
        named = "".join(f"\n  {problem}" for problem in problems[:NAMED])
        more = f"\n  and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        found = "1 problem, which" if len(problems) == 1 else f"{len(problems)} problems, which"
        raise ValueError(f"imagefolder: {found} --skip-broken (skip_broken=True) would leave out:{named}{more}")
