"""Accuracy next to speed: how far each rung, and torch, is from float64 at AlexNet's own layers.

Fast algorithms are less exact. Winograd's sums hold numbers that cancel later, and a long sum in float32 rounds at each step. A
reader who compares times should see what they cost.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.reports.results import Report, Row
from benchmarks.reports.tables import Table, milliseconds
from benchmarks.subjects.cases import LAYERS, Case

OPERATIONS = ("conv2d", "linear")  # they have long sums; in the other operations, all rungs round the same few times


def cases() -> list[Case]:
    """AlexNet's convolutions and linears, to be run on every rung but the naive one."""
    return [replace(layer, group="accuracy") for layer in LAYERS if layer.operation in OPERATIONS]


def table(report: Report) -> Table:
    """Time, RMS error and largest error of each pass, rung by rung and in torch."""
    rows = [row for row in report.rows if row.group == "accuracy" and row.rounds]
    sides = list(dict.fromkeys(side for row in rows for side in row.sides if _taken(row, side)))
    return Table(
        "Accuracy next to speed: milliseconds, root mean square error and largest error",
        ["layer", "pass", *(side.removeprefix("scratch ") for side in sides)],
        [[row.case, phase, *(_cell(row, phase, side) for side in sides)] for row in rows for phase in row.phases],
        "Each cell holds milliseconds, root mean square error and largest error. Errors are in ten-millionths (1e-7) of the root "
        "mean square of the right values, which float64 computes from the same inputs. A backward pass shows the gradient with "
        "the largest root mean square error. Times in this table are rough; the table of layers has the exact ones. –: the rung "
        "does not take that layer, or was not measured.",
    )


def _taken(row: Row, side: str) -> bool:
    return side.startswith("torch") or row.ran.get(side) == side.removeprefix("scratch ")


def _cell(row: Row, phase: str, side: str) -> str:
    if side not in row.sides or not _taken(row, side):
        return "–"
    found = [errors for name, errors in row.errors[side].items() if name.startswith("grad_") == (phase == "backward")]
    errors = (f"{error * 1e7:.{1 if error < 1e-6 else 0}f}" for error in max(found))  # root mean square and largest
    return ", ".join([milliseconds(row.seconds(phase, side)), *errors])
