"""What was measured and what was proven, read from the files that the benchmark and the parity suite write; all as Markdown.

Missing results read "not measured yet": the book can be built before anything was measured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.reports import tables
from benchmarks.reports.machines import MAIN
from benchmarks.reports.results import RESULTS as COMMITTED
from benchmarks.reports.results import SHOWN, Report, Row

ROOT = Path(__file__).parents[2]
RESULTS = COMMITTED / SHOWN
PARITY = ROOT / "docs" / "parity.json"
NOTHING = "not measured yet"


def gain(operation: str, rung: str) -> str:
    """The rung's time on the ladder's small image, and how many times as fast it is as the rung before; empty if not timed."""
    return "; ".join(_steps(operation, rung, "ladder"))


def at_alexnets_size(operation: str, rung: str) -> str:
    """The same on one of AlexNet's own layers; empty for rungs that are too slow to be timed there."""
    return "; ".join(_steps(operation, rung, "rungs"))


def _steps(operation: str, rung: str, group: str) -> Iterator[str]:
    for row in _rows(operation):
        if row.group == group and row.rounds and f"scratch {rung}" in row.sides:
            layer = f"{row.case.removesuffix(' rungs')}, {row.batch} images, " if group == "rungs" else ""
            yield from (layer + _step(row, phase, operation, rung) for phase in row.phases)


def _rows(operation: str) -> list[Row]:
    """The committed measurements of one operation."""
    reports = (Report.load(path) for path in sorted(RESULTS.glob("*.json")))
    return [row for report in reports for row in report.rows if row.operation == operation]


def _step(row: Row, phase: str, operation: str, rung: str) -> str:
    names = list(import_module(f"scratch.{operation}").RUNGS)
    ran = [name for name in names if row.ran.get(f"scratch {name}") == name]
    if rung not in ran:
        return f"{phase} left to the rung below"
    side, number = f"scratch {rung}", ran.index(rung)
    text = f"{phase} {tables.milliseconds(row.seconds(phase, side))} ms"
    if number == 0:
        return text
    before = ran[number - 1]
    return f"{text}, {1 / row.ratio(phase, side, f'scratch {before}').median:,.1f}× as fast as {before}"


def sizes(operation: str) -> str:
    """The operation compared with torch at AlexNet's own sizes."""
    report = Report.load(RESULTS / MAIN) if (RESULTS / MAIN).exists() else Report()
    report = replace(report, rows=[row for row in report.rows if row.operation == operation and row.rounds])
    if not report.rows:
        measured = any(RESULTS.glob("*.json"))
        return "The benchmark times this operation only inside a whole network." if measured else f"*{NOTHING.capitalize()}.*"
    return tables.comparison(report).markdown() + f"\n\nMade on {tables.machine(report)}."


def parity(operation: str, rung: str) -> str:
    """The worst errors of the rung and of torch that the parity suite has seen, in units of the bound."""
    rows = [row for row in _parity_rows() if (row["operation"], row["rung"]) == (operation, rung)]
    return "; ".join(_errors(row) for row in rows) or NOTHING


def _parity_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(PARITY.read_text())["rows"] if PARITY.exists() else []
    return rows


def _errors(row: dict[str, Any]) -> str:
    if not row["scratch_case"]:
        return f"{row['dtype']} without any error in {row['cases']:,} cases"
    return f"{row['dtype']} rounding only, {row['scratch']:.3f} of the bound (torch {row['torch']:.3f}) in {row['cases']:,} cases"


def parity_table() -> str:
    """All rows of the parity report."""
    rows = _parity_rows()
    if not rows:
        return f"*{NOTHING.capitalize()}.*"
    lines = ["| operation | rung | dtype | cases | scratch | torch |", "|---|---|---|---:|---:|---:|"]
    for row in rows:
        names = f"{row['operation']} | {row['rung']} | {row['dtype']}"
        lines.append(f"| {names} | {row['cases']:,} | {row['scratch']:.3f} | {row['torch']:.3f} |")
    return "\n".join(lines)


def mutants() -> str:
    """The number of planted mistakes that the suite was tested with."""
    planted = json.loads(PARITY.read_text())["mutants"] if PARITY.exists() else []
    found = sum(bool(mutant["by"]) for mutant in planted)
    return f"{len(planted)} planted mistakes, {'each of them' if found == len(planted) else found} found" if planted else NOTHING
