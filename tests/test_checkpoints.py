"""Checkpoints: written whole, never trusted when read, and a run that resumes from one equals a run that was never stopped."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet_from_scratch.runs import files
from alexnet_from_scratch.runs.checkpoints import Checkpoints, Purpose, seeds

ARRAYS: dict[str, np.ndarray] = {
    "network.a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "velocity.a": np.zeros((0, 3)),
    "number": np.array(3, np.int64),
    "flag": np.array(True),
}
STATE = {"options": {"batch": 2}, "position": {"step": 7, "seconds": 0.1}}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", "scratch", keep=2)


def refuse(message: str) -> None:
    pytest.fail(f"nothing was to be reported, got {message}")


def test_what_was_saved_comes_back(checkpoints):
    assert checkpoints.newest(refuse) is None
    path = checkpoints.save(7, ARRAYS, STATE)
    found = checkpoints.newest(refuse)
    assert (found.path, found.state) == (path, STATE)
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(found.arrays[name], array)


def test_arrays_in_any_layout_are_saved_by_value(checkpoints):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    checkpoints.save(1, {"a": array.transpose(2, 0, 1), "b": array[:, ::-1]}, {})
    found = checkpoints.newest(refuse).arrays
    assert np.array_equal(found["a"], array.transpose(2, 0, 1))
    assert np.array_equal(found["b"], array[:, ::-1])


def test_the_last_few_are_kept(checkpoints):
    for step in (2, 10, 9_999, 10_000):
        checkpoints.save(step, ARRAYS, STATE)
    assert [path.name for path in checkpoints.paths()] == ["step-000009999.safetensors", "step-000010000.safetensors"]


def flipped(content: bytearray, i: int, bit: int) -> bytes:
    return bytes(content[:i] + bytes([content[i] ^ 1 << bit]) + content[i + 1 :])


@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "empty", "grown", "header", "another file"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(checkpoints, damage):
    good = checkpoints.save(1, ARRAYS, STATE)
    bad = checkpoints.save(2, ARRAYS, STATE)
    content = bytearray(bad.read_bytes())
    rng = random.Random(0)
    spoilt: dict[str, list[bytes]] = {
        "flipped bit": [
            bytes([*content[:i], content[i] ^ 1 << rng.randrange(8), *content[i + 1 :]]) for i in range(len(content))
        ],
        "cut short": [bytes(content[:i]) for i in range(1, len(content), 7)],
        "empty": [b""],
        "grown": [bytes(content + b"\0")],
        "header": [(2**60).to_bytes(8, "little") + bytes(content[8:])],
        "another file": [b"PK\3\4" + bytes(1000)],
    }
    for version in spoilt[damage]:
        bad.write_bytes(version)
        reported: list[str] = []
        assert checkpoints.newest(reported.append).path == good
        assert len(reported) == 1
        assert str(bad) in reported[0]
    # One step later it is gone, so it cannot displace a whole one.
    checkpoints.save(2, ARRAYS, STATE)
    bad.rename(bad.with_name("step-000000009.safetensors"))
    later = checkpoints.save(3, ARRAYS, STATE)
    assert checkpoints.paths() == [good, later]


def test_one_files_arrays_do_not_go_with_anothers_state(checkpoints):
    mine = checkpoints.save(1, ARRAYS, STATE)
    theirs = checkpoints.save(2, {**ARRAYS, "network.a": ARRAYS["network.a"] + 1}, {**STATE, "position": {"step": 8}})
    about, arrays = files.read_header(mine, "checkpoint").about, files.read_header(theirs, "checkpoint").read()
    mine.unlink()
    files.write(theirs, "checkpoint", about, arrays)
    with pytest.raises(ValueError, match="checksum does not match its content"):
        checkpoints.newest(lambda _: None)


@pytest.mark.parametrize(
    "change",
    [
        {"network.a": ARRAYS["network.a"].reshape(3, 2)},
        {"velocity.a": ARRAYS["velocity.a"].astype(np.float32)},  # no bytes in either
        {"number": np.array(3, np.int64).view(np.float64)},
        {"velocity.a": ARRAYS["velocity.a"], "velocity.b": ARRAYS["velocity.a"]},
    ],
    ids=["shape", "dtype of nothing", "dtype", "name"],
)
def test_a_checksum_is_of_more_than_bytes(checkpoints, change):
    path = checkpoints.save(1, ARRAYS, STATE)
    files.write(path, "checkpoint", files.read_header(path, "checkpoint").about, {**ARRAYS, **change})
    with pytest.raises(ValueError, match="checksum does not match its content"):
        checkpoints.newest(lambda _: None)


def test_without_a_whole_one_there_is_an_error(checkpoints):
    path = checkpoints.save(1, ARRAYS, STATE)
    files.write(path, "weights", {}, ARRAYS)
    with pytest.raises(
        ValueError, match=r"(?s)holds no checkpoint that --resume could continue from.*step-000000001.*must be a checkpoint file"
    ):
        checkpoints.newest(lambda _: None)


def test_the_other_sides_checkpoint_is_refused(checkpoints):
    Checkpoints(checkpoints.folder, "torch_impl", keep=2).save(1, ARRAYS, STATE)
    with pytest.raises(ValueError, match="must be a checkpoint of scratch in format 1, got one of torch_impl in format 1"):
        checkpoints.newest(refuse)


def test_a_full_disk_leaves_what_was_there(checkpoints, monkeypatch):
    good = checkpoints.save(1, ARRAYS, STATE)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"step-000000002.*No space left on device.*continues from {good}") as error:
        checkpoints.save(2, ARRAYS, STATE)
    assert error.value.errno == errno.ENOSPC
    assert list(checkpoints.folder.iterdir()) == [good]
    assert checkpoints.newest(refuse).path == good


@pytest.mark.skipif(os.name != "posix", reason="folders are not synced")
@pytest.mark.parametrize(("number", "matters"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_that_syncs_no_folders_will_do(checkpoints, monkeypatch, number, matters):
    sync = os.fsync

    def fails(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match=os.strerror(number)) if matters else contextlib.nullcontext():
        checkpoints.save(1, ARRAYS, STATE)
    assert checkpoints.newest(refuse).arrays.keys() == ARRAYS.keys()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_disk_that_fills_while_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "open", lambda self, mode: os.fdopen(os.open("/dev/full", os.O_WRONLY), mode))
    with pytest.raises(OSError, match="No space left on device"):
        files.write_bytes(tmp_path / "file", bytes(10_000))
    assert list(tmp_path.iterdir()) == []


def test_random_numbers_differ_by_seed_purpose_and_step():
    streams = [
        tuple(seeds(seed, purpose, step).generate_state(4).tolist())
        for seed in (0, 1, 2**40)
        for purpose in Purpose
        for step in (0, 1, 2)
    ]
    assert len(set(streams)) == len(streams)


@pytest.mark.posix
@pytest.mark.parametrize("side", ["scratch", "torch_impl"])
def test_a_killed_run_ends_with_the_same_bits(side):
    # In its own process, which can fork: this one has threads already.
    command = [sys.executable, "-m", "tests.kills", "--side", side, "--kills", "4"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "every one ended with the bits of the undisturbed run" in ended.stdout
