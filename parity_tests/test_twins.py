"""Twins stay together apart from rounding, a planted difference is found, and results are kept and shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from alexnet_from_scratch.data.datasets import open_dataset
from alexnet_from_scratch.runs.options import Options
from benchmarks.reports import documents as report
from benchmarks.reports.results import Report
from parity_tests.twins import tables as twin_tables
from parity_tests.twins import training as twin
from parity_tests.twins.__main__ import app
from parity_tests.twins.results import Apart, Twins, load, save
from scratch import linear, local_response_norm

OPTIONS = Options(batch=8, epochs=1, max_steps=3, threads=1, workers=1)


@pytest.fixture(scope="module")
def twins() -> Twins:
    return twin.together(OPTIONS)


def test_twins_differ_by_rounding_alone(twins: Twins) -> None:
    assert twins.layers == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    assert [step["step"] for step in twins.steps] == [1, 2, 3]
    assert len(twins.images) == OPTIONS.batch
    assert not twins.failures()
    assert twins.rounding("twins").max() < 1e-5
    for step in twins.steps:
        assert abs(step["loss"]["scratch"] - step["loss"]["torch"]) < 1e-5
        assert max(step["weights"]["twins"]) < 1e-4
    assert twins.wall.keys() == twins.cpu.keys() == {"scratch", "torch", "float64"}
    assert abs(twins.accuracy["scratch"] - twins.accuracy["torch"]) < 0.02


@pytest.mark.parametrize("operation", [linear, local_response_norm])
def test_a_small_mistake_is_reported(operation, monkeypatch: pytest.MonkeyPatch) -> None:
    right = operation.backward

    def wrong(grad_out: np.ndarray, cache: object, **options: bool) -> tuple[np.ndarray, ...]:
        grad_x, *others = right(grad_out, cache, **options)
        return (grad_x * np.float32(1.0001), *others)

    monkeypatch.setattr(operation, "backward", wrong)
    found = twin.together(OPTIONS).failures()
    assert any(failure.startswith("conv1: in every image scratch's gradients are") for failure in found)
    assert not any(failure.startswith("fc8") for failure in found)


def made_up(distance: float = 1e-7) -> Twins:
    """Two layers; the first layer's distance grows elevenfold at every step."""
    made = Twins({"variant": "mini", "data": "digits", "batch": 8, "lr": 0.1, "threads": 1}, ["conv1", "fc2"], "2020-01-01")
    made.machine = {"cpu": "Abacus", "commit": "0"}
    made.images = [{"twins": [far, 1e-7], "scratch": [far, 1e-7], "torch": [1e-7, 1e-7]} for far in (1.0, distance)]
    for step in range(1, 5):
        grown = [float(f"{distance * 11 ** (step - 1):.3g}"), 1e-7]
        distances = {"twins": grown, "scratch": grown, "torch": [1e-7, 1e-7]}
        losses = {"scratch": 2.0, "torch": 2.0 + 1e-6 * step, "float64": 2.0}
        made.steps.append({"step": step, "loss": losses, "gradients": distances, "weights": distances})
    made.wall = made.cpu = {"scratch": 1.0, "torch": 1.0, "float64": 2.0}
    made.accuracy, made.tested = {"scratch": 0.5, "torch": 0.5}, 1234
    return made


def seeds(ours: list[float], theirs: list[float]) -> Apart:
    made = Apart({"variant": "mini", "data": "digits", "batch": 8, "lr": 0.1, "threads": 1, "epochs": 1}, "2020-01-01")
    made.machine, made.tested = {"cpu": "Abacus", "commit": "0"}, 56
    for side, accuracies in (("scratch", ours), ("torch", theirs)):
        made.runs += [{"side": side, "seed": i, "accuracy": a, "wall": 1.0, "cpu": 2.0} for i, a in enumerate(accuracies)]
    return made


def test_where_rounding_starts_to_grow() -> None:
    assert made_up().grown(10) == {"conv1": 2, "fc2": None}
    assert made_up().grown(2000) == {"conv1": None, "fc2": None}
    assert made_up().decided_otherwise() == 1


def test_more_than_rounding_is_a_failure() -> None:
    assert not made_up(9e-7).failures()
    assert [failure[:5] for failure in made_up(1.1e-6).failures()] == ["conv1"]
    assert made_up(float("nan")).failures()


def test_seeds_that_agree_and_seeds_that_do_not() -> None:
    assert not seeds([0.90, 0.92, 0.91], [0.91, 0.93, 0.92]).failures()
    different = seeds([0.80, 0.82, 0.81], [0.90, 0.92, 0.93])
    assert "-10.67%" in different.failures()[0]
    welch = stats.ttest_ind(different.of("scratch", "accuracy"), different.of("torch", "accuracy"), equal_var=False)
    assert different.difference()[1:] == pytest.approx(tuple(welch.confidence_interval(0.95)))
    assert seeds([0.5, 0.5], [0.6, 0.6]).difference() == pytest.approx((-0.1, -0.1, -0.1))


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    for result in (made_up(), seeds([0.5, 0.6], [0.5, 0.7])):
        save(result, tmp_path / "result.json")
        assert load(tmp_path / "result.json") == result


def test_documents_show_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twin_tables, "RESULTS", tmp_path)
    save(made_up(), tmp_path / "mini.json")
    save(seeds([0.90, 0.92, 0.91], [0.91, 0.93, 0.92]), tmp_path / "seeds.json")
    page = tmp_path / "page.md"
    page.write_text("".join(f"<!-- benchmark:begin twin-{name} -->\n<!-- benchmark:end -->\n" for name in ("mini", "seeds")))
    written = report.write([page], [Report()], tmp_path / "pictures")
    assert written == [tmp_path / "pictures" / "twin-mini.svg", page]
    text = page.read_text()
    assert "](pictures/twin-mini.svg)" in text
    assert "| conv1 | 1.0e-07 | 1.0e-07 | 1.0e-07 | 1.0e-07 | 2 | 4 | 1.3e-04 |" in text
    assert "the two agree within their spread" in text
    assert "Rounding sent a gradient another way through ReLU or pooling in one image." in text
    assert "on the 1,234 test images: scratch 50.00%, torch 50.00%" in text
    assert "1 epochs, 6 seeds, 56 held-out images" in text
    page.write_text("<!-- benchmark:begin twin-other -->\n<!-- benchmark:end -->\n")
    report.write([page], [Report()], tmp_path / "pictures")
    assert "Not measured yet" in page.read_text()


def test_on_the_command_line(tmp_path: Path) -> None:
    flags = ["--batch", "8", "--max-steps", "1", "--threads", "1", "--workers", "1"]
    outcome = CliRunner().invoke(app, ["twin", *flags, "--json", str(tmp_path / "twin.json")])
    assert outcome.exit_code == 0, outcome.output
    assert "times as far off as torch, in every layer" in " ".join(outcome.output.split())
    twins = load(tmp_path / "twin.json")
    assert isinstance(twins, Twins)
    outcome = CliRunner().invoke(app, ["seeds", "--count", "2", *flags, "--json", str(tmp_path / "seeds.json")])
    assert "percentage points" in outcome.output, outcome.output
    result = load(tmp_path / "seeds.json")
    assert isinstance(result, Apart)
    assert len({run["seed"] for run in result.runs}) == 4
    assert result.tested == twins.tested == len(open_dataset("digits").test)
    assert outcome.exit_code == bool(result.failures())
