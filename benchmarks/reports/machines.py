"""Results by kind of machine: one folder each under ``results``, and the README's table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.reports.goals import GOALS, Goal
from benchmarks.reports.results import RESULTS, Report, of_one_machine
from benchmarks.reports.tables import Table, origin

MAIN = "step.json"  # a machine's run of batch 32, two threads, everything compiled
RATIOS = (
    ("training step", "eager"),
    ("training step", "best"),
    ("inference", "best"),
    ("convolution, forward", "best"),
    ("convolution, backward", "best"),
)


def table() -> Table:
    """Five ratios, a column for each kind of machine whose main run can be trusted."""
    trusted = {name: run for name, run in runs(MAIN).items() if not run.distrust()}
    return Table(
        "",
        ["scratch's time / torch's", *(_heading(run) for run in trusted.values())],
        [[_name(goal), *_cells(goal, trusted.values())] for goal in _chosen()],
        "Below 1, scratch is faster; 0.50 means that it takes half as long as torch. *eager* is torch as people usually write "
        "it; *best* is the fastest of eager, channels_last and torch.compile. The convolution rows show the layer that compares "
        "worst with torch, and name it. All results are float32. Each ratio is a median over paired rounds, and each result was "
        "checked before it was timed.",
    )


def runs(file: str) -> dict[str, Report]:
    """Every machine's run of that file name, by the machine's folder, with the highest limits that any run saw there."""
    folders = sorted(path.parent for path in RESULTS.glob(f"*/{file}"))
    return {folder.name: of_one_machine([folder / file, *folder.glob("*.json")])[0] for folder in folders}


def kind(facts: dict[str, Any]) -> str:
    """The name of a kind of machine's folder: the processor's name, family and model, and what it pretended to be."""
    name = re.sub(r"\((R|TM)\)|\b(CPU|Processor|family|model)\b|@.*Hz", " ", facts["cpu"])
    return "-".join(re.findall(r"[a-z0-9.]+", f"{name} {facts.get('isa') or ''}".lower()))


def folder(facts: dict[str, Any]) -> Path:
    """Where the results of this kind of machine are kept. A machine with other caches or vectors gets another folder."""
    plain = RESULTS / kind(facts)
    kept = (Report.load(path).machine for path in plain.glob("*.json"))
    if all(other.get(fact, facts[fact]) == facts[fact] for other in kept for fact in ("caches", "vector_bits")):
        return plain
    sizes = [f"{level.lower()}-{size >> 10}k" for level, size in facts["caches"].items()]
    return plain.with_name("-".join([plain.name, f"{facts['vector_bits']}bit", *sizes]))


def keep(report: Report, file: str) -> str:
    """Keep the report with the results of its kind of machine, and say where, or why not."""
    path = folder(report.machine) / file
    if path.exists() and report.distrust() and report.same() and not Report.load(path).distrust():
        return f"Not kept: this run is not trusted, and {path} is. Run again with nothing else running."
    report.save(path)
    return f"Kept in {path}. CONTRIBUTING.md says how to send it."


def _chosen() -> list[Goal]:
    return [next(goal for goal in GOALS if (goal.work, goal.of) == ratio) for ratio in RATIOS]


def _name(goal: Goal) -> str:
    return f"{goal.work} / {goal.of}"


def _heading(run: Report) -> str:
    return f"{origin(run)}, batch {run.settings['batch']}"


def _cells(goal: Goal, runs: Iterable[Report]) -> Iterator[str]:
    for run in runs:
        reached = goal.reached(run)
        yield "–" if reached is None else f"{reached[0]:.2f} {reached[1]}".rstrip()
