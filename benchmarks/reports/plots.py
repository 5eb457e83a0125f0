"""The pictures: SVG by matplotlib, the same bytes for the same report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, NullLocator
from matplotlib.transforms import Bbox

from benchmarks.reports import tables
from benchmarks.reports.results import Report

OURS, THEIRS = "#c2410c", "#1d4ed8"
SIDES = (("scratch", OURS, "o"), ("torch", THEIRS, "x"))


def roofline(report: Report) -> Figure:
    """Each layer's rate, under the limits of this machine's arithmetic and memory."""
    figure = Figure(figsize=(9, 10.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(4, 3))
    flops, moved = report.roof["flops"], report.roof["bytes"]
    rows = [row for row in report.rows if row.group in ("layer", "full") and row.rounds]

    ridge = flops / moved
    limits = [ridge / 2, ridge, ridge * 400], [flops / 2e9, flops / 1e9, flops / 1e9]
    upper.plot(*limits, color="black", lw=1, label="the most that memory, then arithmetic allow")
    bars = []
    labels = []
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
            upper.plot(*zip(*points, strict=True), color="0.6", lw=0.7, zorder=0)
            for (_, color, marker), point in zip(SIDES, points, strict=False):
                upper.plot(*point, marker, color=color, ms=5)
            labels.append((f"{row.case} {phase[0]}", points))
    upper.set(xscale="log", yscale="log", xlabel="multiplications and additions for each byte moved", ylabel="GFLOP/s",
              title="convolutions and linears, by what is really multiplied (f forward, b backward)")  # fmt: skip
    _number_logarithms(upper.yaxis)
    for name, color, marker in SIDES:
        upper.plot([], [], marker, color=color, label=name if name == "scratch" else "best torch, the same layer")
    upper.legend(loc="lower right")

    for position, (_, rates, limit) in enumerate(bars):
        for (_, color, _), rate, shift in zip(SIDES, rates, (0.2, -0.2), strict=False):
            lower.barh(-position + shift, rate, height=0.4, color=color)
        if limit:
            lower.plot([limit / 1e9] * 2, [-position - 0.45, -position + 0.45], color="black", lw=1)
    lower.set_yticks([-position for position in range(len(bars))], [name for name, *_ in bars], fontsize=9)
    lower.set(xlabel="GB/s of the bytes that must move; the lines are their limits", title="what memory limits")
    _label_points(figure, upper, labels)
    return figure


def _number_logarithms(axis: Axis) -> None:
    """Numbers as people write them, also where the axis spans less than a power of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _label_points(figure: Figure, axes: Axes, labels: list[tuple[str, list[tuple[float, float]]]]) -> None:
    """Write each label near the first of its points, where it covers neither a point nor another label."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # places the axes
    taken = [Bbox.from_extents(*(spot - 4), *(spot + 4)) for _, points in labels for spot in axes.transData.transform(points)]
    for text, points in labels:
        for reach, turn in itertools.product((7, 12, 18, 26, 36, 48, 62), range(0, 360, 15)):
            right, up = math.cos(math.radians(turn)), math.sin(math.radians(turn))
            label = axes.annotate(
                text, points[0], fontsize=8, xytext=(reach * right, reach * up), textcoords="offset points",
                ha="left" if right > 0.3 else "right" if right < -0.3 else "center",
                va="bottom" if up > 0.3 else "top" if up < -0.3 else "center",
                arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "0.5", "shrinkA": 0, "shrinkB": 2},
            )  # fmt: skip
            label.update_positions(renderer)
            box = Text.get_window_extent(label)  # an annotation's own extent would include the line to its point
            if not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            label.remove()


def growth(report: Report) -> Figure:
    """How the time and the memory of a training step grow with batch, threads and image size."""
    sweeps = list(tables.series(report))
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, max(1, len(sweeps)), squeeze=False)
    for column, (name, unit, points) in enumerate(sweeps):
        sizes = [getattr(row, unit) for row in points]
        for side in points[0].sides:
            color, line = (OURS, "-") if side.startswith("scratch") else (THEIRS, ":" if side.endswith("eager") else "-")
            times = [row.seconds("step", side) for row in points]
            peaks = [row.peak[side] / 2**30 for row in points]
            for row_, costs, label in ((0, times, "seconds a step"), (1, peaks, "peak GiB")):
                axis = axes[row_][column]
                axis.plot(sizes, costs, f"o{line}", color=color, ms=4, label=side)
                axis.set(xscale="log", yscale="log", xlabel=name, ylabel=label if column == 0 else "")
                axis.set_xticks(sizes, [str(size) for size in sizes], minor=False)
                axis.minorticks_off()
                _number_logarithms(axis.yaxis)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def rungs(report: Report) -> Figure:
    """conv2d's ladder on conv3, rung by rung, with the machine's limit and torch."""
    row = tables.conv3_rungs(report)
    assert row, "asked for only where possible"
    figure = Figure(figsize=(9, 4), layout="constrained")
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
            clear = {"color": "white", "pad": 0.5}  # the line may pass through the number
            axis.annotate(f"{rate:.0f}", (position, rate), xytext=(0, 2), textcoords="offset points", ha="center", va="bottom",
                          fontsize=9, bbox=clear)  # fmt: skip
            name = side.replace(" ", "\n", 1)
            axis.annotate(name, (position, 0), xytext=(0, -4), textcoords="offset points", ha="center", va="top", fontsize=7)
        middle = (len(ours) + 2) * column + len(ours) / 2
        axis.annotate(phase, (middle, 0), xytext=(0, -40), textcoords="offset points", ha="center")
    axis.axhline(report.roof["flops"] / 1e9, color="black", lw=1, zorder=0)
    title = f"conv3, batch {row.batch}; solid: what is really multiplied; the line: the peak that was measured"
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


def source(name: str, reports: Sequence[Report]) -> Report | None:
    """The first report that has the picture's figures."""
    return next((report for report in reports if name in possible(report)), None)


def draw(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Every possible picture, each from the first report that has its figures."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "benchmark", "svg.fonttype": "none"}):
        for name, plot in PLOTS.items():
            if report := source(name, reports):
                path = folder / f"{name}.svg"
                plot(report).savefig(path, metadata={"Date": None})
                written.append(path)
    return written
