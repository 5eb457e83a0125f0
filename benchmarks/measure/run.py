"""One run: for every case, verify all sides, then time the correct ones."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, Protocol

from benchmarks.measure import machine, pairing, stats
from benchmarks.measure.awake import Awake
from benchmarks.measure.pairing import Effort
from benchmarks.measure.processes import Process, WorkerError
from benchmarks.measure.roof import Roof
from benchmarks.measure.worker import REST, SHORT, Worker
from benchmarks.reports.results import Report, Row
from benchmarks.subjects import work
from benchmarks.subjects.cases import Case, Layer, Network, operation
from benchmarks.subjects.sides import Arrays, Side, missing, optional, original, peers, torch_sides
from benchmarks.subjects.verify import Judge, Judged, own_bound

# The A/A rows: one limited by memory, one by arithmetic. relu1 is none of them: the block that torch frees and allocates again
# stays in the cache, or out of it, for many rounds in a row, so one of two twins may be twice as fast.
CONTROLS = ("pool1", "conv5/2")
# Networks are also timed on this rung, which multiplies as torch does. Winograd multiplies less, but its results round more.
DIRECT = "implicit_gemm"
# An A/A row may end once its interval is half as wide as it must be. This is checked every LOOK rounds, from FIRST_LOOK on.
LOOK, FIRST_LOOK = 10, 20


@dataclass(frozen=True)
class Settings:
    """What was asked for on the command line."""

    cases: list[Case]
    effort: Effort
    batch: int = 8
    threads: int = field(default_factory=machine.cores)
    device: str = "cpu"
    seed: int = 0
    rungs: tuple[str, ...] = ()  # scratch's, at AlexNet's sizes; empty means the fastest
    compile_: bool | None = None  # torch.compile for every case, or for none; None means those in cases.COMPILED
    twins: bool = False  # A/A rows for every case, not only for those that the run is judged by
    slow: Mapping[str, float] = field(default_factory=dict)  # planted slowdowns: operation → factor

    def sides(self, case: Case) -> list[Side]:
        """The sides timed on ``case``: scratch (the fastest rung last), torch, other libraries, twins for A/A, slowed copies."""
        if case.group in ("ladder", "crossing"):
            ours = [Side("scratch", rung) for rung in rungs(case)]
            if case.group == "crossing":
                ours.append(Side("scratch"))  # on whichever rung it chooses
            theirs = [Side("torch", "eager", self.device)]
        else:
            wanted = {"all"} if case.group in ("rungs", "accuracy") else set(self.rungs)
            ours = [Side("scratch", rung) for rung in rungs(case) if wanted & {rung, "all"}] or [Side("scratch")]
            if case.group in ("network", "full") and isinstance(case, Network):
                ours.insert(0, Side("scratch", DIRECT))
            theirs = torch_sides(case, self.device, compile_=self.compile_)
            if case.group == "peers" and isinstance(case, Network):
                theirs += peers(case)
        paired = self.twins or case.name in self.controls
        twins = [replace(side, again=True) for side in (ours[-1], theirs[0])] if paired else []
        slowed = [replace(ours[-1], slow=self.slow)] if operation(case) in self.slow else []
        return [*ours, *theirs, *twins, *slowed]

    def effort_of(self, case: Case) -> Effort:
        """How long to measure ``case``. The A/A rows, by which the run is judged, take longest."""
        return self.effort.longer if case.name in self.controls else self.effort

    @property
    def controls(self) -> list[str]:
        """The cases that get A/A rows: at least one, since no run is trusted without. Sweeps compare no sides and have none."""
        names = [case.name for case in self.cases if case.group not in ("growth", "crossing")]
        return [name for name in CONTROLS if name in names] or names[:1]


def rungs(case: Case) -> list[str]:
    """The rungs of a layer's operation, slowest first. The naive loops, which would take hours, are left out except on the
    ladder's small sizes.
    """
    if not isinstance(case, Layer):
        return []
    names = list(import_module(f"scratch.{case.operation}").RUNGS)
    return names if case.group == "ladder" else [name for name in names if name != "naive"]


class Asked(Protocol):
    """Something that answers commands: a :class:`Process`, or its stand-in in a test."""

    def ask(self, command: str, *arguments: Any) -> Any:
        """Do ``command`` and return its answer."""


class Team:
    """One process for each side. Those of ``sides`` start at once and load their libraries in parallel; others when needed."""

    def __init__(self, threads: int, sides: Iterable[Side]) -> None:
        self.threads = threads
        self.processes = {side.name: Process(threads, Worker, side) for side in sides}

    def __call__(self, side: Side) -> Process:
        """The side's process."""
        if side.name not in self.processes:
            self.processes[side.name] = Process(self.threads, Worker, side)
        return self.processes[side.name]

    def facts(self) -> dict[str, dict[str, Any]]:
        """Versions and thread pools of every side."""
        found = {}
        for name, process in self.processes.items():
            with contextlib.suppress(WorkerError):  # it died, as its row says
                found[name] = process.ask("facts")
        return found

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes.values():
            process.close()


def run(settings: Settings, report: Report, say: Callable[[str], None], done: Callable[[Case], None]) -> None:
    """Fill ``report`` row by row, so that an interrupted run keeps what was measured; say what is being done."""
    report.machine = machine.describe()
    shared = next((settings.sides(case) for case in settings.cases if not alone(case)), [])
    with (
        Team(settings.threads, shared) as team,
        Process(settings.threads, Judge, settings.batch, settings.seed) as judge,
    ):
        say("the machine's limits")
        for process in (judge, *team.processes.values()):
            process.ready()  # so that loading does not disturb measurements
        report.roof = limits(settings.threads)
        for case in settings.cases:
            row = blank(case, settings.batch, settings.threads)
            report.rows.append(row)
            tell = named(say, case.name)
            effort = settings.effort_of(case)
            row.absent = {side.name: why for side in settings.sides(case) if (why := missing(side))}
            sides = [side for side in settings.sides(case) if side.name not in row.absent]
            if alone(case):
                with Team(settings.threads, sides) as fresh:
                    measure(row, case, sides, fresh, judge, effort, tell)
                    report.libraries |= fresh.facts()
            else:
                measure(row, case, sides, team, judge, effort, tell)
                report.libraries |= team.facts()
            done(case)
        # Again, because other programs that slow down the start or the end of the run must not make the limits look low.
        say("the machine's limits")
        again = limits(settings.threads)
        report.roof = {limit: max(rate, again[limit]) for limit, rate in report.roof.items()}


def limits(threads: int) -> dict[str, float]:
    """The machine's limits; see ``roof.py``."""
    with Process(threads, Roof, threads) as roof:
        found: dict[str, float] = roof.ask("measure")
    return found


def alone(case: Case) -> bool:
    """Whether a case gets new processes. A training step does, so that its memory peak is its own and is freed afterwards.

    The cases with peers do as well, because their sides differ.
    """
    return isinstance(case, Network) and (case.phase == "step" or case.group == "peers")


def named(say: Callable[[str], None], name: str) -> Callable[[str], None]:
    """``say``, with ``name`` in front."""
    return lambda what: say(f"{name}: {what}")


def blank(case: Case, batch: int, threads: int) -> Row:
    """An empty row for a case."""
    batch = case.batch or batch
    return Row(
        case=case.name,
        group=case.group,
        operation=operation(case),
        batch=batch,
        phases=list(case.phases),
        shape="×".join(map(str, case.shape)) if isinstance(case, Layer) else "",
        flops={phase: case.flops(phase, batch) for phase in case.phases},
        threads=threads,
        size=case.size if isinstance(case, Network) else 0,
        traffic={phase: case.traffic(phase, batch) for phase in case.phases},
        stream=work.stream(case, batch, machine.cache_bytes()),
    )


def measure(
    row: Row,
    case: Case,
    sides: list[Side],
    team: Callable[[Side], Asked],
    judge: Asked,
    effort: Effort,
    say: Callable[[str], None],
) -> None:
    """Verify every side, then, if scratch is right, time all correct sides against each other."""
    say("inputs and reference")
    try:
        arrays: Arrays = judge.ask("arrays", case)
    except WorkerError as error:
        row.failed["reference"] = error.reason  # what cannot be verified is not timed
        return
    try:
        right = verified(row, case, sides, team, judge, arrays, say)
        del arrays
        if any(name.startswith("scratch") for name in row.failed):
            return  # a wrong kernel is never timed, nor are the other sides
        if not any(name.startswith("scratch") for name in right):
            return
        timed(row, right, effort, say)
        if alone(case):
            row.peak = {name: worker.ask("peak") for name, worker in right.items()}
    finally:
        for side in sides:
            with contextlib.suppress(WorkerError):  # a process that died has nothing to drop, and the row says so
                team(side).ask("drop")


def verified(
    row: Row,
    case: Case,
    sides: list[Side],
    team: Callable[[Side], Asked],
    judge: Asked,
    arrays: Arrays,
    say: Callable[[str], None],
) -> dict[str, Asked]:
    """The correct sides, by name. The judge checks one side's results while the next side computes its own."""
    judged = []
    with ThreadPoolExecutor(1) as judging:
        for side in sides:
            say(f"verify {side.name}")
            if found := computed(row, case, side, team(side), arrays):
                judged.append((side, judging.submit(judge.ask, "judge", *found)))
    return {side.name: team(side) for side, results in judged if passed(row, side, results.result())}


def computed(row: Row, case: Case, side: Side, worker: Asked, arrays: Arrays) -> tuple[Arrays, str] | None:
    """The side's results, and the rung whose bound judges them; None if it cannot run the case, and the row records why."""
    try:
        worker.ask("prepare", case, arrays, machine.cache_bytes())
        results, note = worker.ask("results")
    except WorkerError as error:
        # In scratch and in eager torch, only a defect leads here. torch.compile may lack a C++ compiler: that is not a failure.
        where = row.absent if optional(side) else row.failed
        where[side.name] = error.reason
        return None
    if note:
        row.ran[side.name] = note
    counts = {phase: work.made(case, phase, note, row.batch) for phase in case.phases}
    row.made[side.name] = {phase: count for phase, count in counts.items() if count is not None}
    return results, own_bound(case, note)


def passed(row: Row, side: Side, judged: dict[str, Judged]) -> bool:
    """Whether the side's results are right; the row records which are not, and how far the others are off."""
    row.checked[side.name] = max(found.share for found in judged.values())
    row.errors[side.name] = {name: list(found.errors) for name, found in judged.items() if found.errors}
    off = {name: found.share for name, found in judged.items() if not found.share <= 1}
    if off:
        worst = max(off, key=lambda name: (math.isnan(off[name]), off[name]))
        others = f"; {len(off)} results are wrong" if len(off) > 1 else ""
        # torch.compile is sometimes wrong where eager torch is right; it is then not a candidate for best torch.
        where = row.absent if optional(side) else row.failed
        where[side.name] = f"{worst} is off by {off[worst]:.3g} times what rounding allows{others}"
    return not off


def timed(row: Row, workers: Mapping[str, Asked], effort: Effort, say: Callable[[str], None]) -> None:
    """Time the sides in turns, A B B A, over rounds."""
    found = {name: worker.ask("seconds") for name, worker in workers.items()}
    # Later passes run warmer. So twins get equally many passes: otherwise their times would differ.
    seconds = {name: min(found[other] for other in workers if original(other) == original(name)) for name in workers}
    passes = {name: effort.passes_of(seconds[name]) for name in workers}
    untimed = {name: -(-passes[name] // 3) if seconds[name] < SHORT else 0 for name in workers}
    rounds = effort.rounds_of(2 * sum(REST + seconds[name] * (passes[name] + untimed[name]) for name in workers))
    leaked = 0.0

    def turn(name: str) -> pairing.Laps:
        nonlocal leaked
        say(f"round {len(row.rounds) + 1} of {rounds}, {name}")
        laps, leak = workers[name].ask("turn", untimed[name], passes[name])
        with awake:
            workers[name].ask("tidy", untimed[name] > 0)
        leaked += leak
        return laps

    def done(one: pairing.Round) -> bool:
        row.rounds.append(one)
        if not row.twins or len(row.rounds) < FIRST_LOOK or len(row.rounds) % LOOK:
            return False
        with awake:  # Only the intervals' widths, not their positions, may decide when to stop.
            return all(same.width < stats.RESOLVES / 2 for same in row.same())

    start = time.perf_counter()
    with contextlib.closing(Awake()) as awake:
        pairing.measure(list(workers), rounds, turn, done)
    row.leaked = leaked / (time.perf_counter() - start)
