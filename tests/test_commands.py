"""Commands before and around their work: Ctrl-C and missing packages end them with one line, whatever they are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.packages import EXTRAS
from alexnet_from_scratch.runs import files
from alexnet_from_scratch.runs.options import Options
from alexnet_from_scratch.runs.screen import complain
from torch_impl import convert

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
        ("torch", "torch_impl.train"),
        ("torch", "torch_impl.convert a b"),
        ("hypothesis", "alexnet_from_scratch.exercises relu"),
        ("hypothesis", "alexnet_from_scratch.xray relu"),
        ("rich", "alexnet_from_scratch.exercises --help"),
        ("PIL", "alexnet_from_scratch.xray --help"),
    ],
)
def test_a_package_that_is_absent_is_named(package, command, tmp_path):
    (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module named {package}', name='{package}')")
    process = start(command.split(), tmp_path)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 1, said
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert EXTRAS[package][0] in said
    assert f"is not installed: pip install 'alexnet-from-scratch[{EXTRAS[package][1]}]'" in said


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


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file here that opens and cannot be read")
@pytest.mark.parametrize("read", [read_image, files.described, convert.read_names])
def test_a_file_that_cannot_be_read_is_named(read, capsys):
    """The system names the file where opening fails, not where reading does."""
    with pytest.raises(OSError, match="/proc/self/mem") as caught:
        read(Path("/proc/self/mem"))
    complain(caught.value)
    assert capsys.readouterr().err == "error: /proc/self/mem: Input/output error\n"


def test_a_path_of_no_letters_is_shown(capsys):
    with pytest.raises(OSError, match="No such file") as caught:
        read_image("")
    complain(caught.value)
    assert capsys.readouterr().err == "error: '': No such file or directory\n"


def test_a_folder_that_cannot_be_one_is_named(capsys):
    with pytest.raises(SystemExit):
        Options.parse("scratch", ["--resume", "--out", __file__])
    assert f"error: {__file__}/checkpoints: Not a directory\n" in capsys.readouterr().err
