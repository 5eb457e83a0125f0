"""The pictures: SVG by matplotlib, the same bytes for the same report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from benchmarks.measure import stats
from benchmarks.reports import tables
from benchmarks.reports.results import Report

OURS, THEIRS = "#c2410c", "#1d4ed8"
SIDES = (("scratch", OURS, "o"), ("torch", THEIRS, "x"))


def roofline(report: Report) -> Figure:
    """Each layer's rate, under the limits of this machine's arithmetic and memory."""
    figure = Figure(figsize=(13, 6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    flops, moved = report.roof["flops"], report.roof["bytes"]
    rows = [row for row in report.rows if row.group in ("layer", "full") and row.rounds]

    ridge = flops / moved
    left.plot([ridge / 2, ridge, ridge * 400], [flops / 2e9, flops / 1e9, flops / 1e9], color="black", lw=1)
    bars = []
    for row in rows:
        for phase in row.phases:
            best = row.best_torch(phase)
            pair = [side for side in ("scratch", best) if side and side in row.sides]
            if not row.flops[phase]:
                rates = [row.traffic[phase] / row.seconds(phase, side) / 1e9 for side in pair]
                bars.append((f"{row.case} {phase}", rates, report.roof.get(row.stream)))
                continue
            points = [
                (row.made[side][phase] / row.traffic[phase], row.made[side][phase] / row.seconds(phase, side) / 1e9)
                for side in pair
            ]
            for (_, color, marker), point in zip(SIDES, points, strict=False):
                left.plot(*point, marker, color=color, ms=5)
            # Forward's label is on the right, backward's on the left, since both points of a layer are close together.
            away, edge = (5, "left") if phase == "forward" else (-5, "right")
            left.annotate(
                f"{row.case} {phase[0]}", points[0], fontsize=6, xytext=(away, 0),
                textcoords="offset points", ha=edge, va="center",
            )  # fmt: skip
    left.set(xscale="log", yscale="log", xlabel="multiplications and additions for each byte moved", ylabel="GFLOP/s",
             title="convolutions and linears, by what is really multiplied (f forward, b backward)")  # fmt: skip
    for name, color, marker in SIDES:
        left.plot([], [], marker, color=color, label=name if name == "scratch" else "best torch")
    left.legend()

    for position, (_, rates, limit) in enumerate(bars):
        for (_, color, _), rate, shift in zip(SIDES, rates, (0.2, -0.2), strict=False):
            right.barh(-position + shift, rate, height=0.4, color=color)
        if limit:
            right.plot([limit / 1e9] * 2, [-position - 0.45, -position + 0.45], color="black", lw=1)
    right.set_yticks([-position for position in range(len(bars))], [name for name, *_ in bars], fontsize=7)
    right.set(xlabel="GB/s of the bytes that must move; the lines are their limits", title="what memory limits")
    return figure


def growth(report: Report) -> Figure:
    """How the time and the memory of a training step grow with batch, threads and image size."""
    sweeps = list(tables.series(report))
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    axes = figure.subplots(2, max(1, len(sweeps)), squeeze=False)
    for column, (name, unit, points) in enumerate(sweeps):
        sizes = [getattr(row, unit) for row in points]
        for side in points[0].sides:
            color = OURS if side.startswith("scratch") else THEIRS
            times = [row.seconds("step", side) for row in points]
            peaks = [row.peak[side] / 2**30 for row in points]
            for row_, costs, label in ((0, times, "seconds"), (1, peaks, "peak GiB")):
                axis = axes[row_][column]
                axis.plot(sizes, costs, "o-", color=color, ms=4, label=f"{side}, exponent {stats.exponent(sizes, costs):.2f}")
                axis.set(xscale="log", yscale="log", xlabel=name, ylabel=label)
                axis.set_xticks(sizes, [str(size) for size in sizes], minor=False)
                axis.minorticks_off()
                axis.legend(fontsize=7)
    return figure


def rungs(report: Report) -> Figure:
    """conv2d's ladder on conv3, rung by rung, with the machine's limit and torch."""
    row = tables.conv3_rungs(report)
    assert row, "asked for only where possible"
    figure = Figure(figsize=(10.5, 3.8), layout="constrained")
    axis = figure.subplots()
    ours = [side for side in row.sides if side.startswith("scratch")]
    for column, phase in enumerate(row.phases):
        theirs = row.best_torch(phase)
        for i, side in enumerate([*ours, theirs] if theirs else ours):
            rate, made = (count / row.seconds(phase, side) / 1e9 for count in (row.flops[phase], row.made[side][phase]))
            position = i + (len(ours) + 2) * column
            color = OURS if side in ours else THEIRS
            axis.bar(position, rate, color=color, alpha=0.35)
            axis.bar(position, made, color=color)
            axis.annotate(f"{rate:.0f}", (position, rate), ha="center", va="bottom", fontsize=8)
            name = side.replace(" ", "\n", 1)
            axis.annotate(name, (position, 0), xytext=(0, -4), textcoords="offset points", ha="center", va="top", fontsize=7)
        middle = (len(ours) + 2) * column + len(ours) / 2
        axis.annotate(phase, (middle, 0), xytext=(0, -36), textcoords="offset points", ha="center")
    axis.axhline(report.roof["flops"] / 1e9, color="black", lw=1)
    title = f"conv3, batch {row.batch}; solid: what is really multiplied; the line is the machine's peak"
    axis.set(ylabel="GFLOP/s by the definition", title=title)
    axis.set_xticks([])
    axis.margins(y=0.1)
    return figure


PLOTS: dict[str, Callable[[Report], Figure]] = {"roofline": roofline, "growth-plot": growth, "rungs-plot": rungs}


def possible(report: Report) -> list[str]:
    """The pictures that the report has figures for."""
    groups = {row.group for row in report.rows if row.rounds}
    has = {
        "roofline": bool(groups & set(tables.LAYERS)),
        "growth-plot": bool(list(tables.series(report))),
        "rungs-plot": tables.conv3_rungs(report) is not None,
    }
    return [name for name in PLOTS if has[name]]


def draw(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Every possible picture, each from the first report that has its figures."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "benchmark", "svg.fonttype": "none"}):
        for name, plot in PLOTS.items():
            if report := next((report for report in reports if name in possible(report)), None):
                path = folder / f"{name}.svg"
                plot(report).savefig(path, metadata={"Date": None})
                written.append(path)
    return written
