"""How many cores this process may keep busy."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available_cores(root: Path = Path("/")) -> int:
    """The number of cores this process may run on, or its CPU quota in cores (as in a container) if the quota is lower.

    A quota of one and a half cores counts as two. Two threads can use it up, with a pause now and then; one cannot.

    Args:
        root: where ``proc`` and ``sys`` are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Systems other than Linux, and some containers, do not have these files. Then no quota is known.
    with contextlib.suppress(OSError, ValueError, ArithmeticError):
        cores = min([cores, *(max(1, math.ceil(quota)) for quota in _quotas(root))])
    return cores


def _quotas(root: Path) -> Iterator[float]:
    """The quotas, in cores, of the process's cgroup and of all cgroups above it. Every one of these limits applies."""
    groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()]
    for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        mount, _, kind = line.partition(" - ")
        if not kind.startswith("cgroup"):
            continue
        _, _, _, top, at, *_ = mount.split()
        controller = "" if kind.startswith("cgroup2") else "cpu"  # version 2 has one tree for all controllers
        for path in [path for _, controllers, path in groups if controller in controllers.split(",")]:
            yield from _quotas_from(root / _plain(at).lstrip("/"), _below(path, _plain(top)))


def _plain(path: str) -> str:
    r"""A path from mountinfo, which writes a space as \040."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path)


def _below(path: str, top: str) -> PurePosixPath:
    """A cgroup's path below the mounted folder.

    A container may be told the cgroup's path on its host but see only its own part of the tree. Then the path is empty.
    """
    group = PurePosixPath(path)
    return group.relative_to(top) if group.is_relative_to(top) and ".." not in group.parts else PurePosixPath()


def _quotas_from(mounted: Path, group: PurePosixPath) -> Iterator[float]:
    """The quotas in the files of a cgroup and of its parents."""
    for folder in (group, *group.parents):
        with contextlib.suppress(FileNotFoundError):
            quota, period = (mounted / folder / "cpu.max").read_text(encoding="utf-8").split()
            if quota != "max":
                yield int(quota) / int(period)
        with contextlib.suppress(FileNotFoundError):
            quota, period = (
                (mounted / folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
            )
            if int(quota) > 0:
                yield int(quota) / int(period)
