"""Where scratch spends the time of a pass: kernel by kernel, and what is left between them.

Every kernel runs through ``for_each``, so a clock there sees all of them. The table also gives the least possible time at the
machine's limits: that of the pass's multiplications, or of its memory traffic if that is longer. Only multiplications that are
really made count: Winograd's algorithm makes fewer than the definition.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

from benchmarks.measure import machine
from benchmarks.measure.processes import Process
from benchmarks.measure.run import Settings, limits
from benchmarks.reports.results import Report
from benchmarks.reports.tables import Table, milliseconds
from benchmarks.subjects import scratch_side, work
from benchmarks.subjects.cases import Case, Layer
from benchmarks.subjects.sides import Arrays, Side, copies, rotating
from benchmarks.subjects.verify import Judge
from scratch.compiled.threads import for_each

# The cases that miss their goals, and the whole network.
CASES = "conv1,conv2/2,conv5/2,norm1,pool2,pool5,fc8,loss,one_tower step"
WARM, PASSES, SECONDS = 2, 5, 1.0  # untimed passes; the least number of timed passes, and their least time together
SHOWN = 0.01  # a share of the pass: parts that take less are not in the table
LEAST, BETWEEN = "the least, at the machine's limits", "between kernels"


class Parts:
    """Runs cases in scratch, and times their kernels."""

    def __init__(self) -> None:
        self.phase = ""
        self.spent: dict[tuple[str, str], float] = defaultdict(float)  # seconds, by phase and part
        for name, module in list(sys.modules.items()):
            if name.startswith("scratch.") and name != for_each.__module__ and hasattr(module, "for_each"):
                vars(module)["for_each"] = self.listening

    def listening(self, run: Any, n: int, *arguments: Any, **options: Any) -> None:
        """Replaces for_each. It calls for_each, and adds the seconds to the function that made the kernel, or to the kernel."""
        start = perf_counter()
        for_each(run, n, *arguments, **options)
        name = f"{run.__module__.rpartition('.')[2]}.{run.__qualname__.partition('.<locals>')[0]}"
        self.spent[self.phase, name] += perf_counter() - start

    def measure(self, case: Case, arrays: Arrays, cache_bytes: int) -> list[dict[str, Any]]:
        """For each phase, the seconds of a pass and of its parts, and the rung that ran."""
        subject: Any = scratch_side.prepare(Side("scratch"), case, arrays, copies(rotating(arrays), cache_bytes))
        subject.results()
        for phase in case.phases:
            if isinstance(case, Layer):
                setattr(subject, phase, self._within(phase, getattr(subject, phase)))
            else:
                self.phase = phase
        for _ in range(WARM):
            subject.run()
        self.spent.clear()
        laps: list[list[float]] = []
        start = perf_counter()
        while len(laps) < PASSES or perf_counter() - start < SECONDS:
            laps.append(subject.run())
        return [
            {
                "case": case.name,
                "phase": phase,
                "rung": subject.note,
                "seconds": sum(seconds) / len(laps),
                "parts": {name: spent / len(laps) for (of, name), spent in self.spent.items() if of == phase},
            }
            for phase, seconds in zip(case.phases, zip(*laps, strict=True), strict=True)
        ]

    def _within(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **params: Any) -> Any:
            self.phase = phase
            return function(*arguments, **params)

        return call


def run(settings: Settings, report: Report, say: Callable[[str], None], done: Callable[[Case], None]) -> None:
    """Add every case's parts to the report."""
    report.machine = machine.describe()
    report.roof = limits(settings.threads)
    with Process(settings.threads, Judge, settings.batch, settings.seed) as judge, Process(settings.threads, Parts) as process:
        for case in settings.cases:
            say(case.name)
            for found in process.ask("measure", case, judge.ask("arrays", case), machine.cache_bytes()):
                flops = work.made(case, found["phase"], found["rung"], settings.batch) or 0.0
                traffic = case.traffic(found["phase"], settings.batch)
                stream = work.stream(case, settings.batch, machine.cache_bytes())
                size = {"batch": settings.batch, "threads": settings.threads}
                report.parts.append({**found, **size, "flops": flops, "traffic": traffic, "stream": stream})
            done(case)


def table(report: Report) -> Table:
    """Each pass, its kernels, the time between them, and the time at the machine's limits."""
    rows = []
    settings = {f"batch {found['batch']}, {found['threads']} threads" for found in report.parts}
    for found in report.parts:
        name, phase = found["case"], found["phase"]
        for part, seconds in _lines(found, report.roof):
            rows.append([name, phase, part, milliseconds(seconds), f"{seconds / found['seconds']:.0%}"])
            name = phase = ""
    return Table(
        f"Where the time goes in scratch, milliseconds ({'; '.join(sorted(settings))})",
        ["layer", "pass", "part", "time", "of the pass"],
        rows,
        "A part is a kernel, or the function that runs one. The least is the time that the pass's multiplications take at the "
        "machine's measured limits, or its memory traffic if that takes longer. For Winograd, it counts the multiplications that "
        "Winograd makes. A pass that finds its numbers in the cache may take less.",
    )


def _lines(found: dict[str, Any], roof: dict[str, float]) -> Iterator[tuple[str, float]]:
    whole = found["seconds"]
    yield "**all**", whole
    for part, seconds in sorted(found["parts"].items(), key=lambda part: -part[1]):
        if seconds >= SHOWN * whole:
            yield f"`{part}`", seconds
    yield BETWEEN, max(0.0, whole - sum(found["parts"].values()))
    least = max(found["flops"] / roof["flops"], found["traffic"] / roof[found["stream"]])
    if least:
        yield LEAST, least
