"""The walkthrough on a photograph of one's own, with pictures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scratch import walkthrough

ROOT = Path(__file__).parents[1]


def test_it_takes_ones_own_photograph_and_draws_each_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "mine.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 3), np.uint8)).save(picture)
    walkthrough.main(picture, tmp_path / "pictures")
    lines = capsys.readouterr().out.splitlines()
    stages = [line for line in lines if re.search(r"\(\d+, ", line)]
    assert len(list((tmp_path / "pictures").glob("*.png"))) == len(stages) > 15
    walkthrough.main()
    assert capsys.readouterr().out.splitlines()[1] != lines[1], "another photograph has other numbers"


@pytest.mark.parametrize(
    ("arguments", "said"), [("--help", "--input IMAGE"), ("--help", "--pictures FOLDER"), ("--input nothing.jpg", "nothing.jpg")]
)
def test_its_command_line_explains_itself(arguments: str, said: str) -> None:
    command = [sys.executable, "-m", "scratch.walkthrough", *arguments.split()]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert said in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
