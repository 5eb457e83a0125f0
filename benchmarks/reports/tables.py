"""Tables, for the terminal and for Markdown alike; every figure is computed from the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.measure import stats
from benchmarks.measure.stats import Ratio
from benchmarks.reports.limits import beyond, label, scratchs, share_text
from benchmarks.reports.results import Report, Row

TORCH = ("eager", "channels_last", "compile")
NOTHING = "*Not measured yet.*"
LAYERS = ("layer", "full")  # the groups of the layers


@dataclass(frozen=True)
class Table:
    """Cells are Markdown: ``**bold**`` and nothing else."""

    title: str
    header: list[str]
    rows: list[list[str]]
    caption: str

    def markdown(self) -> str:
        """The table as Markdown: title, right-aligned figures, caption."""
        if not self.rows:
            return NOTHING
        lines = ["| " + " | ".join(self.header) + " |", "|---|" + "---:|" * (len(self.header) - 1)]
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        title, caption = (f"{self.title}:" if self.title else ""), self.caption
        return "\n\n".join(part for part in (title, "\n".join(lines), caption) if part)


def comparison(report: Report) -> Table:
    """The main table: scratch against torch, layer by layer, then the whole networks."""
    return _compared(
        report,
        (*LAYERS, "network"),
        "scratch compared with torch",
        "**scratch / best torch**: scratch's time divided by that of torch's fastest configuration (bold). Below 1, scratch is "
        "faster; 0.50 means that it takes half as long. The brackets hold the 95 % interval over paired rounds. **noise**: this "
        f"run cannot tell the two apart, since the interval reaches within {report.noise():.0%} of 1. **spread**: how far a "
        "second process with the same library may be from the first, for scratch and for eager torch, where it was measured "
        "(A/A; `--twins` measures it in every row). **effective rate**: the multiplications and additions of the definition, or "
        "the fewest bytes that must move, divided by the time, whatever the algorithm does. **of its limit**: the least time "
        "that this machine's measured limits allow, divided by the time taken. It counts the multiplications actually performed "
        "and the bytes that must move. The limit that applies is named: the peak of multiply-adds, a copy in memory, an update "
        "in place, or a copy in the last-level cache where the data fits there. Every row was checked against a float64 "
        "reference before it was timed.",
    )


def shapes(report: Report) -> Table:
    """Convolutions that AlexNet does not have, in the columns of the main table."""
    title = "conv2d on shapes that users run, scratch compared with torch"
    return _compared(report, ("shapes",), title, "The columns are those of the table of layers.")


def _compared(report: Report, groups: tuple[str, ...], title: str, caption: str) -> Table:
    chosen = [row for row in report.rows if row.group in groups]
    sides = {side for row in chosen for side in row.sides}
    device = f" {report.settings['device']}" if report.settings.get("device", "cpu") != "cpu" else ""
    modes = [mode for mode in TORCH if f"torch {mode}{device}" in sides]
    rows, noise = [], report.noise()
    for row in chosen:
        if not row.rounds:
            rows.append([row.case, "", row.shape, _missing(row)] + [""] * (len(modes) + 4))
        for phase, ours in scratchs(row):
            best = row.best_torch(phase)
            times = [_time(row, phase, f"torch {mode}{device}", best) for mode in modes]
            compared = ratio_text(row.ratio(phase, ours, best), noise) if best else ""
            facts = [compared, _spread(row, phase, ours), _rate(row, phase, ours), share_text(row, phase, ours, report.roof)]
            rows.append([label(row, ours), phase, row.shape, milliseconds(row.seconds(phase, ours)), *times, *facts])
    unit = f"batch {chosen[0].batch}, float32, {chosen[0].threads} threads" if chosen else ""
    return Table(
        f"{title}, milliseconds ({unit})",
        [
            "layer",
            "pass",
            "input",
            "scratch",
            *modes,
            "scratch / best torch",
            "spread",
            "effective rate",
            "of its limit",
        ],
        rows,
        caption + "".join(f" **Careful: {warning}**" for warning in beyond(chosen, report.roof)),
    )


def _spread(row: Row, phase: str, ours: str) -> str:
    ratios = dict(zip(row.twins, row.same(), strict=True))
    pair = [ratios[twin] for twin in ((phase, ours), (phase, "torch eager")) if twin in ratios]
    return ", ".join(f"{stats.resolution([ratio]):.0%}" for ratio in pair) or "–"


def ladder(report: Report) -> Table:
    """Each rung on a size small enough for the naive loops."""
    rows = []
    for row in report.rows:
        if row.group != "ladder" or not row.rounds:
            continue
        ours = [side for side in row.sides if side.startswith("scratch") and row.ran.get(side) == side.split()[-1]]
        theirs = row.best_torch(row.phases[0]) or ""
        for phase in row.phases:
            before = ""
            for side in [*ours, theirs]:
                step = "" if not before or side == theirs else f"{1 / row.ratio(phase, side, before).median:,.1f}×"
                name = f"{row.operation} {row.shape}" if side == ours[0] else ""
                rows.append([name, phase, side, milliseconds(row.seconds(phase, side)), step])
                before = side
    return Table(
        "The ladder: every rung, on one image small enough for the naive loops, milliseconds",
        ["operation", "pass", "rung", "time", "times as fast as the rung before"],
        rows,
        "This input is too small to show what the last rungs are for; the picture of conv3's ladder shows it at conv3's size.",
    )


def conv3_rungs(report: Report) -> Row | None:
    """The measurement of conv2d's rungs on conv3."""
    return next((row for row in report.rows if (row.group, row.operation) == ("rungs", "conv2d") and row.rounds), None)


def conv3(report: Report) -> Table:
    """conv3's ladder, rung by rung, and torch. The speed of the naive loops is that on a small convolution."""
    row = conv3_rungs(report)
    small = next((row for row in report.rows if row.group == "ladder" and row.operation == "conv2d" and row.rounds), None)
    if row is None or small is None:
        return Table("", [], [], "")
    naive = small.flops["forward"] / small.seconds("forward", "scratch naive")
    theirs = row.best_torch("forward")
    sides = [side for side in row.sides if side.startswith("scratch")] + ([theirs] if theirs else [])
    rates = {"scratch naive": naive, **{side: row.flops["forward"] / row.seconds("forward", side) for side in sides}}
    shares = {"scratch naive": naive / report.roof["flops"]}
    for side in sides:
        shares[side] = row.made[side]["forward"] / row.seconds("forward", side) / report.roof["flops"]
    return Table(
        "",
        ["rung", "effective GFLOP/s", "share of peak", "times as fast as naive"],
        [
            [side.removeprefix("scratch "), f"{rate / 1e9:.3g}", f"{shares[side]:.2g}", f"{rate / naive:,.0f}×"]
            for side, rate in rates.items()
        ],
        f"conv3 of AlexNet, {row.batch} images, forward, on {report.machine['cpu']}. The effective rate counts the "
        "definition's multiplications and additions. The share of peak counts only the operations actually performed; Winograd "
        "needs fewer multiplications."
        + (" A share above 1 means that the peak was measured too low." if round(max(shares.values()), 2) > 1 else "")
        + " The naive loops are timed on a small convolution.",
    )


def crossing(report: Report) -> Table:
    """Each rung of conv2d on convolutions of growing size, and the rung that the default takes."""
    rows_of = [row for row in report.rows if row.group == "crossing" and row.rounds]
    sides = list(dict.fromkeys(side for row in rows_of for side in row.sides if side != "scratch"))
    rows = []
    for row in rows_of:
        times = {side: milliseconds(sum(row.seconds(phase, side) for phase in row.phases)) for side in row.sides}
        default = f"scratch {row.ran['scratch']}"
        cells = [f"**{times[side]}**" if side == default else times.get(side, "–") for side in sides]
        rows.append([row.shape, str(row.batch), f"{row.flops['forward'] / 2:,.0f}", *cells])
    return Table(
        "conv2d by every rung, 3×3 windows, as many channels out as in, forward and backward, milliseconds",
        ["input", "images", "multiplications", *(side.removeprefix("scratch ") for side in sides)],
        rows,
        "The default takes the rung in bold. It decides by the number of multiplications and of channels "
        "(see the end of `scratch/conv2d.py`).",
    )


def controls(report: Report) -> Table:
    """A/A: the same library in two processes."""
    same = report.same()
    sides = list(dict.fromkeys(side for _, _, side, _ in same))
    ratios = {(case, phase, side): ratio_text(ratio) for case, phase, side, ratio in same}
    pairs = dict.fromkeys((case, phase) for case, phase, *_ in same)
    confidence = stats.same_confidence(len(same))
    reason = report.distrust()
    verdict = f"**This run is not trusted**: {reason}."
    if not reason:
        verdict = (
            f"Compared with itself in a second process, no library differs by more than {stats.EQUAL:.0%} beyond chance, so "
            f"this run can be trusted. These A/A rows have many rounds and resolve differences of {report.resolution():.1%}; "
            "for any other row, see its own interval."
        )
    return Table(
        f"A/A, the same library in two processes: one's time divided by the other's [{confidence:.2%} interval]",
        ["layer", "pass", *sides],
        [[case, phase, *(ratios.get((case, phase, side), "–") for side in sides)] for case, phase in pairs],
        verdict,
    )


def memory(report: Report) -> Table:
    """The memory peaks of whole networks."""
    rows = [
        [row.case, side, f"{peak / 2**20:,.0f}"]
        for row in report.rows
        for side, peak in row.peak.items()
        if row.group == "network"
    ]
    return Table(
        f"Peak memory of a process, MiB (batch {report.settings['batch']})",
        ["network", "library", "MiB"],
        rows,
        "The most memory that the process held during a pass, including its libraries.",
    )


def starts(report: Report) -> Table:
    """What comes before the steady state."""
    rows = [[start["library"], *(f"{start[moment]:.2f}" for moment in ("import", "first", "second"))] for start in report.starts]
    return Table(
        "Start, seconds, each in a fresh process",
        ["library", "import", "first step", "second step"],
        rows,
        "Each step is a training step of the mini network on 8 images. Cold: nothing is compiled yet, as after the installation. "
        "Warm: the compiled code is read from disk.",
    )


def growth(report: Report) -> Table:
    """How cost grows, with the fitted exponents."""
    rows = []
    for name, unit, points in series(report):
        for side in points[0].sides:
            sizes = [getattr(row, unit) for row in points]
            times = [row.seconds("step", side) for row in points]
            peaks = [float(row.peak[side]) for row in points]
            rows.append(
                [name, side, f"{sizes[0]} … {sizes[-1]}", f"{milliseconds(times[0])} … {milliseconds(times[-1])}"]
                + [f"{stats.exponent(sizes, cost):.2f}" for cost in (times, peaks)]
            )
    return Table(
        "How the cost of a training step grows",
        ["with", "library", "from … to", "milliseconds", "time's exponent", "memory's exponent"],
        rows,
        "The exponent is b in cost = a·size^b, fitted over all points: 1 means proportional to the size, 0 constant. For "
        "threads, -1 would be perfect scaling. The image size is its height and width, so 2 means proportional to its area.",
    )


def series(report: Report) -> Iterator[tuple[str, str, list[Row]]]:
    """Each sweep's name, the attribute that varies, and its points."""
    for unit, name in (("batch", "batch"), ("threads", "threads"), ("size", "image size")):
        points = [row for row in report.rows if row.group == "growth" and row.case.startswith(f"{unit} ") and row.rounds]
        if len(points) > 1:
            yield name, unit, points


BLOCKS: dict[str, Callable[[Report], Table]] = {
    "comparison": comparison,
    "shapes": shapes,
    "ladder": ladder,
    "conv3": conv3,
    "controls": controls,
    "memory": memory,
    "starts": starts,
    "growth": growth,
}


def origin(report: Report) -> str:
    """Where a table's figures are from, for the line under it."""
    settings = report.settings
    threads = f"{settings['threads']} thread{'s' * (settings['threads'] > 1)}"
    return f"{processor(report)}, {threads}, commit {report.machine['commit']}, {settings['date']}"


def processor(report: Report) -> str:
    """The machine's processor, and what it pretended to be."""
    isa = f", as an {report.machine['isa'].upper()} machine" if report.machine.get("isa") else ""
    return f"{report.machine['cpu'].replace('(R)', '')}{isa}"


def machine(report: Report) -> str:
    """One line on where and with what a run was made."""
    facts = report.machine
    versions = {name: version for side in report.libraries.values() for name, version in side["versions"].items()}
    gpus = {f", {side['gpu']}, TF32 {'on' if side['tf32'] else 'off'}" for side in report.libraries.values() if "gpu" in side}
    return (
        f"{facts['cpu']}{''.join(gpus)}, {facts['cores']} cores, {facts['system']}, Python {facts['python']}, "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + f"; {report.roof['flops'] / 1e9:.0f} GFLOP/s, {report.roof['bytes'] / 1e9:.0f} GB/s measured; "
        f"{report.settings['threads']} threads in every pool; commit {facts['commit']}, {report.settings['date']}"
    )


def milliseconds(seconds: float) -> str:
    """Three significant digits."""
    value = seconds * 1e3
    digits = max(0, min(3, 2 - math.floor(math.log10(value))))
    return f"{value:,.{digits}f}"


def _missing(row: Row) -> str:
    return "**FAILED**" if row.failed else "not measured"


def _time(row: Row, phase: str, side: str, best: str | None) -> str:
    if side in row.failed:
        return "**FAILED**"
    if side not in row.sides:
        return "left out" if side in row.absent else "–"
    text = milliseconds(row.seconds(phase, side))
    return f"**{text}**" if side == best else text


def fastest(row: Row) -> str:
    """The side of scratch that counts: of several rungs the fastest comes last."""
    return [side for side in row.sides if side.startswith("scratch")][-1]


def ratio_text(ratio: Ratio, noise: float | None = None) -> str:
    """The ratio and its interval; with ``noise``, also whether noise may have made the difference."""
    said = f"{ratio.median:.2f} [{ratio.low:.2f} … {ratio.high:.2f}]"
    return f"{said} noise" if noise is not None and ratio.within(noise) else said


def _rate(row: Row, phase: str, side: str) -> str:
    seconds, flops = row.seconds(phase, side), row.flops[phase]
    return f"{flops / seconds / 1e9:,.0f} GFLOP/s" if flops else f"{row.traffic[phase] / seconds / 1e9:,.1f} GB/s"
