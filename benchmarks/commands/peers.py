"""scratch compared with what people run: ONNX Runtime, OpenVINO, JAX, and torch in its three ways.

All have the same weights and photographs, and the same number of threads; each library is asked afterwards how many it has. Each
runs in its own process, and is checked against float64 before it is timed in paired rounds.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.reports.results import Report
from benchmarks.reports.tables import Table, milliseconds, ratio_text
from benchmarks.subjects.cases import NETWORKS, Case, Network

BATCHES = (1, 8, 32)  # images per inference; a training step takes the last number


def cases() -> list[Case]:
    """Inference at three sizes, and the training step."""
    inference, step = (
        next(case for case in NETWORKS if isinstance(case, Network) and case.name == f"one_tower {phase}")
        for phase in ("inference", "step")
    )
    sizes = [(inference, "inference", batch) for batch in BATCHES] + [(step, "training step", BATCHES[-1])]
    return [replace(case, name=f"{name}, {batch}", batch=batch, group="peers") for case, name, batch in sizes]


def table(report: Report) -> Table:
    """Each library's time, the fastest first, and scratch's time divided by it."""
    lines, noise = [], report.noise()
    for row in report.rows:
        if row.group != "peers":
            continue
        (phase,) = row.phases
        name = row.case
        for side in sorted(row.sides, key=lambda side: row.seconds(phase, side)):
            compared = "–" if side == "scratch" else ratio_text(row.ratio(phase, "scratch", side), noise)
            lines.append([name, _titled(side, report), milliseconds(row.seconds(phase, side)), compared])
            name = ""
        for side, why in {**row.failed, **row.absent}.items():
            lines.append([name, _titled(side, report), "–", f"not measured: {why}".replace("|", "/")])
            name = ""
    reason = report.distrust()
    margin = f"A row says noise where its interval reaches within {noise:.0%} of 1."
    doubt = f" **This run is not trusted**: {reason}. {margin}" if reason else ""
    return Table(
        "one_tower in other libraries, milliseconds, the fastest first",
        ["work, images", "library", "time", "scratch's time / its time"],
        lines,
        "Below 1, scratch is faster. All libraries compute in float32, with the same weights, photographs and number of "
        f"threads.{doubt}",
    )


def _titled(side: str, report: Report) -> str:
    library = side.split()[0]
    version = report.libraries.get(side, {}).get("versions", {}).get(library)
    return f"**{side}**" if library == "scratch" else f"{side} {version}" if version else side
