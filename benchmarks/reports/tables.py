"""Tables, for the terminal and for Markdown alike; every figure is computed from the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.measure import stats
from benchmarks.measure.stats import Ratio
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
    sides = {side for row in report.rows for side in row.sides}
    device = f" {report.settings['device']}" if report.settings["device"] != "cpu" else ""
    modes = [mode for mode in TORCH if f"torch {mode}{device}" in sides]
    rows, noise = [], report.noise()
    for row in report.rows:
        if row.group in ("ladder", "rungs", "growth", "crossing"):
            continue
        if not row.rounds:
            rows.append([row.case, "", row.shape, _missing(row)] + [""] * (len(modes) + 3))
        for phase, ours in _timed(row):
            best = row.best_torch(phase)
            times = [_time(row, phase, f"torch {mode}{device}", best) for mode in modes]
            compared = ratio_text(row.ratio(phase, ours, best), noise) if best else ""
            rate, share = _rate(row, phase, ours), _share_text(row, phase, ours, report.roof)
            ms = milliseconds(row.seconds(phase, ours))
            rows.append([_label(row, ours), phase, row.shape, ms, *times, compared, rate, share])
    unit = f"batch {report.settings['batch']}, float32, {report.settings['threads']} threads"
    return Table(
        f"scratch beside torch, milliseconds ({unit})",
        ["layer", "pass", "input", "scratch", *modes, "scratch / best torch", "effective rate", "of its limit"],
        rows,
        "**scratch / best torch**: how many times as long scratch takes as torch's fastest configuration (bold); below 1 scratch "
        "is faster, 0.50 is half the time. In brackets the 95 % interval over paired rounds. **noise**: this run cannot tell the "
        f"two apart, its interval reaches within {noise:.0%} of 1. **effective rate**: the multiplications and additions of "
        "the definition, or the fewest bytes, by the time; an algorithm that multiplies less has a higher one. **of its limit**: "
        "the least time that this machine's measured limits allow for the multiplications really made and the bytes that must "
        "move, by the time taken. The limit that counts is named: the peak of multiply-adds, a copy in memory, an update in "
        "place, or a copy in the last-level cache where the data fits there. Every row was checked against a float64 reference "
        "before it was timed." + "".join(f" **Careful: {warning}**" for warning in beyond(report)),
    )


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
        "The ladder: every rung, on a size that naive loops can bear (one image), milliseconds",
        ["operation", "pass", "rung", "time", "times as fast as the rung before"],
        rows,
        "So small an input does not show what the last rungs are for; the picture of conv3's ladder, at its own size, does.",
    )


def conv3(report: Report) -> Table:
    """conv3's ladder, rung by rung, and torch; the naive loops' speed is from a small convolution."""
    row = next((row for row in report.rows if row.group == "rungs" and row.rounds), None)
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
        "multiplications and additions of the definition, the share of the peak those that were made: Winograd makes fewer. The "
        "naive loops are timed on a small convolution.",
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
    threads = ", ".join(sorted({f"{row.threads} threads" for row in rows_of}))
    return Table(
        f"conv2d by every rung, 3×3 windows, as many channels out as in, forward and backward, milliseconds "
        f"({report.machine['cpu']}, {threads})",
        ["input", "images", "multiplications", *(side.removeprefix("scratch ") for side in sides)],
        rows,
        "Bold is the rung that the default takes: it goes by the number of multiplications, and by the channels "
        "(the end of `scratch/conv2d.py`).",
    )


def controls(report: Report) -> Table:
    """A/A: the same library in two processes."""
    rows = [[case, phase, side, ratio_text(ratio)] for case, phase, side, ratio in report.same()]
    confidence = stats.same_confidence(len(rows))
    reason = report.distrust()
    verdict = f"**This run is not trusted**: {reason}."
    if not reason:
        verdict = (
            f"Beside itself, in a second process, no library is more than {stats.EQUAL:.0%} from 1.00 beyond chance: "
            f"this run can be trusted. With their many rounds these A/A rows resolve {report.resolution():.1%}; "
            "what another row resolves, its own interval says."
        )
    return Table(
        "A/A: the same library in two processes",
        ["layer", "pass", "library", f"one process / the other [{confidence:.2%}]"],
        rows,
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
        "The most that the process held during a pass: libraries, weights, gradients, activations, everything.",
    )


def starts(report: Report) -> Table:
    """What comes before the steady state."""
    rows = [[start["library"], *(f"{start[moment]:.2f}" for moment in ("import", "first", "second"))] for start in report.starts]
    return Table(
        "Start, seconds, each in a fresh process",
        ["library", "import", "first step", "second step"],
        rows,
        "A training step of the mini network, on 8 images. Cold: nothing compiled yet, as after the installation; warm: what was "
        "compiled is read from disk.",
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
        ["with", "library", "from … to", "milliseconds", "time ∝ ^", "memory ∝ ^"],
        rows,
        "Exponent b of cost = a·size^b, fitted over all points: 1 is proportional, 0 constant, -1 for threads would be perfect "
        "scaling, 2 for the image's side is proportional to its area.",
    )


def series(report: Report) -> Iterator[tuple[str, str, list[Row]]]:
    """Each sweep's name, the attribute that varies, and its points."""
    for unit, name in (("batch", "batch"), ("threads", "threads"), ("size", "image side")):
        points = [row for row in report.rows if row.group == "growth" and row.case.startswith(f"{unit} ") and row.rounds]
        if len(points) > 1:
            yield name, unit, points


BLOCKS: dict[str, Callable[[Report], Table]] = {
    "comparison": comparison,
    "ladder": ladder,
    "conv3": conv3,
    "controls": controls,
    "memory": memory,
    "starts": starts,
    "growth": growth,
}


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


def _timed(row: Row) -> Iterator[tuple[str, str]]:
    for phase in row.phases:
        for side in row.sides:
            if side.startswith("scratch"):
                yield phase, side


def _label(row: Row, ours: str) -> str:
    extra = ours.removeprefix("scratch").strip()
    return f"{row.case} ({extra})" if extra else row.case


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


LIMITS = {"flops": "peak", "bytes": "memory", "update": "in place", "cached": "cache"}


def _share_text(row: Row, phase: str, side: str, roof: dict[str, float]) -> str:
    limit, share = limit_of(row, phase, side, roof) or ("", 0.0)
    return f"{share:.0%} {LIMITS[limit]}" if limit else "–"


def limit_of(row: Row, phase: str, side: str, roof: dict[str, float]) -> tuple[str, float] | None:
    """The limit of the machine that a pass is nearest to, and the time it allows as a share of the time taken.

    None if the limit was not measured, or if nobody counted what the pass multiplies.
    """
    made = row.made.get(side, {}).get(phase)
    if made is None:
        return None
    # The other streams are faster than a copy in memory: if that takes less than multiplying, so do they.
    least = {"flops": made / roof["flops"], row.stream: row.traffic[phase] / roof.get(row.stream, roof["bytes"])}
    limit = max(least, key=least.__getitem__)
    return (limit, least[limit] / row.seconds(phase, side)) if limit in roof else None


def beyond(report: Report) -> Iterator[str]:
    """A warning for every pass that is faster than its limit allows, with which of the two must be wrong: limit or count.

    torch multiplies as the definition says. If it exceeds the limit too, the limit was measured too low.
    """
    for row in report.rows:
        for phase, ours in _timed(row):
            limit, share = limit_of(row, phase, ours, report.roof) or ("", 0.0)
            if share <= 1 + stats.EQUAL:
                continue
            best = row.best_torch(phase)
            _, theirs = (best and limit_of(row, phase, best, report.roof)) or ("", 0.0)
            wrong = f"the count of bytes is too high: part of the data was still in a nearer cache than {LIMITS[limit]}"
            if limit == "flops":
                wrong = (
                    f"the count of multiplications is too high for the rung {row.ran.get(ours, ours)}, since torch keeps below it"
                )
            if theirs > 1 + stats.EQUAL:
                wrong = "the limit was measured too low, since torch exceeds it too"
            yield f"{_label(row, ours)} {phase} is at {share:.0%} of its limit ({LIMITS[limit]}): {wrong}."
