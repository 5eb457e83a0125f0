"""Results by kind of machine: one folder each under ``results``, and the README's table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.reports.goals import GOALS, Goal
from benchmarks.reports.results import RESULTS, Report
from benchmarks.reports.tables import Table

MAIN = "step.json"  # a machine's run of batch 32, two threads, everything compiled
RATIOS = (
    ("training step", "eager"),
    ("training step", "best"),
    ("inference", "best"),
    ("convolution, forward", "best"),
    ("convolution, backward", "best"),
)


def table(_: Report | None = None) -> Table:
    """Five ratios, a column for each kind of machine whose main run can be trusted."""
    trusted = {name: run for name, run in runs(MAIN).items() if not run.distrust()}
    return Table(
        "",
        ["scratch's time / torch's", *(_heading(run) for run in trusted.values())],
        [[_name(goal), *_cells(goal, trusted.values())] for goal in _chosen()],
        "Below 1 scratch is faster: 0.50 is half the time. *eager* is torch as people write it; *best* is the fastest of eager, "
        "channels_last and torch.compile. The convolution that is slowest compared with torch counts, and is named. Float32, "
        "medians over paired rounds, each result checked before it is timed.",
    )


def runs(file: str) -> dict[str, Report]:
    """Every machine's run of that file name, by the machine's folder."""
    return {path.parent.name: Report.load(path) for path in sorted(RESULTS.glob(f"*/{file}"))}


def _chosen() -> list[Goal]:
    return [next(goal for goal in GOALS if (goal.work, goal.of) == ratio) for ratio in RATIOS]


def _name(goal: Goal) -> str:
    return f"{goal.work} / {goal.of}"


def _heading(run: Report) -> str:
    cpu, settings = run.machine["cpu"].replace("(R)", ""), run.settings
    return f"{cpu}, batch {settings['batch']}, {settings['threads']} threads, commit {run.machine['commit']}"


def _cells(goal: Goal, runs: Iterable[Report]) -> Iterator[str]:
    for run in runs:
        reached = goal.reached(run)
        yield "" if reached is None else f"{reached[0]:.2f} {reached[1]}".rstrip()
