"""Images in folders, one a class: FOLDER/train/CLASS/*.JPEG and FOLDER/val/CLASS/*.JPEG, or FOLDER/CLASS/*.JPEG."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.data_ahead import ahead
from training.images import SUFFIXES, BrokenImageError, read_image

NAMED = 10  # problems in an error message


class Part(NamedTuple):
    """Image files, their labels (n,), int64, and what was left out and why, a line each."""

    files: list[Path]
    labels: np.ndarray
    skipped: tuple[str, ...]


class Index(NamedTuple):
    """The names of the classes, sorted, and the files."""

    classes: tuple[str, ...]
    train: Part
    test: Part


def index_folder(folder: Path, *, skip_broken: bool, held_out: Callable[[np.ndarray], np.ndarray]) -> Index:
    """The images in ``folder``.

    Args:
        folder: with ``train`` and ``val`` in it, or with the classes themselves.
        skip_broken: decode every file now, and leave out what is broken, no image or in no class. Otherwise nothing is decoded,
            and anything else that is wrong is an error.
        held_out: from all labels (n,) to which to test with, (n,), bool; called if there is no ``val``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has other contents; or train or test would be left without images.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"imagefolder: {folder} is not a folder")
    split = [(folder / name).is_dir() for name in ("train", "val")]
    if any(split) and not all(split):
        raise ValueError(f"imagefolder: {folder} must have both train and val in it, or neither")

    train = _scan(folder / "train" if all(split) else folder, skip_broken)
    classes = tuple(name for name, files in train.files.items() if files)
    test = _scan(folder / "val", skip_broken) if all(split) else _Found({})
    for name in sorted(set(test.files) - set(classes)):
        test.problems.append(f"{folder / 'val' / name} is a class without images in {folder / 'train'}")
        del test.files[name]
    if all(split):
        test.problems += [f"{folder / 'val'} has no class {name}" for name in classes if name not in test.files]
    if not skip_broken:
        _refuse(train.problems + test.problems)

    parts = [_part(found, classes) for found in (train, test)]
    if not all(split):
        chosen = held_out(parts[0].labels)
        parts = [
            Part([file for file, take in zip(parts[0].files, which, strict=True) if take], parts[0].labels[which], skipped)
            for which, skipped in ((~chosen, parts[0].skipped), (chosen, ()))
        ]
    for name, part in zip(("train", "test"), parts, strict=True):
        if not part.files:
            raise ValueError(f"imagefolder: {folder} has no images to {name} with")
    return Index(classes, *parts)


@dataclass
class _Found:
    files: dict[str, list[Path]]  # by class; both sorted by name
    problems: list[str] = field(default_factory=list)


def _scan(folder: Path, skip_broken: bool) -> _Found:
    """The classes in a folder and their files; hidden ones do not count."""
    found = _Found({})
    for entry in _visible(folder):
        if not entry.is_dir():
            found.problems.append(f"{entry} is not in a class's folder")
            continue
        contents = _visible(entry)
        files = [file for file in contents if file.is_file() and file.suffix.lower() in SUFFIXES]
        found.problems += [f"{other} is not an image by its name" for other in contents if other not in set(files)]
        if skip_broken:
            problems = list(ahead(_problem, files, workers=os.cpu_count() or 1))
            files = [file for file, problem in zip(files, problems, strict=True) if problem is None]
            found.problems += [problem for problem in problems if problem is not None]
        if not files:
            found.problems.append(f"{entry} has no images")
        found.files[entry.name] = files
    alike: dict[str, str] = {}
    for name in found.files:
        other = alike.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise ValueError(f"imagefolder: {folder} has classes {other!r} and {name!r}, alike but for case or encoding")
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _problem(file: Path) -> str | None:
    try:
        read_image(file)
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
        raise ValueError(f"imagefolder: {len(problems)} problems (skip_broken leaves out what they concern):{named}{more}")
