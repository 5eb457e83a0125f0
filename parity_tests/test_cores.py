"""The number of cores: a container's quota counts, in either version of the system's files, wherever they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.measure import machine
from scratch.compiled import cores, threads

V2 = "26 25 0:23 {top} {at} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 31 0:30 {top} {at} rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
OTHERS = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n24 22 0:21 / /proc rw - proc proc rw\n23 22 0:9 / /odd rw master:1 - tmpfs  rw\n"


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


def tree(root: Path, groups: str, mounts: str, **files: str) -> Path:
    """A root folder with the files of /proc and /sys."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mountinfo").write_text(OTHERS + mounts)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")
    return root


def version2(root: Path, group: str, top: str = "/", at: str = "/sys/fs/cgroup", **files: str) -> Path:
    return tree(root, f"0::{group}\n", V2.format(top=top, at=at), **files)


def version1(root: Path, group: str, top: str = "/", **files: str) -> Path:
    groups = f"5:cpuset:/elsewhere\n4:cpu,cpuacct:{group}\n0::/\n"
    return tree(root, groups, V1.format(top=top, at="/sys/fs/cgroup/cpu,cpuacct"), **files)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 64),
        ("200000 100000", 2),
        ("150000 100000", 2),  # two threads use the whole quota
        ("100000 100000", 1),
        ("10000 100000", 1),
        ("50000 25000", 2),
        ("9900000 100000", 64),  # more than the cores there are
    ],
)
def test_a_containers_quota_counts(tmp_path, quota, expected):
    assert cores.available_cores(version2(tmp_path / "2", "/", **{"cpu.max": quota})) == expected
    limit, period = quota.replace("max", "-1").split()
    folder = "cpu,cpuacct/docker/abc"
    files = {f"{folder}/cpu.cfs_quota_us": limit, f"{folder}/cpu.cfs_period_us": period}
    assert cores.available_cores(version1(tmp_path / "1", "/docker/abc", **files)) == expected


def test_the_smallest_quota_of_all_groups_around_a_process_counts(tmp_path):
    files = {
        "a/cpu.max": "300000 100000",
        "a/b/cpu.max": "max 100000",
        "a/b/c/cpu.max": "700000 100000",
        "z/cpu.max": "1000 100000",
    }
    assert cores.available_cores(version2(tmp_path / "2", "/a/b/c", **files)) == 3
    files = {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}
    assert cores.available_cores(version1(tmp_path / "1", "/a/b/c", **files)) == 3


@pytest.mark.parametrize(
    ("group", "top"),
    [
        ("/docker/abc", "/docker/abc"),  # the host's path, and the container's part of the tree
        ("/docker/abc/inner", "/docker/abc"),
        ("/", "/docker/abc"),
        ("/../../other", "/"),  # seen from another namespace
        ("/kubepods/pod1", "/docker/abc"),
    ],
)
def test_a_container_that_sees_its_own_part_of_the_tree(tmp_path, group, top):
    assert cores.available_cores(version2(tmp_path, group, top, **{"cpu.max": "200000 100000"})) == 2


def test_where_the_tree_is_mounted(tmp_path):
    at = r"/sys/fs/cgroup/uni\040fied"
    assert cores.available_cores(version2(tmp_path, "/a", at=at, **{"uni fied/a/cpu.max": "200000 100000"})) == 2


@pytest.mark.parametrize("content", ["", "max", "2", "2 0", "-1 100000", "many few", "\x00", "1 2 3"])
def test_files_that_make_no_sense_say_nothing(tmp_path, content):
    assert cores.available_cores(version2(tmp_path, "/", **{"cpu.max": content})) in (1, 64)
    (tmp_path / "proc/self/mountinfo").write_text("1 2 - cgroup2\n" + content)
    assert cores.available_cores(tmp_path) == 64
    (tmp_path / "proc/self/cgroup").write_text(content)
    assert cores.available_cores(tmp_path) == 64


def test_other_systems(tmp_path, monkeypatch):
    assert cores.available_cores(tmp_path) == 64  # without /proc
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores.available_cores(tmp_path) == 1


def test_who_asks(monkeypatch):
    """Everything that chooses a number of threads by itself asks here."""
    monkeypatch.delenv("SCRATCH_NUM_THREADS", raising=False)
    monkeypatch.setattr(cores, "_quotas", lambda root: [2.0])
    assert threads._threads_at_the_start() == 2
    assert machine.cores() == 2
