"""Windows and macOS, as far as stand-ins can show: what they lack, what they refuse, and consoles without Unicode."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import llvmlite.binding as llvm
import pytest

from alexnet_from_scratch.runs import run_folder, session
from alexnet_from_scratch.runs.prediction import SHIPPED
from benchmarks.measure import awake
from scratch.compiled import emission, kernel_cache, microkernel
from scratch.compiled.cores import available_cores

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.posix  # the stand-ins take away what POSIX has
EXAMPLE = str(SHIPPED.parent / "example.png")
# What Windows does not have. The standard library that is needed is imported before, since here it is Linux's.
LESS = """
import asyncio, concurrent.futures, ctypes, getpass, logging, multiprocessing, os, pathlib, platform, random, runpy, shutil
import signal, subprocess, sys, tempfile, threading, uuid
for name in ("resource", "fcntl", "pwd", "grp", "termios", "syslog", "pty", "tty"):
    sys.modules[name] = None
for name in ("fork", "register_at_fork", "sched_getaffinity", "SCHED_OTHER", "geteuid", "mkfifo", "O_NONBLOCK", "nice"):
    delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGALRM"):
    delattr(signal, name)
"""


def less(code: str, first: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code where everything is missing that Windows lacks."""
    return subprocess.run(
        [sys.executable, "-c", first + LESS + code],
        cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip


def test_scratch_computes_without_what_windows_lacks(tmp_path: Path) -> None:
    code = """
import numpy as np, scratch
x, weight = np.ones((2, 3, 8, 8), "f"), np.ones((4, 3, 3, 3), "f")
for rung in ("im2col", "numba"):  # all kernels are compiled, kept and run in the same way
    with scratch.use_rung(rung):
        out, cache = scratch.conv2d.forward(x, weight)
        grad_x, grad_weight, _ = scratch.conv2d.backward(np.ones_like(out), cache)
    print(out.max(), grad_x.max(), grad_weight.max())
"""
    done = less(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert (done.stderr, set(done.stdout.splitlines())) == ("", {"27.0 36.0 72.0"})
    assert list(tmp_path.glob("*/*.kernel")), "kernels are kept there as well"


@pytest.mark.parametrize("module", ["scratch.predict", "torch_impl.predict"])
def test_a_command_runs_without_what_windows_lacks(module: str) -> None:
    # torch comes first: its Linux build needs what Linux has.
    code = f"sys.argv = ['predict', {EXAMPLE!r}]\nrunpy.run_module({module!r}, run_name='__main__')"
    done = less(code, first="import torch" if module.startswith("torch") else "")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Ankle boot" in done.stdout


def test_the_benchmark_measures_without_what_windows_lacks() -> None:
    code = """
found = psutil.Process.memory_info
psutil.Process.memory_info = lambda self: __import__("types").SimpleNamespace(peak_wset=found(self).rss)
pathlib.Path.read_text = lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError("/proc"))
import benchmarks.cli
from benchmarks.measure import machine
assert machine.peak_bytes() > 1 << 20
assert machine.describe()["cores"] == os.cpu_count()
"""
    done = less(code, first="import psutil, torch")
    assert (done.returncode, done.stderr) == (0, "")


def test_no_process_spins_where_it_could_not_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(awake, "os", SimpleNamespace(name="nt"))
    stays_quiet = awake.Awake()
    with stays_quiet:
        assert stays_quiet.spinners == []


def test_signals_that_windows_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)
    assert session._asking_to_stop() == [signal.SIGINT, signal.SIGTERM]


def test_cores_where_affinity_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("triple", "bits", "rows"),
    [
        ("arm64-apple-darwin23.1.0", 128, 14),
        ("aarch64-unknown-linux-gnu", 128, 14),
        ("x86_64-pc-windows-msvc", 256, 6),
        ("x86_64-apple-darwin22.6.0", 256, 6),
        ("x86_64-unknown-linux-gnu", 512, 14),
        ("x86_64-unknown-linux-gnu", 128, 6),
    ],
)
def test_a_tile_is_as_high_as_the_registers_allow(triple: str, bits: int, rows: int) -> None:
    assert microkernel._rows(bits, triple) == rows


def test_apples_processors_have_vectors_although_llvm_names_no_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llvm, "get_host_cpu_features", dict)
    assert emission._host_vector_bits() == 128


class Msvcrt:
    """A stand-in for Windows' locks. A lock holds bytes from the file's position on; other handles cannot read or write them."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.locked: dict[tuple[int, int], int] = {}

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        at = os.lseek(descriptor, 0, os.SEEK_CUR)
        assert at > 1 << 32, "what is locked can no longer be read"
        if self.locked.setdefault((os.fstat(descriptor).st_ino, at), descriptor) != descriptor:
            raise PermissionError(errno.EACCES, "Permission denied")


def test_a_runs_folder_is_locked_on_windows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "msvcrt", Msvcrt())
    monkeypatch.setattr(run_folder, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setitem(sys.modules, "fcntl", None)
    path = tmp_path / "metrics.jsonl"
    with path.open("ab", buffering=0) as ours, path.open("ab", buffering=0) as others:
        run_folder._lock(ours.fileno())
        ours.write(b"a line\n")
        with pytest.raises(PermissionError) as refused:
            run_folder._lock(others.fileno())
        assert refused.value.errno in run_folder.LOCKED_OUT
    assert path.read_bytes() == b"a line\n", "appended, although the position was beyond the end"


def replace_refused(self: Path, target: Path) -> Path:
    raise PermissionError(errno.EACCES, "Access is denied", str(target))


def test_a_kernel_that_another_process_reads_is_kept_already(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Windows replaces no file that is open."""
    path = tmp_path / "relu.kernel"
    path.write_bytes(b"the code")
    monkeypatch.setattr(Path, "replace", replace_refused)
    kernel_cache._write(path, b"the code")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    with pytest.raises(PermissionError):
        kernel_cache._write(path, b"other code")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


COMMANDS = {
    "scratch.predict": [EXAMPLE],
    "scratch.train": ["--max-steps", "2", "--no-pictures", "--out", "run"],
    "scratch.walkthrough": [],
    "alexnet_from_scratch.exercises": ["relu"],
    "alexnet_from_scratch.xray": ["relu", "--out", "relu.html"],
    "benchmarks": ["--help"],
}


@pytest.mark.parametrize("module", COMMANDS)
def test_a_console_with_the_letters_of_western_windows(module: str, tmp_path: Path) -> None:
    """A command never fails since it cannot print a letter, and writes its files in UTF-8."""
    environment = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-X", "warn_default_encoding", "-m", module, *COMMANDS[module]],
        cwd=tmp_path, env=os.environ | environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=900, check=False,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode == (module == "alexnet_from_scratch.exercises"), done.stderr  # an unfinished exercise ends with 1
    assert done.stdout.decode("cp1252")
    ours = [line for line in done.stderr.splitlines() if b"EncodingWarning" in line and b"site-packages" not in line]
    assert ours == [], "a file is read or written in the system's encoding, which is another on Windows"
