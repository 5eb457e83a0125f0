"""Images in folders as people have them: what is read, in which order, what is ignored, and what the messages say about the
rest.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scratch.data
from alexnet_from_scratch.data.datasets import Split, open_dataset
from alexnet_from_scratch.data.images import BrokenImageError, read_image
from alexnet_from_scratch.data.loader import Loader, sample
from tests.odd_files import bound, link, pipe


def fill(folder, tree):
    """Write images: ``tree`` says how many go into each class's folder; each has a different grey."""
    for name, count in tree.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (3 + i, 2), i + 10 * len(name)).save(folder / name / f"{i:03}.{('png', 'JPEG')[i % 2]}")


IMAGENET = {"train/n01": 4, "train/n02x": 6, "val/n01": 2, "val/n02x": 3}


def contents(split):
    return [(int(label), split.image(i).shape, int(split.image(i)[0, 0])) for i, label in enumerate(split.labels)]


def refusal(folder, **options):
    """The message with which the folder is refused."""
    with pytest.raises((ValueError, OSError)) as caught:
        open_dataset("imagefolder", folder, **options)
    return str(caught.value)


# --- layouts ----------------------------------------------------------------------------------------------------------


def test_imagenets_layout(tmp_path):
    fill(tmp_path, IMAGENET)
    dataset = open_dataset("imagefolder", tmp_path)
    assert dataset.classes == ("n01", "n02x")
    assert dataset.mirror
    assert contents(dataset.train)[:5] == [(0, (2, 3 + i), 90 + i) for i in range(4)] + [(1, (2, 3), 100)]
    assert contents(dataset.test) == [(0, (2, 3), 70), (0, (2, 4), 71), (1, (2, 3), 80), (1, (2, 4), 81), (1, (2, 5), 82)]
    assert dataset.train.skipped == dataset.test.skipped == ()


@pytest.mark.parametrize("name", ["val", "valid", "validation", "test"])
def test_the_held_out_images_have_several_names(tmp_path, name):
    fill(tmp_path, {"train/a": 2, "train/b": 3, f"{name}/a": 4, f"{name}/b": 5})
    dataset = open_dataset("imagefolder", tmp_path)
    assert np.array_equal(np.bincount(dataset.train.labels), [2, 3])
    assert np.array_equal(np.bincount(dataset.test.labels), [4, 5])


def test_of_val_and_test_it_is_val(tmp_path):
    fill(tmp_path, IMAGENET | {"test/unlabelled": 2})
    assert len(open_dataset("imagefolder", tmp_path).test) == 5


def test_without_val_some_are_held_out(tmp_path):
    fill(tmp_path, {"cat": 20, "horse": 30, "o": 1})
    first, again, other = (open_dataset("imagefolder", tmp_path, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(np.bincount(first.train.labels), [18, 27, 1])
    assert np.array_equal(np.bincount(first.test.labels), [2, 3])
    everything = contents(first.train) + contents(first.test)
    assert len(set(everything)) == 51
    assert all(grey in (range(30, 50), range(50, 80), range(10, 11))[label] for label, _, grey in everything)
    assert contents(first.test) == contents(again.test)
    assert contents(first.test) != contents(other.test)


@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_a_class_may_be_called_train(tmp_path, name):
    """For example, for a railway: the folder contains images, not classes."""
    fill(tmp_path, {"aeroplane": 4, name: 4})
    assert open_dataset("imagefolder", tmp_path).classes == ("aeroplane", name)


def test_classes_may_differ_in_case(tmp_path):
    """As for NIST's letters; on a case-insensitive disk the two are one folder."""
    fill(tmp_path, {"A": 3, "b": 3})
    (tmp_path / "a").mkdir(exist_ok=True)
    if (tmp_path / "a").samefile(tmp_path / "A"):
        pytest.skip("this disk takes a for A")
    for name in ("0.png", "1.png"):
        Image.new("L", (2, 2), 7).save(tmp_path / "a" / name)
    dataset = open_dataset("imagefolder", tmp_path)
    assert dataset.classes == ("A", "a", "b")
    assert np.array_equal(np.bincount(np.concatenate([dataset.train.labels, dataset.test.labels])), [3, 2, 3])


NAMES = [
    "z",
    "Z",
    "10",
    "9",
    "é",
    "e f",
    "[red]",
    "$5_$",
    "%s",
    "{0}",
    "-x",
    "~",
    "می\u200cخواهم",
    "caf\udce9",
    "two\nlines",
    "\x1b[2J",
]


def test_classes_are_in_torchvisions_order_whatever_they_are_called(tmp_path):
    """``sorted`` of the folders' names, as in ``torchvision.datasets.folder.find_classes``."""
    fill(tmp_path, dict.fromkeys(NAMES, 2))
    assert open_dataset("imagefolder", tmp_path).classes == tuple(sorted(NAMES))


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_in_messages_are_one_line_of_text(tmp_path, name):
    fill(tmp_path, {"a": 2, name: 0})
    message = refusal(tmp_path)
    assert len(message.splitlines()) == 2
    assert not set(message) & set("\x1b\udce9")
    message.encode()


@pytest.mark.parametrize("name", ["1.JPG", "1.jpe", "1.JFIF", "1.pjpeg", "1.pjp", "caf\udce9.jpg", "a\nb.jpg"])
def test_jpeg_has_other_names(tmp_path, name):
    fill(tmp_path, {"a": 1})
    Image.new("L", (2, 2), 99).save(tmp_path / "a" / name, "JPEG")
    dataset = open_dataset("imagefolder", tmp_path)
    assert {grey for _, _, grey in contents(dataset.train) + contents(dataset.test)} == {10, 99}


@pytest.mark.parametrize("name", [".DS_Store", "._000.png", "Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r"])
@pytest.mark.parametrize("where", ["", "train", "train/n01", "val/n02x"])
def test_what_systems_leave_is_passed_over(tmp_path, name, where):
    fill(tmp_path, IMAGENET)
    (tmp_path / where / name).write_bytes(b"\0\5\x16\7")
    dataset = open_dataset("imagefolder", tmp_path, skip_broken=True)
    assert dataset.train.skipped == dataset.test.skipped == ()
    assert (len(dataset.train), len(dataset.test)) == (10, 5)


@pytest.mark.parametrize("name", ["__MACOSX", ".git", "@eaDir", "$RECYCLE.BIN", "lost+found"])
@pytest.mark.parametrize("where", ["", "cat"])
def test_what_archives_and_disks_add_is_no_class(tmp_path, name, where):
    fill(tmp_path, {"cat": 3, "dog": 3})
    fill(tmp_path / where, {name: 1})
    dataset = open_dataset("imagefolder", tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.train) + len(dataset.test) == 6


def test_links_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", {"cat": 3})
    fill(tmp_path / "data", {"dog": 2})
    link(tmp_path / "data/cat", tmp_path / "elsewhere/cat")
    link(tmp_path / "data/dog/linked.png", tmp_path / "elsewhere/cat/000.png")
    link(tmp_path / "linked", "data")
    dataset = open_dataset("imagefolder", tmp_path / "linked")
    assert np.array_equal(np.bincount(np.concatenate([dataset.train.labels, dataset.test.labels])), [3, 3])


# --- what is refused --------------------------------------------------------------------------------------------------


# What is put into a folder, where, and the message about it.
UNTIDY = {
    "an empty class": (lambda at: at.mkdir(), "train/empty", "has no images"),
    "an image in no class": (lambda at: at.touch(), "train/lost.png", "is a file, but only folders of classes may be here"),
    "another file in no class": (lambda at: at.touch(), "train/labels.csv", "is a file, but only folders of classes may be here"),
    "no image": (lambda at: at.touch(), "train/n01/notes.txt", r"does not have an image's name, which ends in \.bmp, .*\.webp"),
    "no ending": (lambda at: at.touch(), "train/n01/Makefile", "does not have an image's name"),
    "a folder in a class": (lambda at: at.mkdir(), "train/n01/deeper", "is a folder, but only images may be here"),
    "a folder named as an image": (lambda at: at.mkdir(), "train/n01/deeper.png", "is a folder, but only images may be here"),
    "a dangling link": (lambda at: link(at, "gone/x.png"), "train/n01/x.png", "is a link to gone/x.png, which does not exist"),
    "a dangling class": (lambda at: link(at, "gone"), "train/n03", "is a link to gone, which does not exist"),
    "a link to itself": (lambda at: link(at, at.name), "train/n01/x.png", "is a link that leads back to itself"),
    "a class that is a circle": (lambda at: link(at, at.name), "train/n03", "is a link that leads back to itself"),
    "a class that is its parent": (lambda at: link(at, "."), "train/n03", "n03/n01 is a folder, but only images may be here"),
    "a pipe": (pipe, "train/n01/x.png", "is a named pipe, but only images may be here"),
    "a pipe for a class": (pipe, "train/n03", "is a named pipe, but only folders of classes may be here"),
    "a socket": (bound, "train/n01/x.png", "is a socket, but only images may be here"),
    "a device": (lambda at: link(at, "/dev/null"), "train/n01/x.png", "is a device, but only images may be here"),
    "a class to test with only": (
        lambda at: fill(at.parent, {at.name: 1}),
        "val/n03",
        "is a class, but .*train has no images of it",
    ),
}


@pytest.mark.parametrize("name", UNTIDY)
def test_what_is_untidy_is_named_for_what_it_is(tmp_path, name):
    fill(tmp_path, IMAGENET)
    make, where, message = UNTIDY[name]
    make(tmp_path / where)
    said = refusal(tmp_path)
    assert re.match(r"imagefolder: (1 problem|[234] problems), which --skip-broken ", said)
    assert re.search(message, said), said
    # Leaving it out gives the same as if it were not there: nothing hangs, and it is listed.
    dataset = open_dataset("imagefolder", tmp_path, skip_broken=True)
    assert dataset.classes == ("n01", "n02x")
    assert (len(dataset.train), len(dataset.test)) == (10, 5)
    assert any(Path(where).name in line for line in dataset.train.skipped + dataset.test.skipped)


def test_ten_problems_are_named_and_the_others_counted(tmp_path):
    fill(tmp_path, IMAGENET)
    for i in range(12):
        (tmp_path / f"val/n01/{i}.txt").touch()
    said = refusal(tmp_path).splitlines()
    assert said[0].startswith("imagefolder: 12 problems, which --skip-broken ")
    assert len(said) == 12
    assert said[-1] == "  and 2 more"


def test_a_class_that_is_not_tested_is_refused(tmp_path):
    fill(tmp_path, IMAGENET | {"train/n03": 1})
    assert "/val has no class n03" in refusal(tmp_path)


def test_names_equal_but_for_their_encoding_are_refused(tmp_path):
    fill(tmp_path, {"\xe9": 1, "e\u0301": 1})
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this disk takes one for the other")
    assert "has classes 'e\\u0301' and '\\xe9', which differ only in how Unicode encodes them" in refusal(tmp_path)


@contextlib.contextmanager
def without_permissions() -> Iterator[Path]:
    """A folder, while running as a user without root's rights."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    users = os.getresuid()
    try:
        yield folder
    finally:
        os.setresuid(*users)
        for path in folder.rglob("*"):
            path.chmod(0o755)
        shutil.rmtree(folder)


def become_nobody() -> None:
    if os.getuid() == 0:
        os.setresuid(65534, 65534, 0)


@pytest.mark.posix
@pytest.mark.parametrize("where", ["train/n01/000.png", "train/n03", "val/n01/000.png"])
def test_what_may_not_be_read_is_known_from_the_start(where):
    with without_permissions() as folder:
        fill(folder, IMAGENET)
        if not (folder / where).exists():
            fill(folder, {where: 1})
        (folder / where).chmod(0)
        become_nobody()
        said = refusal(folder)
        assert f"{where} cannot be read" in said
        assert said.startswith("imagefolder: 1 problem, which --skip-broken ")
        dataset = open_dataset("imagefolder", folder, skip_broken=True)
        assert dataset.classes == ("n01", "n02x")
        assert len(dataset.train) + len(dataset.test) == (15 if where == "train/n03" else 14)


ABSENT = {
    "nothing": (lambda at: None, "is not there"),
    "a file": (lambda at: at.touch(), "is a file, not a folder"),
    "a dangling link": (lambda at: link(at, "gone"), "is a link to gone, which does not exist, not a folder"),
    "a circle": (lambda at: link(at, at.name), "is a link that leads back to itself"),
    "a pipe": (pipe, "is a named pipe, not a folder"),
    "an empty folder": (lambda at: at.mkdir(), "has no folders of classes"),
    "images only": (lambda at: fill(at.parent, {at.name: 5}), "has files but no folders of classes"),
    "images in train": (lambda at: fill(at, {"train": 5, "val": 2}), "/train has files but no folders of classes"),
    "an image": (lambda at: fill(at.parent, {at.name: 1}), "has files but no folders of classes"),
    "nothing in train": (lambda at: fill(at, {"train": 0, "val": 0}), "/train has no folders of classes"),
    "train alone": (lambda at: fill(at, {"train/a": 2}), "has train but none of val, valid, validation, test"),
    "val alone": (lambda at: fill(at, {"val/a": 2}), "has val but no train"),
    "one image": (lambda at: fill(at, {"one": 1}), "has no images to test with"),
    "none to test": (lambda at: fill(at, {"train/a": 1, "val/a": 0}), "has no images"),
}


@pytest.mark.parametrize("name", ABSENT)
@pytest.mark.parametrize("skip_broken", [False, True])
def test_what_is_no_folder_of_classes_is_named_for_what_it_is(tmp_path, name, skip_broken):
    make, message = ABSENT[name]
    make(tmp_path / "data")
    said = refusal(tmp_path / "data", skip_broken=skip_broken)
    assert said.startswith("imagefolder: ")
    assert message in said
    assert "/data" in said


def test_an_empty_name_is_no_folder():
    for name in ("imagefolder", "fashion-mnist"):
        with pytest.raises(ValueError, match="folder must be a path, got ''"):
            open_dataset(name, "")


# --- broken images ----------------------------------------------------------------------------------------------------


def break_images(folder):
    """Three files with an image's name."""
    Image.effect_noise((64, 64), 99).save(folder / "cut.png")
    content = (folder / "cut.png").read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("<html>404</html>")
    return ("cut.png", "empty.jpg", "text.jpg")


def test_skip_broken_leaves_out_and_lists(tmp_path):
    fill(tmp_path, IMAGENET | {"train/all_broken": 0, "val/all_broken": 2, "val/unknown": 1})
    broken = break_images(tmp_path / "train/all_broken")
    (tmp_path / "train/n01/aaa.jpg").write_bytes(b"broken")  # first of its class: those after it must keep their labels
    (tmp_path / "train/n01/notes.txt").touch()
    dataset = open_dataset("imagefolder", tmp_path, skip_broken=True)
    assert dataset.classes == ("n01", "n02x")
    assert contents(dataset.train) == [(0, (2, 3 + i), 90 + i) for i in range(4)] + [(1, (2, 3 + i), 100 + i) for i in range(6)]
    assert len(dataset.test) == 5
    assert len(dataset.train.skipped) == len(broken) + 3  # an empty class, a broken image, a file that is not an image
    assert len(dataset.test.skipped) == 2
    for name in (*broken, "train/all_broken has no images", "train/n01/aaa.jpg", "train/n01/notes.txt"):
        assert sum(name in line for line in dataset.train.skipped) == 1, name
    for name in ("val/all_broken", "val/unknown"):
        assert sum(name in line for line in dataset.test.skipped) == 1, name


@pytest.mark.parametrize("workers", [1, 3])
def test_as_many_threads_look_for_broken_images_as_were_asked_for(tmp_path, monkeypatch, workers):
    fill(tmp_path, {"a": 40})
    names = set()

    def read(path, for_size):
        names.add(threading.current_thread().name)
        return read_image(path, for_size)

    monkeypatch.setattr("alexnet_from_scratch.data.image_folders.read_image", read)
    open_dataset("imagefolder", tmp_path, skip_broken=True, workers=workers)
    assert 1 <= len(names) <= workers
    assert all(name.startswith("data") for name in names)


def test_a_broken_image_is_raised_when_its_turn_comes(tmp_path):
    fill(tmp_path, {"train/a": 12, "val/a": 1})
    (tmp_path / "train/a/007.JPEG").write_bytes(b"broken")
    split = open_dataset("imagefolder", tmp_path).train
    whole = Split(split.labels[:4], split.image)
    loading = Loader(split, scratch.data.Preprocessing.fit(sample(whole), size=28, channels=1, mirror=True), 4)
    batches = loading.evaluation()
    next(batches)
    with pytest.raises(BrokenImageError, match=r"007\.JPEG is not an image"):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("data")]
