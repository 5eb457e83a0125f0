"""The commands that predict: several images, files that are not images, and names, terminals and packages of any kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import scratch.pictures
import scratch.predict
import torch_impl.pictures
import torch_impl.predict
from alexnet_from_scratch.runs import prediction, weights
from alexnet_from_scratch.text import shown
from scratch.alexnet import AlexNet
from scratch.data import Preprocessing

ROOT = Path(__file__).parents[1]
SIDES: list[Any] = [scratch.predict, torch_impl.predict]
CLASSES = ("plain", "[red]café[/red]", "$5_$ %s {0}\x1b[2J\u202e", "写真", "ö" * 300)


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network that has learned nothing."""
    path = tmp_path_factory.mktemp("weights") / "mini.safetensors"
    rng = np.random.default_rng(0)
    model = AlexNet("mini", len(CLASSES), rng=rng)
    preprocessing = Preprocessing.fit(rng.integers(0, 256, (5, 28, 28), dtype=np.uint8), size=28, channels=1, mirror=False)
    weights.save(path, "mini", CLASSES, model.state_dict(), preprocessing.state_dict())
    return path


def paint(path: Path, mode: str = "RGB") -> str:
    Image.effect_noise((40, 50), 100).convert(mode).save(path, "PNG")
    return str(path)


def predict(side: Any, *arguments: object) -> int:
    """The exit code of the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["predict", *map(str, arguments)])
        try:
            prediction.command(side.__name__.split(".")[0], side.predictor)
        except SystemExit as left:
            return left.code if isinstance(left.code, int) else 0
    return 0


def in_a_process(
    *arguments: object, side: str = "scratch", code: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """The command in its own process; ``code`` runs before it."""
    program = f"{code}\nimport runpy, sys\nsys.argv[0] = 'predict'\nrunpy.run_module('{side}.predict', run_name='__main__')"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    encoding = environment.get("PYTHONIOENCODING", "utf-8").split(":")[0]
    environment = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, encoding=encoding, cwd=ROOT, env=environment, timeout=120)


@pytest.mark.parametrize("side", SIDES)
def test_several_images_have_a_table_each(side, mini, tmp_path, capsys):
    images = [paint(tmp_path / name) for name in ("one.png", "two.png")]
    assert predict(side, *images, "--weights", mini) == 0
    printed = capsys.readouterr().out
    assert printed.count("probability") == 2
    assert printed.index("one.png") < printed.index("two.png")


@pytest.mark.parametrize("side", SIDES)
def test_files_that_are_no_images_are_reported_and_the_others_predicted(side, mini, tmp_path, capsys):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("<html>404</html>")
    (tmp_path / "empty.png").touch()
    wrong = [tmp_path / name for name in ("folder.png", "text.png", "empty.png", "absent.png")]
    assert predict(side, *wrong, paint(tmp_path / "whole.png"), "--weights", mini) == 1
    printed = capsys.readouterr()
    assert printed.out.count("probability") == 1
    assert "whole.png" in printed.out
    lines = printed.err.splitlines()
    assert [line.startswith(f"error: {file}") for line, file in zip(lines, wrong, strict=True)] == [True] * 4
    assert lines[0].endswith("Is a directory")
    assert lines[3].endswith("No such file or directory")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_images_of_every_mode_fit_every_network(mode, mini, tmp_path):
    path = paint(tmp_path / "image.png", "L" if mode == "I;16" else mode)
    if mode == "I;16":
        Image.fromarray(np.full((4, 5), 2**15, np.uint16)).save(path)
    for side in SIDES:
        probabilities, _ = side.predict(path, mini)
        assert probabilities.sum() == pytest.approx(1)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ["absent", "folder", "text"])
def test_weights_that_are_none_are_one_line(side, name, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("Repository not found")
    assert predict(side, paint(tmp_path / "image.png"), "--weights", tmp_path / name) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"error: {tmp_path / name}")
    assert printed.err.count("\n") == 1


NAMES = [
    "[red]",
    "[/]",
    "$5_$",
    "%s %d",
    "{0}",
    "two\nlines",
    "\x1b[31m",
    "gpj\u202e.exe",
    "caf\udce9",
    "می\u200cخواهم",
    "n" * 250,
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_of_images_are_text(name, mini, tmp_path, capsys, monkeypatch):
    """Names of good and bad images, and of unknown flags: escaped if need be, and never taken for markup."""
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    paint(Path(name))
    assert predict(scratch.predict, name, f"absent/{name}", "--weights", mini) == 1
    assert predict(scratch.predict, name, "--weights", mini, f"--{name}") == 2
    out, err = capsys.readouterr()
    expected = name if name.isprintable() or "\u200c" in name else ascii(name)[1:-1]
    assert out.splitlines()[0] == expected
    assert out.count("probability") == 1
    assert [expected in line for line in err.splitlines()] == [True, False, True]  # the second is argparse's usage
    assert not set(out + err) & set("\x1b\u202e\udce9")


def test_names_of_classes_are_text(mini, tmp_path, capsys):
    predict(scratch.predict, paint(tmp_path / "noise.png"), "--weights", mini)
    printed = capsys.readouterr().out
    assert all(shown(name) in printed for name in CLASSES[:-1])
    assert not set(printed) & set("\x1b\u202e")
    assert printed.count("ö") == 300


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape", "latin-1", "cp1252"])
@pytest.mark.parametrize("side", ["scratch", "torch_impl"])
def test_a_terminal_that_knows_few_letters_gets_the_others_escaped(encoding, side, mini, tmp_path):
    image = paint(tmp_path / "größer 画像.png")
    done = in_a_process(image, "--weights", mini, side=side, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u753b\u50cf.png" in done.stdout  # the file's name
    assert r"\u5199\u771f" in done.stdout  # the class's
    assert "[red]caf" in done.stdout


@pytest.mark.parametrize("package", ["rich", "PIL"])
@pytest.mark.parametrize("side", ["scratch", "torch_impl"])
def test_a_package_that_is_absent_is_named_with_what_to_install(package, side, mini, tmp_path):
    image = paint(tmp_path / "image.png")
    done = in_a_process(image, "--weights", mini, side=side, code=f"import sys; sys.modules[{package!r}] = None")
    assert done.returncode == 1
    assert done.stdout == ""
    extra = "data" if package == "PIL" else "train"
    name = "Pillow" if package == "PIL" else package
    assert done.stderr.startswith(f"error: {name}")
    assert done.stderr.endswith(f"not installed: pip install 'alexnet-from-scratch[{extra}]'\n")
    assert done.stderr.count("\n") == 1


class SeenError(Exception):
    pass


READERS: list[Any] = [scratch.predict, torch_impl.predict, scratch.pictures, torch_impl.pictures]


@pytest.mark.parametrize("module", READERS, ids=lambda module: module.__name__)
@pytest.mark.parametrize(("size", "scaled"), [(224, 256), (28, 28)])
def test_images_are_read_for_the_size_that_they_are_scaled_to(module, size, scaled, monkeypatch):
    def seen(*arguments: object) -> None:
        raise SeenError(*arguments)

    monkeypatch.setattr(module, "load", lambda path: (None, SimpleNamespace(size=size, evaluation=None), CLASSES))
    monkeypatch.setattr(module, "read_image", seen)
    with pytest.raises(SeenError) as caught:
        module.stages("image", "weights") if hasattr(module, "stages") else module.predict("image", "weights")
    assert caught.value.args == ("image", scaled)


@pytest.mark.parametrize("side", ["scratch", "torch_impl"])
def test_help_needs_no_package_and_says_what_to_give(side):
    code = "import sys; sys.modules['rich'] = sys.modules['PIL'] = None"
    done = in_a_process("--help", side=side, code=code, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "IMAGE" in done.stdout
    assert "--weights FILE" in done.stdout


@pytest.mark.parametrize("module", ["scratch.train", "torch_impl.train", "scratch.walkthrough", "torch_impl.walkthrough"])
def test_the_other_commands_print_in_ascii_too(module):
    """``--help`` says 28×28, the walkthrough's stages 3→8."""
    command = [sys.executable, "-m", module, *(["--help"] if module.endswith("train") else [])]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, encoding="ascii", cwd=ROOT, env=environment, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\xd7" in done.stdout
