"""What scratch was meant to reach and what it reached: the goals of the project, checked against committed runs.

A goal covers one pass of a layer, or consecutive passes whose times are added before they are compared.
"Best torch" is then the configuration that is fastest over all of them, as the layout of images does not change between passes.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.measure import stats
from benchmarks.reports.limits import limit_of
from benchmarks.reports.results import RESULTS, Report, Row
from benchmarks.reports.tables import Table, fastest

CONVOLUTIONS = tuple(f"conv{name}" for name in ("1", "2", "2/2", "3", "4", "4/2", "5", "5/2"))
BOTH = ("forward", "backward")
Reached = tuple[float, str]  # a figure, and its layer if there are several


@dataclass(frozen=True)
class Goal:
    """``goal`` should be reached and ``limit`` kept: upper bounds on the share of torch's time, or on what ``measure`` returns.

    Without a limit, ``goal`` is a lower bound.
    """

    work: str
    of: str  # "eager" or "best": which torch; otherwise the unit, in words
    goal: float
    limit: float | None
    cases: tuple[str, ...] = ()
    phases: tuple[str, ...] = ()
    measure: Callable[[Report, tuple[str, ...]], Reached | None] | None = None  # computes the figure; None: ratio to torch

    def reached(self, report: Report) -> Reached | None:
        """The worst of the cases and its name; None if the run has none of them."""
        if self.measure:
            return self.measure(report, self.cases)
        rows = [row for row in report.rows if row.case in self.cases and row.rounds]
        ratios = [(ratio, row.case if len(self.cases) > 1 else "") for row in rows if (ratio := self._ratio(row)) is not None]
        return max(ratios, default=None)

    def mark(self, figure: float) -> str:
        """Whether the figure reaches the goal, keeps the limit, or neither."""
        if self.limit is None:
            return "✓" if figure >= self.goal else "✗"
        return "✓" if figure <= self.goal else "○" if figure <= self.limit else "✗"

    def _ratio(self, row: Row) -> float | None:
        torch = [side for side in row.sides if side.startswith("torch" if self.of == "best" else "torch eager")]
        totals = {side: _added(row, side, self.phases) for side in torch}
        if not totals:
            return None
        best = min(totals, key=lambda side: statistics.median(totals[side]))
        return stats.ratio(_added(row, fastest(row), self.phases), totals[best]).median


def _added(row: Row, side: str, phases: Sequence[str]) -> list[float]:
    """The seconds of those passes together, for each round."""
    return [sum(times) for times in zip(*(row.times(phase, side) for phase in phases), strict=True)]


def _memory(report: Report, cases: tuple[str, ...]) -> Reached | None:
    peaks = (row.peak for row in report.rows if row.case in cases)
    return next(((peak["scratch"] / peak["torch eager"], "") for peak in peaks if "torch eager" in peak), None)


def _start(library: str, *moments: str) -> Callable[[Report, tuple[str, ...]], Reached | None]:
    def seconds(report: Report, cases: tuple[str, ...]) -> Reached | None:
        return next(((sum(one[moment] for moment in moments), "") for one in report.starts if one["library"] == library), None)

    return seconds


def _of_roof(report: Report, cases: tuple[str, ...]) -> Reached | None:
    rows = [row for row in report.rows if row.case in cases and row.rounds]
    limits = ((limit_of(row, phase, fastest(row), report.roof), f"{row.case} {phase}") for row in rows for phase in row.phases)
    return min(((limit[1], name) for limit, name in limits if limit), default=None)


def _speed_up(report: Report, cases: tuple[str, ...]) -> Reached | None:
    """How many times as fast the second case is as the first. As cases of a sweep, they are not paired and have few rounds."""
    found = {row.case: row.seconds("step", "scratch") for row in report.rows if row.case in cases and row.rounds}
    first, second = cases
    return (found[first] / found[second], "") if len(found) == len(cases) else None


GOALS = (
    Goal("training step", "eager", 0.50, 0.70, ("one_tower step",), ("step",)),
    Goal("training step", "best", 0.40, 0.50, ("one_tower step",), ("step",)),
    Goal("inference", "best", 0.80, 1.00, ("one_tower inference",), ("inference",)),
    Goal("convolution, forward", "best", 0.70, 0.95, CONVOLUTIONS, ("forward",)),
    Goal("convolution, backward", "best", 0.70, 0.95, CONVOLUTIONS, ("backward",)),
    Goal("local_response_norm, forward and backward", "eager", 0.06, 0.12, ("norm1", "norm2"), BOTH),
    Goal("local_response_norm, forward and backward", "best", 0.40, 0.70, ("norm1", "norm2"), BOTH),
    Goal("max_pool2d, forward and backward", "eager", 0.15, 0.30, ("pool1", "pool2", "pool5"), BOTH),
    Goal("max_pool2d, forward and backward", "best", 0.60, 0.90, ("pool1", "pool2", "pool5"), BOTH),
    Goal("relu, forward and backward", "best", 0.70, 1.00, ("relu1",), BOTH),
    Goal("linear, forward and backward", "best", 0.70, 1.00, ("fc6", "fc7", "fc8"), BOTH),
    Goal("cross_entropy, forward and backward", "best", 0.70, 1.00, ("loss",), BOTH),
    Goal("SGD step", "best", 0.80, 1.05, ("sgd",), ("update",)),
    Goal("peak memory of the training step", "eager", 0.75, 1.00, ("one_tower step",), measure=_memory),
    Goal(
        "import and first step of mini, compiled before", "seconds", 0.5, 1.5, measure=_start("scratch, warm", "import", "first")
    ),
    Goal("first step of mini, nothing compiled yet", "seconds", 10, 60, measure=_start("scratch, cold", "first")),
    Goal("convolution", "roof", 0.85, None, CONVOLUTIONS, measure=_of_roof),
    Goal("linear", "roof", 0.85, None, ("fc6", "fc7", "fc8"), measure=_of_roof),
    Goal("relu, max_pool2d, SGD step", "roof", 0.70, None, ("relu1", "pool1", "pool2", "pool5", "sgd"), measure=_of_roof),
    Goal("local_response_norm", "roof", 0.70, None, ("norm1", "norm2"), measure=_of_roof),
    Goal("training step of 16 images, by a second thread", "speed-up", 1.9, None, ("threads 1", "threads 2"), measure=_speed_up),
)


def table(main: Report) -> Table:
    """All goals, with a column for the main run, and one for each run of that processor with another batch or other threads."""
    kept = [Report.load(path) for path in sorted(RESULTS.glob("*/goals/*.json"))]
    others = [run for run in kept if run.machine.get("cpu") == main.machine.get("cpu")]
    runs = [main, *others]
    for one, other in itertools.product(others, runs):
        one.raise_roof(other)
    rows = [[goal.work, goal.of, *_bounds(goal), *_cells(goal, runs)] for goal in GOALS]
    return Table(
        "",
        ["work", "measured in, or as a share of", "goal", "limit", *(_named(run) for run in runs)],
        rows,
        "scratch's time (or memory) is given as a share of torch's, eager or its best configuration, or in seconds: lower is "
        "better. Ratios are medians over rounds; the table of layers has single passes with their intervals. A row that covers "
        "several layers shows the one that compares worst with torch, or is furthest from the roof, and names it. For shares of "
        "the roof and for the speed-up, higher is better, and there is no limit. ✓: the goal is reached. ○: the limit is kept. "
        "✗: neither.",
    )


def _bounds(goal: Goal) -> tuple[str, str]:
    return (f"≥ {goal.goal:g}", "–") if goal.limit is None else (f"{goal.goal:g}", f"{goal.limit:g}")


def _cells(goal: Goal, runs: Sequence[Report]) -> Iterator[str]:
    for run in runs:
        reached = goal.reached(run)
        if not reached:
            yield "–"
            continue
        figure, case = reached
        yield f"{figure:.3f} {goal.mark(figure)} {case}".rstrip()


def _named(run: Report) -> str:
    threads = run.settings["threads"]
    noisy = " (noisy: it failed its own check)" if run.distrust() else ""
    return f"batch {run.settings['batch']}, {threads} thread{'s' * (threads > 1)}{noisy}"
