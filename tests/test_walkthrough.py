"""Both walkthroughs on a photograph of one's own, with pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import scratch.walkthrough
import torch_impl.walkthrough
from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.runs.walk import show
from tests.runs import SIDES

ROOT = Path(__file__).parents[1]
WALKS: list[Any] = [scratch.walkthrough.walk, torch_impl.walkthrough.walk]


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)).save(path)
    return path


def test_both_walk_through_ones_own_photograph(mine: Path) -> None:
    ours, theirs = (list(walk(mine)) for walk in WALKS)
    assert [stage for stage, _ in ours] == [stage for stage, _ in theirs]
    for (stage, array), (_, tensor) in zip(ours, theirs, strict=True):
        assert np.linalg.norm(array - tensor.numpy()) <= 1e-5 * np.linalg.norm(tensor.numpy()), stage
    cat = next(WALKS[0]())[1]
    assert np.abs(ours[0][1] - cat).max() > 0.1, "another photograph has other numbers"


def test_a_grey_photograph_has_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400), np.uint8)).save(tmp_path / "grey.png")
    for walk in WALKS:
        (_, x), *_ = walk(tmp_path / "grey.png")
        assert tuple(x.shape) == (1, 3, 32, 32)
        assert (x[0, 0] == x[0, 1]).all()


@pytest.mark.parametrize("walk", WALKS)
def test_each_stage_is_drawn(walk: Any, mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stages = list(walk(mine))
    show(stages, tmp_path / "pictures")
    _, *lines, last = capsys.readouterr().out.splitlines()
    assert [line[:32].rstrip() for line in lines] == [stage for stage, _ in stages]
    assert last == f"The stages' pictures are in {tmp_path / 'pictures'}"
    for number in range(len(stages)):
        colours = read_image(tmp_path / "pictures" / f"{number:02}.png")
        assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    ("arguments", "said"), [("--help", "--input IMAGE"), ("--help", "--pictures FOLDER"), ("--input nothing.jpg", "nothing.jpg")]
)
def test_its_command_line_explains_itself(side: str, arguments: str, said: str) -> None:
    command = [sys.executable, "-m", f"{side}.walkthrough", *arguments.split()]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert said in ended.stdout + ended.stderr
    assert ended.returncode == (0 if arguments == "--help" else 1)
    assert "Traceback" not in ended.stderr
