"""Does the ruler measure? Runs in which the truth is known: equals must come out equal, and a planted slowdown must be found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from typing import Any

from benchmarks.cases import Case
from benchmarks.results import Report
from benchmarks.run import Settings, named, run
from benchmarks.stats import Ratio
from benchmarks.tables import Table, ratio_text


def check(settings: Settings, runs: int, say: Callable[[str], None], done: Callable[[Case], None]) -> Iterator[dict[str, Any]]:
    """One finding a run: why not to trust it ("" if there is no reason), and each slowed row's ratio to the row itself."""
    for number in range(runs):
        report = Report(settings={"threads": settings.threads})
        run(replace(settings, seed=settings.seed + number), report, named(say, f"run {number + 1}"), done)
        slowed = {
            f"{row.case} {phase}": row.ratio(phase, "scratch slowed", "scratch")
            for row in report.rows
            for phase in row.phases
            if "scratch slowed" in row.timed
        }
        same = {f"{case} {phase}, {side}": ratio for case, phase, side, ratio in report.same()}
        yield {
            "distrust": report.distrust(),
            "factor": max(settings.slow.values()),
            "slowed": {name: astuple(ratio) for name, ratio in slowed.items()},
            "same": {name: astuple(ratio) for name, ratio in same.items()},
        }


def passed(found: dict[str, Any]) -> bool:
    """Whether a run was trustworthy and found every slowdown."""
    return not found["distrust"] and bool(found["slowed"]) and all(low > 1 for _, low, *_ in found["slowed"].values())


def table(report: Report) -> Table:
    """Every run: equals, and what was slowed."""
    rows = []
    for number, found in enumerate(report.selfchecks, start=1):
        for kind in ("same", "slowed"):
            for name, bounds in found[kind].items():
                ratio = Ratio(*bounds)
                rows.append([str(number), "A/A" if kind == "same" else f"×{found['factor']:.2f}", name, ratio_text(ratio)])
    wrong = [number for number, found in enumerate(report.selfchecks, start=1) if not passed(found)]
    verdict = "Every run was trustworthy and found what was planted."
    if wrong:
        verdict = f"**Failed in run {', '.join(map(str, wrong))}.**"
    return Table("", ["run", "truth", "row", "measured ratio"], rows, verdict)
