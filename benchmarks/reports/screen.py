"""What the terminal shows."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from benchmarks.reports import tables, verdict
from benchmarks.reports.results import Report
from benchmarks.subjects.cases import Case

console = Console(width=None if sys.stdout.isatty() else 190, highlight=False)  # a pipe has no width, so nothing must be cut off


@contextmanager
def progress(cases: list[Case]) -> Iterator[tuple[Callable[[str], None], Callable[[Case], None]]]:
    """On a terminal, a bar with the time left; elsewhere, a line for each case."""
    weights = {"network": 4, "growth": 4, "ladder": 0.5, "crossing": 0.5}  # how long cases take, relative to each other, roughly
    columns = [TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=sum(weights.get(case.group, 1) for case in cases))

        def done(case: Case) -> None:
            bar.advance(task, weights.get(case.group, 1))
            if not console.is_terminal:
                console.print(f"{case.name} done")

        yield lambda what: bar.update(task, description=what), done


@contextmanager
def steps() -> Iterator[Callable[[int, int], None]]:
    """On a terminal, a bar for training steps: call it with the step and the number of steps."""
    columns = [TextColumn("step {task.completed}/{task.total}"), BarColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("")
        yield lambda step, steps: bar.update(task, completed=step, total=steps)


def render(table: tables.Table) -> None:
    """A table on the terminal."""
    grid = RichTable(
        title=table.title or None, title_justify="left", caption=styled(table.caption) or None, caption_justify="left"
    )
    for number, name in enumerate(table.header):
        grid.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in table.rows:
        grid.add_row(*map(styled, row))
    if table.rows:
        console.print(grid)


def styled(markdown: str) -> str:
    """Rich's markup for the only Markdown that cells use."""
    return re.sub(r"\*\*(.+?)\*\*", r"[bold]\1[/]", markdown.replace("[", r"\["))


def show(report: Report) -> None:
    """Everything that a run found."""
    for block in (tables.comparison, tables.ladder, tables.memory, tables.starts, tables.controls):
        render(block(report))
    console.print(tables.machine(report))


def conclude(report: Report) -> None:
    """Print the verdict. It comes last, because it is what a reader should remember."""
    console.print()
    for line in verdict.lines(report):
        console.print(line, markup=False, soft_wrap=True, style="red" if line.startswith("Verified: NO") else "bold")
