"""Goals are judged by passes that belong together, and by the worst layer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.commands import growth
from benchmarks.reports import goals
from benchmarks.reports.goals import Goal
from benchmarks.reports.results import Report, Row
from benchmarks.subjects.cases import CASES


def row(case: str, **seconds: tuple[float, float]) -> Row:
    """Forward and backward of each side, the same in every round."""
    sides = {"scratch": "scratch", "eager": "torch eager", "channels_last": "torch channels_last"}
    one = {sides[side]: [[list(times)], [list(times)]] for side, times in seconds.items()}
    return Row(case, "layer", "relu", 32, ["forward", "backward"], rounds=[one] * 5)


REPORT = Report(
    settings={"threads": 1, "batch": 32},
    rows=[
        row("first", scratch=(1, 1), eager=(4, 1), channels_last=(2, 4)),
        row("second", scratch=(1, 1), eager=(2, 2), channels_last=(9, 9)),
    ],
)


def reached(of: str, *cases: str) -> tuple[float, str] | None:
    found = Goal("it", of, 0.5, 0.7, cases, goals.BOTH).reached(REPORT)
    return found and (round(found[0], 9), found[1])


def test_the_best_configuration_is_the_best_of_both_passes_together() -> None:
    assert reached("best", "first") == (2 / 5, "")  # not 2 / (2 + 1): torch's layout of images does not change between passes


def test_the_worst_layer_counts() -> None:
    assert reached("eager", "first", "second") == (0.5, "second")
    assert reached("eager", "third") is None


def test_the_more_of_the_roof_the_better(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    bound = row("bound", scratch=(2, 1), eager=(1, 1))
    bound.flops, bound.traffic = dict.fromkeys(goals.BOTH, 10.0), dict.fromkeys(goals.BOTH, 3.0)
    bound.made = {"scratch": bound.flops}
    report = Report(settings={"threads": 1, "batch": 32}, rows=[bound], roof={"flops": 20.0, "bytes": 2.0})
    monkeypatch.setattr(goals, "RESULTS", tmp_path)
    for least, mark in ((0.75, "✓"), (0.8, "✗")):  # memory asks for 1.5 seconds, arithmetic for half a second
        monkeypatch.setattr(goals, "GOALS", (Goal("it", "roof", least, None, ("bound", "none"), measure=goals._of_roof),))
        (line,) = goals.table(report).rows
        assert line == ["it", "roof", f"≥ {least:g}", "–", f"0.750 {mark} bound forward"]


def test_the_speed_up_is_that_of_the_sweep() -> None:
    cases = ("threads 1", "threads 2")
    one, two = (
        Row(case, "growth", "alexnet", 16, ["step"], rounds=[{"scratch": [[[seconds]], [[seconds]]]}])
        for case, seconds in zip(cases, (9, 6), strict=True)
    )
    assert goals._speed_up(Report(rows=[one, two]), cases) == (1.5, "")
    two.rounds = []  # it was interrupted
    assert goals._speed_up(Report(rows=[one, two]), cases) is None


@pytest.mark.parametrize(("goal", "limit", "mark"), [(0.5, 0.7, "0.500 ✓"), (0.3, 0.5, "0.500 ○"), (0.3, 0.4, "0.500 ✗")])
def test_marks(goal: float, limit: float, mark: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(goals, "RESULTS", tmp_path)
    monkeypatch.setattr(goals, "GOALS", (Goal("it", "best", goal, limit, ("second",), goals.BOTH),))
    (line,) = goals.table(REPORT).rows
    assert line == ["it", "best", f"{goal:g}", f"{limit:g}", mark]


def test_every_run_has_a_column(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(goals, "RESULTS", tmp_path)
    kept = tmp_path / "machine" / "goals"
    kept.mkdir(parents=True)
    REPORT.save(kept / "one.json")
    replace(REPORT, machine={"cpu": "another"}).save(kept / "two.json")
    _, _, _, _, *header = goals.table(REPORT).header
    assert header == ["batch 32, 1 thread (noisy: it failed its own check)"] * 2


def test_columns_of_one_machine_have_one_roof(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(goals, "RESULTS", tmp_path)
    monkeypatch.setattr(goals, "GOALS", (Goal("it", "roof", 1, None, (), measure=lambda run, _: (run.roof["bytes"], "")),))
    main, low, alone = (Report(settings={"batch": 1, "threads": n}, roof={"bytes": b}) for n, b in ((2, 3.0), (2, 1.0), (1, 2.0)))
    kept = tmp_path / "machine" / "goals"
    kept.mkdir(parents=True)
    low.save(kept / "low.json")
    alone.save(kept / "one-thread.json")
    (line,) = goals.table(main).rows
    assert line[-3:] == ["3.000 ✓", "3.000 ✓", "2.000 ✓"]


def test_goals_name_cases_that_exist() -> None:
    known = {case.name for case in (*CASES, *growth.cases(2))}
    assert {case for goal in goals.GOALS for case in goal.cases} <= known
