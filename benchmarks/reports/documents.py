"""Writes figures into documents: fills the text between markers, in any Markdown file.

``<!-- benchmark:begin ladder -->`` … ``<!-- benchmark:end -->`` holds the named block; a marker without a name holds the summary.
The blocks are those of ``BLOCKS``, ``EVERYWHERE``, ``plots.PLOTS`` and ``traps.TRAPS``, those at the end of ``block``, and
``twin-NAME`` for each file of ``twin_results.RESULTS``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from alexnet_from_scratch.runs import walk
from benchmarks.commands import accuracy, parts, peers, selfcheck, traps
from benchmarks.reports import between, goals, machines, plots, tables, verdict
from benchmarks.reports.results import Report
from parity_tests.twins import tables as twin_tables
from scratch import walkthrough

BLOCKS = {**tables.BLOCKS, "accuracy": accuracy.table, "goals": goals.table, "parts": parts.table, "selfcheck": selfcheck.table}
EVERYWHERE = {"crossing": tables.crossing, "peers": peers.table}  # shown for every machine that has a file of that name
BLOCK = re.compile(r"<!-- benchmark:begin(?: ([\w-]+))? -->\n.*?<!-- benchmark:end -->", re.DOTALL)
TRAINED = Path(__file__).parents[2] / "alexnet_from_scratch" / "networks" / "mini-fashion-mnist"
MARKER = re.compile(r"<!-- benchmark:(begin|end)")


def fill(text: str, reports: Sequence[Report], *, here: Path, pictures: Path) -> str:
    """``text`` with every marked block replaced; ``here`` is its folder, and links to ``pictures`` are relative to it.

    Raises:
        ValueError: a marker has no partner, or a block does not exist.
    """
    if len(MARKER.findall(text)) != 2 * len(BLOCK.findall(text)):
        raise ValueError("every <!-- benchmark:begin --> must have its <!-- benchmark:end -->, each on a line of its own")
    return BLOCK.sub(lambda found: _between(found, block(found[1] or "summary", reports, here, pictures)), text)


def _between(found: re.Match[str], content: str) -> str:
    begin, end = found[0].split("\n", 1)[0], "<!-- benchmark:end -->"
    return f"{begin}\n\n{content}\n\n{end}"


def block(name: str, reports: Sequence[Report], here: Path, pictures: Path) -> str:
    """One block in Markdown, from the first report that has its figures, with that report's machine and commit.

    Raises:
        ValueError: no block has that name.
    """
    main = next((report for report in reports if tables.comparison(report).rows), None)
    if name == "machines":
        return machines.table().markdown()
    if name == "between":
        runs = {folder: run for folder, run in machines.runs(machines.MAIN).items() if not run.distrust()}
        return f"{between.facts(runs).markdown()}\n\n{between.table(runs).markdown()}"
    if name in EVERYWHERE:
        found = machines.runs(f"{name}.json").values()
        return "\n\n".join(_from(_on_its_machine(EVERYWHERE[name](run), run), run) for run in found) or tables.NOTHING
    if name in BLOCKS or name in traps.TRAPS:
        make = BLOCKS.get(name) or partial(traps.table, name)
        # The main run is asked first: A/A rows are in every run, but the goals belong to the main run.
        asked = [report for report in (main, *reports) if report and report.machine]
        made = ((make(report), report) for report in asked if report.rows or name not in ("controls", "goals"))
        return next((_from(table, report) for table, report in made if table.rows), tables.NOTHING)
    if name in plots.PLOTS:
        shown = plots.source(name, reports)
        if shown is None:
            return tables.NOTHING
        path = os.path.relpath(pictures / f"{name}.svg", here)
        return f"![{plots.PLOTS[name].__doc__}]({Path(path).as_posix()})\n\n*{tables.origin(shown)}*"
    if name == "walkthrough":
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            walk.show(walkthrough.walk())
        return f"```\n{printed.getvalue()}```"
    if name == "trained":
        return trained(json.loads((TRAINED / "summary.json").read_text(encoding="utf-8")))
    if name.startswith(twin_tables.PREFIX):
        return twin_tables.block(name, here, pictures)
    of_main: dict[str, Callable[[Report], str]] = {
        "summary": lambda run: "\n\n".join(
            [tables.comparison(run).markdown(), tables.controls(run).caption, f"Made on {tables.machine(run)}."]
        ),
        "machine": lambda run: f"Made on {tables.machine(run)}.",
        "verdict": lambda run: "\n".join(f"- {line.strip()}" for line in verdict.lines(run)),
    }
    if name in of_main:
        return of_main[name](main) if main else tables.NOTHING
    others = ["between", "machines", "walkthrough", "trained"]
    known = sorted([*BLOCKS, *EVERYWHERE, *plots.PLOTS, *traps.TRAPS, *of_main, *others])
    raise ValueError(f"no block is called {name!r}; the blocks are {known}")


def _from(table: tables.Table, report: Report) -> str:
    return f"{table.markdown()}\n\n*{tables.origin(report)}*"


def _on_its_machine(table: tables.Table, report: Report) -> tables.Table:
    """The table with its machine in the title, because another machine's table with the same title follows."""
    return replace(table, title=f"{table.title}, on {tables.processor(report)}")


def trained(summary: dict[str, Any]) -> str:
    """What the shipped network has learned, from its run's summary."""
    return (
        f"{summary['variant']} AlexNet, trained by `{summary['side']}` on {summary['data']} for {summary['epochs']} epochs "
        f"({summary['steps']:,} steps), classifies **{summary['held_out_accuracy']:.2%}** of the 10,000 test images correctly. "
        f"Training took {summary['seconds'] / 60:.0f} minutes on two shared cores."
    )


def write(files: list[Path], reports: Sequence[Report], pictures: Path) -> list[Path]:
    """Draw the pictures and fill the files; return the written files.

    Raises:
        ValueError: see :func:`fill`; nothing is written then.
    """
    texts = {file: fill(file.read_text(encoding="utf-8"), reports, here=file.parent, pictures=pictures) for file in files}
    written = plots.draw(reports, pictures) + twin_tables.draw(pictures)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    return [*written, *files]
