"""Does the benchmark measure correctly? In these runs the truth is known: equals are equal, and a slowdown is planted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from typing import Any

from benchmarks.measure.run import Settings, named, run
from benchmarks.measure.stats import Ratio
from benchmarks.reports.results import Report
from benchmarks.reports.tables import Table, ratio_text
from benchmarks.subjects.cases import Case


def check(settings: Settings, runs: int, say: Callable[[str], None], done: Callable[[Case], None]) -> Iterator[dict[str, Any]]:
    """One finding per run: why not to trust it ("" if there is no reason), and the ratios that were found."""
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
    """Every run: the equal sides, and the slowed ones."""
    rows = []
    for number, found in enumerate(report.selfchecks, start=1):
        for kind in ("same", "slowed"):
            for name, bounds in found[kind].items():
                ratio = Ratio(*bounds)
                rows.append([str(number), "A/A" if kind == "same" else f"×{found['factor']:.2f}", name, ratio_text(ratio)])
    wrong = [number for number, found in enumerate(report.selfchecks, start=1) if not passed(found)]
    verdict = "Every run was trustworthy and found every planted slowdown."
    if wrong:
        verdict = f"**Failed in run {', '.join(map(str, wrong))}.**"
    return Table("", ["run", "truth", "row", "measured ratio"], rows, verdict)
