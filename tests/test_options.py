"""The parts of a run: its flags, the schedule of its learning rate, its evaluation, and how its command fails."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from alexnet_from_scratch.runs import session
from alexnet_from_scratch.runs.evaluation import Evaluation
from alexnet_from_scratch.runs.options import Options
from alexnet_from_scratch.runs.schedule import Schedule
from torch_impl.train import TorchOptions


def test_flags_are_both_sides():
    ours, theirs = ({field.name for field in fields(kind)} for kind in (Options, TorchOptions))
    assert theirs - ours == {"amp", "channels_last", "compile"}


def test_flags_are_parsed():
    assert Options.parse("scratch", []) == Options()
    parsed = Options.parse(
        "scratch",
        [
            "--data=imagefolder",
            "--data-dir",
            "d",
            "--max-steps",
            "3",
            "--lr",
            "0.1",
            "--update",
            "paper",
            "--schedule",
            "steps",
            "--ten-crops",
        ],
    )
    assert parsed == Options(
        data="imagefolder", data_dir="d", max_steps=3, lr=0.1, update="paper", schedule="steps", ten_crops=True
    )
    assert TorchOptions.parse("torch_impl", ["--amp"]) == TorchOptions(amp=True)
    assert Options().folder("scratch") == Path("runs/scratch-mini-digits")


@pytest.mark.parametrize(
    "flags", ["--batch 0", "--keep 0", "--lr -1", "--lr nan", "--dropout 2", "--seed -1", "--variant vgg", "--epochs x", "--x"]
)
def test_flags_out_of_range_are_refused(flags, capsys):
    with pytest.raises(SystemExit) as left:
        Options.parse("scratch", flags.split())
    assert left.value.code == 2
    assert flags.split()[0] in capsys.readouterr().err


def test_a_command_fails_plainly(capsys):
    def fail(_: Options) -> None:
        raise ValueError("FILE [red] must be whole")

    with pytest.raises(SystemExit) as left:
        session.command(fail, Options())
    assert left.value.code == 1
    assert capsys.readouterr().err == "error: FILE [red] must be whole\n"


def test_the_plateau_lets_the_rate_fall():
    schedule = Schedule("plateau", 1.0, patience=2, every=1)
    rates = []
    for epoch, error in enumerate([0.5, 0.4, 0.4, 0.4, 0.3, 0.31, 0.3, 0.2]):
        schedule.after_epoch(epoch, error)
        rates.append(schedule.rate)
    np.testing.assert_allclose(rates, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])
    other = Schedule("plateau", 1.0, patience=2, every=1)
    other.restore(json.loads(json.dumps(schedule.state())))
    assert other == schedule


def test_steps_let_the_rate_fall():
    schedule = Schedule("steps", 1.0, patience=1, every=2)
    rates = []
    for epoch in range(5):
        schedule.after_epoch(epoch, 0.5)
        rates.append(schedule.rate)
    np.testing.assert_allclose(rates, [1, 0.1, 0.1, 0.01, 0.01])


def test_evaluation_counts():
    evaluation = Evaluation.of(7)
    probabilities = np.full((3, 7), 0.1, np.float32)
    probabilities[0, 2] = 0.4  # right
    probabilities[1] = [0.3, 0.2, 0.15, 0.12, 0.11, 0.1, 0.02]  # sixth of seven
    probabilities[2] = [0, 0.9, 0.1, 0, 0, 0, 0]  # tied with four others that come before it
    evaluation.add(probabilities, np.array([2, 5, 6]))
    assert evaluation.images == 3
    assert evaluation.accuracy == pytest.approx(1 / 3)
    assert evaluation.top5 == 1
    assert evaluation.confusion[5, 0] == evaluation.confusion[6, 1] == evaluation.confusion[2, 2] == 1
    tiny = float(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(evaluation.loss, -np.log(np.array([0.4, 0.1, tiny])).sum(), rtol=1e-6)


def test_each_checkpoint_that_cannot_be_read_has_its_line(tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        (tmp_path / "checkpoints" / f"step-{step:09}.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit):
        Options.parse("scratch", ["--resume", "--out", str(tmp_path)])
    lines = capsys.readouterr().err.splitlines()
    assert [line.startswith(f"  {tmp_path}") for line in lines[-2:]] == [True, True], lines
