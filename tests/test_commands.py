"""Commands before and around their work: Ctrl-C and missing packages end them with one line, whatever they are doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from alexnet_from_scratch import signs
from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.packages import EXTRAS
from alexnet_from_scratch.runs.options import Options
from alexnet_from_scratch.runs.screen import complain
from tests.odd_files import pipe
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


@pytest.mark.posix
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


@pytest.mark.parametrize("module", ["scratch.predict", "torch_impl.predict", "alexnet_from_scratch.xray"])
def test_ctrl_c_in_a_function_that_c_calls(module, tmp_path):
    """Python prints a traceback and goes on."""
    (tmp_path / "numpy.py").write_text(
        "import ctypes, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))()\n"
        "time.sleep(1)\n"
    )
    command = start([module], tmp_path)
    _, said = command.communicate(timeout=100)
    assert (command.returncode, said) == (130, "interrupted\n")


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


def test_the_extra_that_is_advised_has_the_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]

    def packages(extra: str) -> set[str]:
        names = {requirement.partition(">")[0] for requirement in extras[extra]}
        own = {name for name in names if name.startswith("alexnet-from-scratch")}
        return names.union(*(packages(other) for name in own for other in name.partition("[")[2].rstrip("]").split(",")))

    for distribution, extra in EXTRAS.values():
        assert distribution.lower() in packages(extra)


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
        (["alexnet_from_scratch.exercises", "relu", "--folder", __file__], f"error: --folder {__file__} must be a folder"),
        (["alexnet_from_scratch.exercises", "relu", "--folder", "/proc/mine"], "error: --folder /proc/mine must be a folder"),
    ],
)
def test_a_wrong_command_line_is_one_message(command, said, tmp_path):
    ended = subprocess.run(
        [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode in (1, 2)
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_pipe_without_a_writer_is_no_wait_without_an_end(tmp_path):
    pipe(tmp_path / "pipe")
    command = [sys.executable, "-m", "scratch.predict", "pipe"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (1, "error: pipe is a named pipe, not a file\n")


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="no name for standard input")
def test_standard_input_is_no_file(tmp_path):
    example = ROOT / "alexnet_from_scratch" / "networks" / "mini-fashion-mnist" / "example.png"
    command = [sys.executable, "-m", "scratch.predict", "/dev/stdin"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, input=example.read_bytes(), timeout=120, check=False)
    assert (ended.returncode, ended.stderr) == (1, b"error: /dev/stdin is a named pipe, not a file\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
@pytest.mark.parametrize(
    "command", ["scratch.walkthrough", "alexnet_from_scratch.exercises", "alexnet_from_scratch.xray relu --out page.html"]
)
@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_output_without_room_is_named(command, unbuffered, tmp_path):
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", *command.split()],
            env=environment, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (1, "error: standard output: No space left on device\n")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="no file here that opens and cannot be read")
@pytest.mark.parametrize("read", [read_image, signs.described, convert.read_names])
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


@pytest.mark.parametrize("resume", [["--resume"], []])
def test_a_folder_that_cannot_be_one_is_named(resume, capsys):
    with pytest.raises(SystemExit):
        Options.parse("scratch", [*resume, "--out", __file__])
    assert f"error: --out must name a folder, and {__file__} is a file\n" in capsys.readouterr().err
