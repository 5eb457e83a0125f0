"""What a report says about the machine: with only NumPy and Numba, without the user's name, whatever the environment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

import scratch
from alexnet_from_scratch import hardware
from alexnet_from_scratch.packages import EXTRAS

ROOT = Path(__file__).parents[1]
ALONE = f"""
import importlib.metadata, runpy, sys
for name in {(*EXTRAS, "psutil", "scipy")}:
    sys.modules[name] = None  # importing it raises ModuleNotFoundError
version = importlib.metadata.version
def without_extras(name):
    if name in {[distribution for distribution, _ in EXTRAS.values()]}:
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = without_extras
runpy.run_module("scratch.about", run_name="__main__")
"""


def about(*arguments: str, **environment: str) -> dict[str, str]:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return {line[:22].strip(): line[22:] for line in ended.stdout.splitlines()}


@pytest.mark.skipif(os.name != "posix", reason="a shell closes it")
def test_standard_output_may_be_closed() -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "scratch.about"]
    ended = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_it_needs_numpy_and_numba_only() -> None:
    found = about("-c", ALONE)
    assert found["alexnet-from-scratch"].startswith(scratch.__version__)
    assert (found["numpy"], found["numba"]) == (np.__version__, numba.__version__)
    assert {found[name] for name, _ in EXTRAS.values()} == {"not installed"}


def test_it_names_settings_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    settings = {"SCRATCH_VECTOR_BITS": "128", "SCRATCH_L2_KIB": "abc", "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    found = about("-m", "scratch.about", **settings)
    assert found["vectors"].startswith("128 bits, tiles of ")
    assert all(f"{name}={value}" in found["environment"] for name, value in settings.items())
    assert found["wrong"] == "SCRATCH_L2_KIB must be an int from 64 to 1048576, got 'abc'"
    assert f"{tmp_path / 'kept'}{os.sep}scratch-" in found["compiled kernels"]
    assert "(0 files, can be written to)" in found["compiled kernels"]


def test_the_users_home_is_not_named(tmp_path: Path) -> None:
    home = tmp_path / "jane"
    home.mkdir()
    found = about("-m", "scratch.about", HOME=str(home), USERPROFILE=str(home), NUMBA_CACHE_DIR=str(home / "kept"))
    assert "jane" not in str(found)
    assert f"NUMBA_CACHE_DIR=~{os.sep}kept" in found["environment"]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_it_prints_on_any_console(encoding: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "scratch.about"],
        cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert " float32" in ended.stdout.decode(encoding)


def test_a_processor_and_its_caches_as_linux_tells_them(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("cpu family\t: 6\nmodel\t\t: 167\nmodel name\t: A Processor\n\ncpu family\t: 7\n")
    assert hardware.processor(cpuinfo) == "A Processor (family 6, model 167)"
    for number, content in enumerate([("1", "Data", "32K"), ("1", "Instruction", "64K"), ("2", "Unified", "512K"), ("3",)]):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in zip(("level", "type", "size"), content, strict=False):
            (folder / name).write_text(f"{text}\n")
    assert hardware.caches(tmp_path) == {"L1": 32 << 10, "L2": 512 << 10}
    for unknown in ("", "K", "-1K", "many"):
        (tmp_path / "index2/size").write_text(unknown)
        assert hardware.caches(tmp_path) == {"L1": 32 << 10}


def test_a_processor_and_its_caches_as_macos_tells_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "machdep.cpu.brand_string": "Apple M2",
        "hw.perflevel0.l1dcachesize": "131072",
        "hw.perflevel0.l2cachesize": "16777216",
    }

    def sysctl(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[:2] == ["sysctl", "-n"]
        return subprocess.CompletedProcess(command, 0, answers[command[2]] + "\n")

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", sysctl)
    assert hardware.processor(tmp_path / "absent") == "Apple M2"
    assert hardware.caches(tmp_path / "absent") == {"L1": 128 << 10, "L2": 16 << 20}


def test_a_system_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(sys, "platform", "win32")
    assert hardware.processor(tmp_path / "absent") == "unknown"
    assert hardware.caches(tmp_path / "absent") == {}
