"""How cost grows with batch, threads and image size: time and memory of a training step of one tower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks.measure import machine
from benchmarks.measure.processes import Process
from benchmarks.measure.run import Settings, Team, blank, limits, measure, named
from benchmarks.reports.results import Report
from benchmarks.subjects.cases import NETWORKS, Case, Network
from benchmarks.subjects.verify import Judge

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
SIZES = (96, 128, 160, 224, 320)
BATCH = 16  # when threads or sizes vary


def cases(threads: int) -> list[Case]:
    """The cases to measure."""
    step = next(case for case in NETWORKS if isinstance(case, Network) and case.phase == "step")
    step = replace(step, group="growth", batch=BATCH, compiled=False)
    return [
        *(replace(step, name=f"batch {batch}", batch=batch) for batch in BATCHES),
        *(replace(step, name=f"threads {count}") for count in range(1, threads + 1)),
        *(replace(step, name=f"size {size}", size=size) for size in SIZES),
    ]


def run(settings: Settings, report: Report, say: Callable[[str], None], done: Callable[[Case], None]) -> None:
    """Add a row for every case; each case gets new processes, so that its memory peak is its own."""
    report.machine = machine.describe()
    report.roof = limits(settings.threads)
    for case in settings.cases:
        word, _, number = case.name.partition(" ")
        threads = int(number) if word == "threads" else settings.threads
        row = blank(case, BATCH, threads)
        report.rows.append(row)
        with Team(threads, settings.sides(case)) as team, Process(settings.threads, Judge, BATCH, settings.seed) as judge:
            measure(row, case, settings.sides(case), team, judge, settings.effort, named(say, case.name))
        done(case)
