"""A run's pictures: all are drawn, on both sides from the same numbers, and messages say what cannot be drawn."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

import scratch.pictures
import scratch.train
import torch_impl.pictures
from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.runs import files, pictures
from alexnet_from_scratch.runs.options import Options
from tests.drawn import check_curves
from tests.odd_files import pipe
from tests.runs import contents, data_of, dataset, run

NAMES = ("activations", "confusion", "curves", "filters")
TINY: dict[str, Any] = {"batch": 4, "max_steps": 3, "checkpoint_every": 3, "threads": 1, "workers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    scratch.train.train(Options(out=str(out), **TINY))
    return out


def test_a_run_ends_with_its_pictures(folder):
    drawn = {path.name for path in folder.iterdir() if path.suffix in (".png", ".svg")}
    assert drawn == {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "svg")} | {"example.png"}
    for name in NAMES:
        assert min(read_image(folder / f"{name}.png").shape[:2]) > 200
        assert (folder / f"{name}.svg").read_text().rstrip().endswith("</svg>")


def test_redrawn_they_are_the_same(folder, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(folder, again)
    for path in again.glob("*.svg"):
        path.unlink()
    written, problems = pictures.draw(again, scratch.pictures.stages)
    assert problems == []
    assert len(written) == 2 * len(NAMES)
    for name in NAMES:
        assert (again / f"{name}.svg").read_text() == (folder / f"{name}.svg").read_text()


def test_both_sides_see_the_same_stages(folder):
    ours, theirs = (
        side.pictures.stages(folder / "example.png", folder / "weights.safetensors") for side in (scratch, torch_impl)
    )
    assert ours[1] == theirs[1]
    names = [name for name, _ in ours[0]]
    assert names == [name for name, _ in theirs[0]]
    assert names[:5] == ["image", "conv1", "relu1", "norm1", "pool1"]
    assert names[-5:] == ["fc6", "relu6", "fc7", "relu7", "probabilities"]
    for (name, a), (_, b) in zip(ours[0], theirs[0], strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max() <= 1e-5 * max(1, np.abs(b).max()), name
    assert ours[0][-1][1].sum() == pytest.approx(1)


def test_weights_alone_show_their_filters(folder, tmp_path):
    shutil.copy(folder / "weights.safetensors", tmp_path)
    assert [path.name for path in pictures.draw(tmp_path, scratch.pictures.stages)[0]] == ["filters.png", "filters.svg"]


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        pictures.draw(tmp_path, scratch.pictures.stages)


def test_the_command(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "run")
    before = contents(tmp_path / "run")
    for words in ([], ["--out", str(tmp_path / "elsewhere"), "--image", str(folder / "example.png")]):
        monkeypatch.setattr(sys, "argv", ["pictures", str(tmp_path / "run"), *words])
        pictures.command("scratch", scratch.pictures.stages)
        assert capsys.readouterr().out.count("wrote ") == 2 * len(NAMES)
    # What a run, or its publisher, has put into the folder stays.
    assert contents(tmp_path / "run").items() >= before.items()
    assert len(list((tmp_path / "run" / "pictures").iterdir())) == len(list((tmp_path / "elsewhere").iterdir())) == 2 * len(NAMES)
    monkeypatch.setattr(sys, "argv", ["pictures", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit):
        pictures.command("scratch", scratch.pictures.stages)
    assert "holds no run" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["pictures", str(tmp_path / "run"), "--image", str(tmp_path / "nothing.png")])
    with pytest.raises(SystemExit) as left:
        pictures.command("scratch", scratch.pictures.stages)
    assert left.value.code == 1
    assert "error: activations: " in (said := capsys.readouterr()).err
    assert "nothing.png" in said.err
    assert said.out.count("wrote ") == 2 * len(NAMES) - 2


# Names that look like markup (matplotlib's formulas, XML, the terminal, printf), that no font has, long, empty, or duplicates.
HOSTILE = ("$5_$", "$\\frac{", "<b>&amp;", "\x1b[2J", "a\nb", "%s{0}", "[bold]", "\U0001f468\u200d\U0001f469", "\udce9", "", "$$")
LONG = "n" * 300


@pytest.mark.parametrize("count", [2, len(HOSTILE) + 1, 500])
def test_a_class_may_be_called_anything(tmp_path, count):
    classes = (*HOSTILE, LONG, *map(str, range(count)))[:count]
    with dataset(data_of(classes)):
        run("scratch", tmp_path, max_steps=1, no_pictures=False)
    assert len(list(tmp_path.glob("*.svg"))) == len(NAMES)
    for path in tmp_path.glob("*.svg"):
        ElementTree.parse(path)
    if count == 500:  # no room for names and numbers
        assert max(read_image(tmp_path / "confusion.png").shape) < 2000
        assert f">{classes[-1]}<" not in (tmp_path / "confusion.svg").read_text()
    if count == len(HOSTILE) + 1:
        text = (tmp_path / "confusion.svg").read_text()
        assert all(name in text for name in ("$5_$", "&lt;b&gt;", r"\x1b[2J", r"a\nb", r"\udce9", "n" * 23 + "…"))


@pytest.mark.parametrize("side", ["scratch", "torch_impl"])
def test_a_picture_that_fails_costs_that_picture(tmp_path, monkeypatch, capsys, side):
    def fail(*_: object) -> None:
        raise RuntimeError("no [ink] \x1b left")

    monkeypatch.setattr(pictures, "confusion", fail)
    with dataset(data_of()):
        summary = run(side, tmp_path, no_pictures=False)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert r"no picture: confusion: no [ink] \x1b left" in capsys.readouterr().out
    assert sorted(path.stem for path in tmp_path.glob("*.svg")) == sorted({*NAMES} - {"confusion"})


def full_at(name: str) -> Callable[[Path, bytes], None]:
    """Write files, as long as they have another name."""
    written = files.write_bytes

    def write(path: Path, content: bytes) -> None:
        if path.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written(path, content)

    return write


@pytest.mark.parametrize("name", ["example.png", "curves.png", "curves.svg"])
def test_a_disk_that_is_full_at_the_end_costs_pictures(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(files, "write_bytes", full_at(name))
    with dataset(data_of()):
        assert run("scratch", tmp_path, no_pictures=False)["steps"] == 3
    assert "no picture" in (said := capsys.readouterr().out)
    assert "No space left on device" in said
    assert name in said


@pytest.mark.parametrize("name", ["filters.png", "curves.svg"])
def test_all_pictures_are_written_or_none(folder, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["pictures", str(folder), "--out", str(tmp_path)])
    pictures.command("scratch", scratch.pictures.stages)
    before = contents(tmp_path)
    monkeypatch.setattr(files, "write_bytes", full_at(name))
    with pytest.raises(SystemExit):
        pictures.command("scratch", scratch.pictures.stages)
    assert capsys.readouterr().err == f"error: {tmp_path / name}: No space left on device\n"
    assert contents(tmp_path) == before
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(SystemExit):
        pictures.command("scratch", scratch.pictures.stages)
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_matplotlib_says_nothing(folder, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-m", "scratch.pictures", str(folder), "--out", str(tmp_path)],
        env=environment | {"HOME": "/proc/home"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["PIL.Image", "matplotlib"])
def test_a_run_needs_no_package_for_pictures(tmp_path, monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    with dataset(data_of()):
        assert run("scratch", tmp_path, no_pictures=False)["steps"] == 3
    assert "no pictures: " in (said := capsys.readouterr().out)
    assert "is not installed: pip install 'alexnet-from-scratch[" in said


def test_other_peoples_settings_change_no_picture(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.prop_cycle": "cycler('color', ['r'])"}):
        assert pictures.draw(tmp_path / "run", scratch.pictures.stages)[1] == []
    for name in NAMES:
        assert (tmp_path / "run" / f"{name}.svg").read_text() == (folder / f"{name}.svg").read_text()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", b'{"step": 1, "loss"', "curves: .*metrics.jsonl: line 1 is damaged"),
        ("metrics.jsonl", b"\xff\xfe", "curves: .*metrics.jsonl: line 1 is damaged"),
        ("metrics.jsonl", b'{"step": 1}', "curves: .*metrics.jsonl: "),
        ("confusion.json", b"[]", "confusion: .*confusion.json: must hold"),
        ("confusion.json", b'{"classes": ["a"], "confusion": [[1, 2]]}', r"confusion: .*confusion.json: .* got int64 \(1, 2\)"),
        ("confusion.json", b'{"classes": ["a"], "confusion": [["x"]]}', "confusion: .*confusion.json: confusion must be counts"),
        ("weights.safetensors", b"<html>", "filters: .*weights.safetensors: must be a safetensors file, got a web page"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    written, problems = pictures.draw(tmp_path, scratch.pictures.stages)
    assert written == []
    assert re.search(message, problems[0])


def test_a_pipe_in_a_files_place_is_named(folder, tmp_path):
    for name in ("weights.safetensors", "metrics.jsonl"):
        shutil.copy(folder / name, tmp_path)
    pipe(tmp_path / "confusion.json")
    code = "import sys, pathlib, scratch.pictures as s; from alexnet_from_scratch.runs import pictures as p; "
    code += "print(p.draw(pathlib.Path(sys.argv[1]), s.stages)[1])"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "confusion.json: must be a file, got a pipe" in ended.stdout


def test_filters_keep_zero_in_the_middle():
    weight = np.zeros((2, 3, 2, 2), np.float32)
    weight[0, 0, 0, 0], weight[0, 1, 1, 1] = 2, -2
    (axis,) = pictures.filters(weight).axes
    sheet = np.asarray(axis.images[0].get_array())
    assert sheet[0, 0].tolist() == [1, 0.5, 0.5]
    assert sheet[1, 1].tolist() == [0.5, 0, 0.5]
    assert (sheet[:2, 3:5] == 0.5).all()  # a filter of zeros


def test_the_band_holds_the_middle_of_each_stretch():
    check_curves()


def test_the_confusion_matrix_has_its_counts(tmp_path):
    (tmp_path / "confusion.json").write_text(json.dumps({"classes": ["cat", "dog"], "confusion": [[3, 1], [0, 4]]}))
    assert len(pictures.draw(tmp_path, scratch.pictures.stages)[0]) == 2
    (axis,) = pictures.confusion(np.array([[3, 1], [0, 4]]), ["cat", "dog"]).axes
    assert [text.get_text() for text in axis.texts] == ["3", "1", "4"]
    assert axis.get_title() == "87.50% of 8 held-out images right"


@pytest.mark.parametrize("side", [scratch, torch_impl])
def test_the_network_that_ships_knows_its_example(side):
    folder = Path(__file__).parents[1] / "alexnet_from_scratch" / "networks" / "mini-fashion-mnist"
    stages, classes = side.pictures.stages(folder / "example.png", folder / "weights.safetensors")
    assert classes[stages[-1][1].argmax()] == "Ankle boot"
    counts = json.loads((folder / "confusion.json").read_text())["confusion"]
    summary = json.loads((folder / "summary.json").read_text())
    assert np.trace(counts) / np.sum(counts) == summary["held_out_accuracy"] >= 0.925
