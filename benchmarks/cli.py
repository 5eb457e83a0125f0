"""The command line: ``python -m benchmarks`` verifies, times and prints; other commands compare, report, or check the measuring
itself.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from benchmarks.commands import accuracy as accurate
from benchmarks.commands import growth as sweep
from benchmarks.commands import parts as where
from benchmarks.commands import peers as others
from benchmarks.commands import selfcheck as ruler
from benchmarks.commands import traps
from benchmarks.measure import machine, pairing, starts
from benchmarks.measure.isa import ISAS, pretended
from benchmarks.measure.processes import Process
from benchmarks.measure.run import CONTROLS, Settings
from benchmarks.measure.run import run as run_cases
from benchmarks.measure.run import rungs as rungs_of
from benchmarks.reports import compare as compared
from benchmarks.reports import documents as documents
from benchmarks.reports import machines, tables
from benchmarks.reports.results import Report, committed, together
from benchmarks.reports.screen import conclude, console, progress, render, show
from benchmarks.subjects.cases import CROSSING, MINI, SHAPES, Case, choose
from benchmarks.subjects.sides import Side
from benchmarks.subjects.verify import Judge

FAILED, NOT_TRUSTED, INTERRUPTED = 1, 3, 130
LATEST = Path("runs/benchmark.json")


class RunByDefault(TyperGroup):
    """No command, or only options, means ``run``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` first if the arguments do not begin with a command."""
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=RunByDefault,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Verify, then time, scratch and torch. Without a command: run.",
)

Ops = Annotated[str | None, typer.Option(help="Cases or operations, separated by commas: conv2,relu. Default: all.")]
Batch = Annotated[int, typer.Option(min=1, help="Images.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads in every pool. Default: all cores.")]
Seed = Annotated[int, typer.Option(help="Seed of the photographs' crops, the weights and the gradients.")]
Json = Annotated[Path, typer.Option("--json", help="The file for the results.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer rounds: it takes less time, and the intervals are wide.")]
Keep = Annotated[bool, typer.Option("--keep", help="Keep the results in benchmarks/results too, with this kind of machine's.")]
Isa = Annotated[str | None, typer.Option(help=f"Run both sides as on a machine with no more than: {', '.join(ISAS)}.")]


@app.command()
def run(
    ops: Ops = None,
    rungs: Annotated[
        str, typer.Option(help="Rungs, separated by commas. 'all' also times all rungs on small inputs. Default: the fastest.")
    ] = "",
    batch: Annotated[
        int | None, typer.Option(min=1, help=f"Images in a batch. Default: {Settings.batch}; with --full 128.")
    ] = None,
    threads: Threads = None,
    quick: Quick = False,
    full: Annotated[bool, typer.Option("--full", help="All rows, everything compiled, many rounds. Takes hours.")] = False,
    compile_: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile on all rows or none. Default: where it gains most."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where torch runs: cpu or cuda; scratch stays on the CPU.")] = "cpu",
    isa: Isa = None,
    twins: Annotated[bool, typer.Option("--twins", help="A/A for every row: twice the time.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if the run is not trusted, as CI may want.")] = False,
    keep: Keep = False,
    json: Json = LATEST,
    seed: Seed = 0,
) -> None:
    """Verify and time scratch against torch; Ctrl-C keeps what was measured."""
    cases = chosen(ops, {"layer", "network"} | ({"ladder"} if rungs or full else set()) | ({"full"} if full else set()))
    known = {rung for case in cases for rung in rungs_of(case)}
    if unknown := set(rungs.split(",")) - known - {"", "all"}:
        raise typer.BadParameter(f"--rungs must be among {sorted(known)} or 'all', got {sorted(unknown)}")
    if keep and (ops or rungs or device != "cpu"):
        raise typer.BadParameter("--keep must have the whole run, without --ops, --rungs and --device")
    settings = Settings(
        cases=cases,
        effort=pairing.FULL if full else pairing.QUICK if quick else pairing.DEFAULT,
        batch=batch or (128 if full else Settings.batch),
        threads=threads or machine.cores(),
        device=device,
        seed=seed,
        rungs=tuple(rungs.split(",")) if rungs else (),
        compile_=True if full and compile_ is None else compile_,
        twins=twins,
    )
    report = Report(settings=describe(settings, "full" if full else "quick" if quick else "default"))
    with pretended(known_isa(isa)), interruptible(report), progress(cases) as (say, done):
        run_cases(settings, report, say, done)
        if ops is None:
            say("starts")
            report.starts = start(settings)
    show(report)
    save(report, json, machines.MAIN if keep else None)
    console.print("'python -m benchmarks compare OLD NEW' compares two such files.")
    conclude(report)
    leave(report, strict=strict)


@app.command()
def growth(threads: Threads = None, keep: Keep = False, json: Json = Path("runs/growth.json"), seed: Seed = 0) -> None:
    """How time and memory of a training step grow with batch, threads and image size."""
    settings = Settings(sweep.cases(threads or machine.cores()), pairing.QUICK, threads=threads or machine.cores(), seed=seed)
    report = Report(settings=describe(settings, "growth"))
    with interruptible(report), progress(settings.cases) as (say, done):
        sweep.run(settings, report, say, done)
    save(report, json, "growth.json" if keep else None)
    render(tables.growth(report))
    leave(report)


@app.command()
def crossing(
    threads: Threads = None, quick: Quick = False, keep: Keep = False, json: Json = Path("runs/crossing.json"), seed: Seed = 0
) -> None:  # fmt: skip
    """From which size on each rung of conv2d pays off, and which rung the default takes."""
    effort = pairing.QUICK if quick else pairing.DEFAULT
    settings = Settings(list(CROSSING), effort, threads=threads or machine.cores(), seed=seed)
    report = timed(settings, "crossing", None)
    save(report, json, "crossing.json" if keep else None)
    render(tables.crossing(report))
    leave(report)


@app.command()
def shapes(
    batch: Batch = 8, threads: Threads = None, quick: Quick = False, isa: Isa = None, keep: Keep = False,
    json: Json = Path("runs/shapes.json"), seed: Seed = 0,
) -> None:  # fmt: skip
    """conv2d on shapes that users run and AlexNet does not have: 1×1, strides, dilation, 7×7, the images' gradient."""
    effort = pairing.QUICK if quick else pairing.DEFAULT
    settings = Settings(list(SHAPES), effort, batch=batch, threads=threads or machine.cores(), seed=seed)
    report = timed(settings, "shapes", isa)
    save(report, json, "shapes.json" if keep else None)
    render(tables.shapes(report))
    leave(report)


@app.command()
def accuracy(
    batch: Batch = 8, threads: Threads = None, isa: Isa = None, keep: Keep = False,
    json: Json = Path("runs/accuracy.json"), seed: Seed = 0,
) -> None:  # fmt: skip
    """How exact the rungs and torch are at AlexNet's layers, compared with float64, next to their times."""
    cases = accurate.cases()
    settings = Settings(cases, pairing.QUICK, batch=batch, threads=threads or machine.cores(), seed=seed)
    report = timed(settings, "accuracy", isa)
    save(report, json, "accuracy.json" if keep else None)
    render(accurate.table(report))
    leave(report)


@app.command()
def peers(
    threads: Threads = None, quick: Quick = False, isa: Isa = None, keep: Keep = False, json: Json = Path("runs/peers.json"),
    seed: Seed = 0,
) -> None:  # fmt: skip
    """one_tower in ONNX Runtime, OpenVINO, JAX and torch: inference of 1, 8 and 32 images, and the training step."""
    effort = pairing.QUICK if quick else pairing.DEFAULT
    settings = Settings(others.cases(), effort, threads=threads or machine.cores(), seed=seed, compile_=True)
    report = timed(settings, "peers", isa)
    save(report, json, "peers.json" if keep else None)
    render(others.table(report))
    leave(report)


@app.command()
def parts(
    ops: Annotated[str, typer.Option(help="Which cases.")] = where.CASES,
    batch: Batch = 32,
    threads: Threads = None,
    keep: Keep = False,
    json: Json = Path("runs/parts.json"),
    seed: Seed = 0,
) -> None:
    """Where scratch spends the time of a pass: kernel by kernel."""
    settings = Settings(chosen(ops, {"layer"}), pairing.DEFAULT, batch=batch, threads=threads or machine.cores(), seed=seed)
    report = Report(settings=describe(settings, "parts"))
    with interruptible(report), progress(settings.cases) as (say, done):
        where.run(settings, report, say, done)
    save(report, json, "parts.json" if keep else None)
    render(where.table(report))


@app.command()
def selfcheck(
    runs: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    ops: Annotated[str, typer.Option(help="What is timed.")] = ",".join(CONTROLS),
    slow: Annotated[str, typer.Option(help="The operation to slow down, and by how much: OP=FACTOR.")] = "conv2d=1.10",
    threads: Threads = None,
    quick: Quick = False,
    keep: Keep = False,
    json: Json = Path("runs/selfcheck.json"),
    seed: Seed = 0,
) -> None:
    """Check the measuring itself: in every run, equals must come out equal (A/A) and a planted slowdown must be found."""
    operation, _, factor = slow.partition("=")
    if not re.fullmatch(r"\d+(\.\d+)?", factor) or float(factor) <= 1:
        raise typer.BadParameter(f"--slow must be OP=FACTOR with a factor above 1, got {slow!r}")
    settings = Settings(
        cases=chosen(ops, {"layer"}),
        effort=pairing.QUICK if quick else pairing.DEFAULT,
        threads=threads or machine.cores(),
        seed=seed,
        slow={operation: float(factor)},
    )
    report = Report(machine=machine.describe(), settings=describe(settings, "selfcheck"))
    with interruptible(report), progress(settings.cases * runs) as (say, done):
        for finding in ruler.check(settings, runs, say, done):
            report.selfchecks.append(finding)
    save(report, json, "selfcheck.json" if keep else None)
    render(ruler.table(report))
    if not all(ruler.passed(found) for found in report.selfchecks):
        raise typer.Exit(FAILED)


@app.command()
def trap(threads: Threads = None, keep: Keep = False, json: Json = Path("runs/traps.json")) -> None:
    """Fall into the traps of benchmarking on purpose; docs/benchmark-traps.md explains them."""
    settings = Settings([], pairing.DEFAULT, threads=threads or machine.cores())
    report = Report(machine=machine.describe(), settings=describe(settings, "traps"))
    report.traps = traps.run(settings.threads)
    save(report, json, "traps.json" if keep else None)
    for name in traps.TRAPS:
        render(traps.table(name, report))


@app.command()
def compare(old: Path, new: Path) -> None:
    """What changed between two runs beyond the noise; the exit code is 1 if anything became slower."""
    before, after = loaded(old), loaded(new)
    for caveat in compared.caveats(before, after):
        console.print(f"[yellow]Careful[/]: {caveat}")
    changes = compared.changes(before, after)
    if not changes:
        console.print("The two runs have no row in common.")
        raise typer.Exit(FAILED)
    beyond = [change for change in changes if change.ratio.verdict != "same"]
    for change in beyond:
        console.print(f"[{'red' if change.ratio.verdict == 'slower' else 'green'}]{change}[/]")
    console.print(f"{len(beyond)} of {len(changes)} rows changed beyond noise, compared with torch's time in the same run.")
    if any(change.ratio.verdict == "slower" for change in beyond):
        raise typer.Exit(FAILED)


@app.command()
def report(
    files: Annotated[list[Path], typer.Argument(help="Markdown files with marked blocks.")],
    json: Annotated[list[Path] | None, typer.Option("--json", help="A file of results; repeat for several.")] = None,
    pictures: Annotated[Path, typer.Option(help="The folder for the SVG files.")] = Path("docs"),
) -> None:
    """Write tables and pictures of committed results into Markdown files, between their markers."""
    try:
        reports = together([json] if json else committed())
        for path in documents.write(files, reports, pictures):
            console.print(f"wrote {path}")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None


def timed(settings: Settings, name: str, isa: str | None) -> Report:
    """A run of the settings' cases."""
    report = Report(settings=describe(settings, name))
    with pretended(known_isa(isa)), interruptible(report), progress(settings.cases) as (say, done):
        run_cases(settings, report, say, done)
    return report


def known_isa(isa: str | None) -> str | None:
    """``isa``, if it is None or one of ``ISAS``; otherwise a usage error."""
    if isa is not None and isa not in ISAS:
        raise typer.BadParameter(f"--isa must be among {sorted(ISAS)}, got {isa!r}")
    return isa


def save(report: Report, json: Path, kept: str | None) -> None:
    """Write the results. A complete run without wrong results is also kept as ``kept``, in the folder of this kind of machine."""
    report.save(json)
    console.print(f"Every sample is in {json}.")
    if kept and not report.interrupted and not report.failures():
        console.print(machines.keep(report, kept), markup=False)


def start(settings: Settings) -> list[dict[str, Any]]:
    """Cold and warm starts of both libraries."""
    sides = [Side("scratch"), Side("torch", "eager")]
    if settings.compile_:
        sides.append(Side("torch", "compile"))
    with Process(settings.threads, Judge, 1, settings.seed) as judge:
        arrays = judge.ask("arrays", MINI)
    return starts.measure(settings.threads, sides, MINI, arrays)


def chosen(ops: str | None, groups: set[str]) -> list[Case]:
    """The cases that ``--ops`` names."""
    try:
        return choose(ops, groups)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def loaded(path: Path) -> Report:
    """A file of results."""
    try:
        return Report.load(path)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None


def describe(settings: Settings, effort: str) -> dict[str, Any]:
    """The settings, in the form that is kept with the results."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "effort": effort,
        "batch": settings.batch,
        "threads": settings.threads,
        "device": settings.device,
        "seed": settings.seed,
        "rungs": list(settings.rungs),
        "controls": settings.controls,
    }


@contextmanager
def interruptible(report: Report) -> Iterator[None]:
    """Ctrl-C ends the block; what was measured stays in the report, which is marked as incomplete."""
    try:
        yield
    except KeyboardInterrupt:
        report.interrupted = True
        report.rows = [row for row in report.rows if row.rounds or row.failed]


def leave(report: Report, *, strict: bool = False) -> None:
    """Exit with 130 after Ctrl-C, with 1 if a result was wrong, and with 3 if ``strict`` and the run is not trusted."""
    if report.interrupted:
        console.print("Interrupted: only part of the rows was measured.")
        raise typer.Exit(INTERRUPTED)
    if report.failures():
        raise typer.Exit(FAILED)
    if strict and report.distrust():
        raise typer.Exit(NOT_TRUSTED)
