"""What was measured and what was proven, read from the files that the benchmark and the parity suite write; all as Markdown.

Missing results read "not measured yet": the book can be built before anything was measured.
"""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.reports import tables
from benchmarks.reports.results import RESULTS, Report, Row, committed, together

ROOT = Path(__file__).parents[2]
PARITY = ROOT / "docs" / "parity.json"
NOTHING = "not measured yet"


def at_alexnets_size(operation: str, rung: str) -> str:
    """The rung's time on one of AlexNet's own layers, and how many times as fast it is as the rung before; empty if not timed."""
    row = _row(operation, rung, "rungs")
    return f"{row.case.removesuffix(' rungs')}, {row.batch} images: {_times(row, rung)}" if row else ""


def at_a_small_size(operation: str, rung: str) -> str:
    """The same on the ladder's small size, if it was timed there and teaches something.

    It does so where the naive loops are compared, which are too slow for AlexNet's sizes, and where the rung does not pay.
    """
    row, large = _row(operation, rung, "ladder"), _row(operation, rung, "rungs")
    if row is None:
        return ""
    gains = [_gain(row, phase, rung) for phase in row.phases]
    if any(gain is not None and gain < 1 for gain in gains):
        return f"{_times(row, rung)}. Work this small does not repay the rung."
    compared_at_size = large and all(_gain(large, phase, rung) is not None for phase in large.phases)
    return "" if compared_at_size else _times(row, rung)


@functools.cache  # a page asks for several figures of the same files
def _reports(results: Path) -> list[Report]:
    return together(committed(results))


def _row(operation: str, rung: str, group: str) -> Row | None:
    """The committed measurement of that group in which the rung was timed."""
    rows = (row for report in _reports(RESULTS) for row in report.rows)
    asked = (row for row in rows if (row.operation, row.group) == (operation, group))
    return next((row for row in asked if f"scratch {rung}" in row.sides), None)


def _ran(row: Row) -> list[str]:
    """The rungs that were timed and did the work themselves, slowest first."""
    return [rung for rung in import_module(f"scratch.{row.operation}").RUNGS if row.ran.get(f"scratch {rung}") == rung]


def _gain(row: Row, phase: str, rung: str) -> float | None:
    """How many times as fast the rung is as the one before; None for the first, and for one that left the work to another."""
    ran = _ran(row)
    if rung not in ran[1:]:
        return None
    return 1 / row.ratio(phase, f"scratch {rung}", f"scratch {ran[ran.index(rung) - 1]}").median


def _times(row: Row, rung: str) -> str:
    return "; ".join(_time(row, phase, rung) for phase in row.phases)


def _time(row: Row, phase: str, rung: str) -> str:
    ran = _ran(row)
    if rung not in ran:
        return f"{phase} left to the rung below"
    text = f"{phase} {tables.milliseconds(row.seconds(phase, f'scratch {rung}'))} ms"
    gain = _gain(row, phase, rung)
    return text if gain is None else f"{text}, {gain:,.1f}× as fast as {ran[ran.index(rung) - 1]}"


def sizes(operation: str) -> str:
    """The operation compared with torch at AlexNet's own sizes."""
    report = next((report for report in _reports(RESULTS) if tables.comparison(report).rows), None)
    if report is None:
        return f"*{NOTHING.capitalize()}.*"
    report = replace(report, rows=[row for row in report.rows if row.operation == operation and row.rounds])
    if not report.rows:
        return "The benchmark times this operation only inside a whole network."
    return tables.comparison(report).markdown() + f"\n\nMade on {tables.machine(report)}."


def parity(operation: str, rung: str) -> str:
    """The worst errors of the rung and of torch that the parity suite has seen, in units of the bound."""
    rows = [row for row in _parity_rows() if (row["operation"], row["rung"]) == (operation, rung)]
    return "; ".join(_errors(row) for row in rows) or NOTHING


def _parity_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(PARITY.read_text(encoding="utf-8"))["rows"] if PARITY.exists() else []
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
    planted = json.loads(PARITY.read_text(encoding="utf-8"))["mutants"] if PARITY.exists() else []
    found = sum(bool(mutant["by"]) for mutant in planted)
    return f"{len(planted)} planted mistakes, {'each of them' if found == len(planted) else found} found." if planted else NOTHING
