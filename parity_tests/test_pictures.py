"""A run's pictures: all are drawn, on both sides from the same numbers, and what cannot be drawn is said."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratch.pictures
import scratch.train
import torch_impl.pictures
from training import pictures
from training.images import read_image
from training.options import Options

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


def test_without_matplotlib_a_run_ends_as_well(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    summary = scratch.train.train(Options(out=str(tmp_path), **TINY))
    assert summary["steps"] == 3
    assert "no pictures: matplotlib" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.svg"))


def test_the_command(folder, tmp_path, monkeypatch, capsys):
    shutil.copytree(folder, tmp_path / "run")
    monkeypatch.setattr(sys, "argv", ["pictures", str(tmp_path / "run"), "--image", str(folder / "example.png")])
    pictures.command("scratch", scratch.pictures.stages)
    assert capsys.readouterr().out.count("wrote ") == 2 * len(NAMES)
    monkeypatch.setattr(sys, "argv", ["pictures", str(tmp_path / "nothing")])
    with pytest.raises(SystemExit):
        pictures.command("scratch", scratch.pictures.stages)
    assert "holds no run" in capsys.readouterr().err


def test_filters_keep_zero_in_the_middle():
    weight = np.zeros((2, 3, 2, 2), np.float32)
    weight[0, 0, 0, 0], weight[0, 1, 1, 1] = 2, -2
    (axis,) = pictures.filters(weight).axes
    sheet = np.asarray(axis.images[0].get_array())
    assert sheet[0, 0].tolist() == [1, 0.5, 0.5]
    assert sheet[1, 1].tolist() == [0.5, 0, 0.5]
    assert (sheet[:2, 3:5] == 0.5).all()  # a filter of zeros


def test_the_confusion_matrix_has_its_counts(tmp_path):
    (tmp_path / "confusion.json").write_text(json.dumps({"classes": ["cat", "dog"], "confusion": [[3, 1], [0, 4]]}))
    assert len(pictures.draw(tmp_path, scratch.pictures.stages)[0]) == 2
    (axis,) = pictures.confusion(np.array([[3, 1], [0, 4]]), ["cat", "dog"]).axes
    assert [text.get_text() for text in axis.texts] == ["3", "1", "4"]
    assert axis.get_title() == "87.50% of 8 held-out images right"


@pytest.mark.parametrize("side", [scratch, torch_impl])
def test_the_network_that_ships_knows_its_example(side):
    folder = Path(__file__).parents[1] / "weights" / "mini-fashion-mnist"
    stages, classes = side.pictures.stages(folder / "example.png", folder / "weights.safetensors")
    assert classes[stages[-1][1].argmax()] == "Ankle boot"
    counts = json.loads((folder / "confusion.json").read_text())["confusion"]
    summary = json.loads((folder / "summary.json").read_text())
    assert np.trace(counts) / np.sum(counts) == summary["held_out_accuracy"] >= 0.925
