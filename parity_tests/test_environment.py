"""Environment variables: a wrong one gives one clear line, never at import, and never with a traceback from a command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

import scratch
from scratch.compiled import blocks, emission, environment, threads
from scratch.compiled.jit import JIT_OFF
from scratch.core import checks
from torch_impl import train

ROOT = Path(__file__).parent.parent
TRAINED = "alexnet_from_scratch/networks/mini-fashion-mnist"
COMPUTE = "import numpy, scratch; print(scratch.relu.forward(numpy.array([-1.0, 2.0]))[0].tolist())"
GIL_OFF = "import sys; sys._is_gil_enabled = lambda: False\n"  # what a free-threaded Python returns
WANTED = {
    "SCRATCH_NUM_THREADS": "an int from 1 to 1024",
    "SCRATCH_VECTOR_BITS": "128, 256 or 512",
    "SCRATCH_L2_KIB": "an int from 64 to 1048576",
}
WRONG = ("abc", "0", "-128", "64.0", "", " 128", "9" * 5000, "100000000", "1e3", "²")
CHOICES = {
    "SCRATCH_NUM_THREADS": threads._threads_at_the_start,
    "SCRATCH_VECTOR_BITS": emission._vector_bits,
    "SCRATCH_L2_KIB": blocks._forced_l2,
}


LACKING = next(name for name, there in llvm.get_host_cpu_features().items() if not there)


def start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SCRATCH_", "NUMBA_NUM"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=inherited | environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("name", WANTED)
@pytest.mark.parametrize("value", WRONG, ids=lambda value: repr(value[:10]))
def test_a_wrong_choice_is_an_error_once_something_is_computed(monkeypatch, name, value):
    monkeypatch.setattr(environment, "_wrong", [])
    default = CHOICES[name]()
    monkeypatch.setenv(name, value)
    assert CHOICES[name]() == default
    with pytest.raises(ValueError, match=re.escape(f"{name} must be {WANTED[name]}, got {checks.shown(value)}")) as caught:
        scratch.relu.forward(np.ones(2))
    assert len(str(caught.value)) < 200
    with pytest.raises(ValueError, match=name):
        scratch.set_num_threads(2)


@pytest.mark.parametrize("name", WANTED)
def test_a_right_choice_is_taken(monkeypatch, name):
    monkeypatch.setattr(environment, "_wrong", [])
    monkeypatch.setenv(name, "256")
    assert CHOICES[name]() == 256
    environment.check()  # raises nothing


COMMANDS = [
    ("scratch.predict", f"{TRAINED}/example.png", "--weights", f"{TRAINED}/weights.safetensors"),
    ("scratch.train", "--max-steps", "1", "--no-pictures"),
    ("scratch.train", "--max-steps", "1", "--no-pictures", "--threads", "2"),
    ("scratch.walkthrough",),
    ("alexnet_from_scratch.xray", "relu"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", WANTED)
def test_a_command_says_so_in_a_line(command, name, tmp_path):
    out = {"scratch.train": ("--out", str(tmp_path / "run")), "alexnet_from_scratch.xray": ("--out", str(tmp_path / "page.html"))}
    run = start("-m", *command, *out.get(command[0], ()), **{name: "abc"})
    assert "Traceback" not in run.stderr
    assert run.stderr.rstrip().endswith(f"{name} must be {WANTED[name]}, got 'abc'")
    assert run.returncode in (1, 2)
    assert list(tmp_path.iterdir()) == []  # before anything is begun


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "abc"}, "RANK must be an int of 0 or more, as torchrun sets it, got 'abc'"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK must be an int of 0 or more, as torchrun sets it, got ''"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE must be an int of 1 or more, as torchrun sets it, got '0'"),
        ({"RANK": "1"}, "RANK must be below WORLD_SIZE, as torchrun sets them, got 1 and 1"),  # that process would write nothing
    ],
    ids=str,
)
def test_what_torchrun_sets(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=re.escape(message)), train.Workers.joined(train.TorchOptions()):
        pass


def test_without_the_gil_nothing_is_computed():
    run = start("-c", f"{GIL_OFF}import scratch\ntry:\n    {COMPUTE}\nexcept ValueError as error:\n    print(error)\n")
    assert run.stdout.startswith("scratch must run in a Python with the GIL")
    assert (run.stderr, run.returncode) == ("", 0)


@pytest.mark.skipif(JIT_OFF, reason="it is off")
def test_the_jit_may_be_off():
    run = start("-c", COMPUTE, NUMBA_DISABLE_JIT="1")
    assert (run.stdout, run.stderr) == ("[0.0, 2.0]\n", "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("NUMBA_NUM_THREADS", "0", "NUMBA_NUM_THREADS must be a positive int, got '0'"),
        ("NUMBA_NUM_THREADS", "abc", "NUMBA_NUM_THREADS must be a positive int, got 'abc'"),
        ("NUMBA_FUNCTION_CACHE_SIZE", "-1", "NUMBA_FUNCTION_CACHE_SIZE must be an int of 0 or more, got '-1'"),
        ("NUMBA_FUNCTION_CACHE_SIZE", "9" * 30, f"NUMBA_FUNCTION_CACHE_SIZE must be an int of 0 or more, got '{'9' * 30}'"),
        (
            "NUMBA_CPU_FEATURES",
            "+avx2,junk",
            "NUMBA_CPU_FEATURES must have + or - before each name, such as +avx2,-fma, got 'junk'",
        ),
        ("NUMBA_CPU_FEATURES", f"+{LACKING}", f"NUMBA_CPU_FEATURES must name features of this processor, which has no {LACKING}"),
        ("NUMBA_OPT", "abc", "'NUMBA_OPT' is defined but its associated value 'abc' could not be parsed."),
    ],
)
def test_what_numba_cannot_read(name, value, message):
    """Numba itself raises an error while it is imported, or shows a traceback in a warning; LLVM ends the process."""
    run = start("-m", *COMMANDS[0], **{name: value})
    assert "Traceback" not in run.stderr
    assert run.stderr.count("\n") == 1
    assert run.stderr.rstrip().endswith(message)
    assert run.returncode == 1


@pytest.mark.parametrize("content", [b"num_threads: 0", b"function_cache_size: -1", b"[", b"- 1", b"\xff"], ids=repr)
def test_a_file_of_settings_that_numba_cannot_read(content, tmp_path):
    pytest.importorskip("yaml", reason="Numba reads the file with it")
    (tmp_path / ".numba_config.yaml").write_bytes(content)
    run = subprocess.run(
        [sys.executable, "-m", "scratch.predict", "x.png"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert (run.returncode, run.stdout, run.stderr.count("\n")) == (1, "", 1)
    assert run.stderr.startswith("error: scratch: .numba_config.yaml in the working directory must hold settings that Numba can")


@pytest.mark.parametrize(
    "command", [("scratch.predict", "--help"), ("torch_impl.predict", "--help"), ("alexnet_from_scratch.xray",)]
)
def test_a_working_directory_that_was_deleted(command, tmp_path):
    """PyTorch and coverage, which Numba imports, cannot be imported there."""
    run = in_a_deleted_directory(tmp_path, "-m", *command)
    assert (run.returncode, run.stderr) == (1, "error: the working directory was deleted; change to another one\n")


def test_scratch_in_a_working_directory_that_was_deleted(tmp_path):
    run = in_a_deleted_directory(tmp_path, "-c", "import scratch")
    assert run.stderr.splitlines()[-1].startswith("FileNotFoundError: scratch: the working directory was deleted")


def in_a_deleted_directory(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = tmp_path / "deleted"
    folder.mkdir()
    script = 'rmdir "$PWD" && exec "$@"'
    return subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
