"""Commands before and around their work: Ctrl-C and missing packages end them with one line, whatever they are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Reports when it is imported, and is slow enough for a Ctrl-C.
SLOW = "import sys, time\nprint('importing', file=sys.stderr, flush=True)\ntime.sleep(30)\n"


def start(command: list[str], path: Path, **more: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, "-m", *command],
        cwd=path,
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **more,
    )


@pytest.mark.parametrize(
    ("module", "package"), [("scratch.train", "numba"), ("torch_impl.train", "torch"), ("scratch.train", "sklearn")]
)
def test_ctrl_c_while_something_is_imported(module, package, tmp_path):
    (tmp_path / f"{package}.py").write_text(SLOW)
    command = start([module], tmp_path, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert command.stderr is not None
    assert command.stderr.readline() == "importing\n"
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=100)
    assert (command.returncode, said) == (130, "interrupted\n")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("rich", "scratch.train"),
        ("rich", "torch_impl.train"),
        ("rich", "scratch.predict x.png --weights x.safetensors"),
        ("safetensors", "scratch.train --resume"),
        ("safetensors", "torch_impl.pictures ."),
    ],
)
def test_a_package_that_is_absent_is_named(package, command, tmp_path):
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module named {package}', name='{package}')")
    process = start(command.split(), tmp_path)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 1, said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert package in said
    assert "is not installed: pip install 'alexnet-from-scratch[train]'" in said


def test_output_that_is_cut_off_is_no_error(tmp_path):
    command = start(["scratch.walkthrough"], tmp_path, bufsize=1)
    assert command.stdout is not None
    assert command.stderr is not None
    command.stdout.close()
    assert command.wait(timeout=100) == 1
    assert command.stderr.read() == ""
    command.stderr.close()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["scratch.walkthrough", "--bogus"], "unrecognized arguments: --bogus"),
        (["torch_impl.walkthrough", "photo.jpg"], "unrecognized arguments: photo.jpg"),
        (["alexnet_from_scratch.exercises", "relu", "--cases", "0"], "--cases: must be at least 1, got 0"),
        (["alexnet_from_scratch.exercises", "relu", "--folder", __file__], "error: "),
    ],
)
def test_a_wrong_command_line_is_one_message(command, said, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode in (1, 2)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_without_a_writer_is_no_wait_without_an_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "scratch.predict", "pipe"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr.startswith("error: pipe")) == (1, True)
