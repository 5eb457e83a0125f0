"""What a run leaves behind: JSON with every raw sample, from which all tables, plots and comparisons are computed."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import stats
from benchmarks.measure.pairing import Round
from benchmarks.measure.stats import Ratio
from benchmarks.subjects.sides import original

RESULTS = Path(__file__).parents[1] / "results"  # the committed results, one folder for each kind of machine
SHOWN = "amd-epyc-26-2"  # the machine whose tables and pictures the pages show, where they were measured there
FORMAT = "alexnet-from-scratch benchmark"
VERSION = 1


def committed(results: Path = RESULTS) -> list[list[Path]]:
    """The files of each machine, those of the shown one first."""
    folders = sorted(results.glob("*/"), key=lambda folder: (folder.name != SHOWN, folder.name))
    return [sorted(folder.glob("*.json")) for folder in folders]


@dataclass
class Row:
    """A case's results so far: checked first, then timed."""

    case: str
    group: str
    operation: str
    batch: int
    phases: list[str]
    shape: str = ""
    flops: dict[str, float] = field(default_factory=dict)  # by phase, by the definition; see cases.py
    traffic: dict[str, float] = field(default_factory=dict)
    made: dict[str, dict[str, float]] = field(default_factory=dict)  # side → phase → those really made; see work.py
    stream: str = "bytes"  # which stream of the roof limits the traffic
    checked: dict[str, float] = field(default_factory=dict)  # side → the largest error, as a share of what rounding allows
    errors: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # side → result → RMS and largest, see verify.py
    failed: dict[str, str] = field(default_factory=dict)  # side → which of its results are wrong
    absent: dict[str, str] = field(default_factory=dict)  # side → why it is left out: it cannot run, or is miscompiled
    ran: dict[str, str] = field(default_factory=dict)  # scratch's side → the rung that took the case
    rounds: list[Round] = field(default_factory=list)
    threads: int = 0
    size: int = 0  # height and width of a network's images
    peak: dict[str, int] = field(default_factory=dict)  # side → bytes of memory at the worst moment of a pass
    leaked: float = 0.0  # CPU seconds that idle processes used, as a share of the measured time

    @property
    def timed(self) -> list[str]:
        """The sides that were timed."""
        return list(self.rounds[0]) if self.rounds else []

    @property
    def sides(self) -> list[str]:
        """The sides to compare: those timed, without twins and without slowed ones."""
        return [side for side in self.timed if side == original(side)]

    @property
    def twins(self) -> list[tuple[str, str]]:
        """Phase and side of every A/A comparison: that side was also timed in a second process."""
        return [(phase, side) for phase in self.phases for side in self.sides if f"{side} again" in self.timed]

    def same(self, confidence: float = stats.CONFIDENCE) -> list[Ratio]:
        """The ratios of its twins."""
        return [self.ratio(phase, f"{side} again", side, confidence=confidence) for phase, side in self.twins]

    def times(self, phase: str, side: str) -> list[float]:
        """The seconds of a pass, for each round: the mean of the two turns, each the median of its passes."""
        index = self.phases.index(phase)
        return [statistics.fmean(statistics.median(laps[index] for laps in turn) for turn in one[side]) for one in self.rounds]

    def seconds(self, phase: str, side: str) -> float:
        """The median over rounds: to be read, not compared. Use :meth:`ratio` to compare."""
        return statistics.median(self.times(phase, side))

    def ratio(self, phase: str, first: str, second: str, *, confidence: float = stats.CONFIDENCE) -> Ratio:
        """The time of ``first`` divided by that of ``second``."""
        return stats.ratio(self.times(phase, first), self.times(phase, second), confidence=confidence)

    def best_torch(self, phase: str) -> str | None:
        """The fastest of torch's configurations. Choosing it by the same samples can only favour torch."""
        torch = [side for side in self.sides if side.startswith("torch")]
        return min(torch, key=lambda side: self.seconds(phase, side), default=None)


@dataclass
class Report:
    """A run."""

    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    libraries: dict[str, dict[str, Any]] = field(default_factory=dict)  # side → versions and thread pools
    roof: dict[str, float] = field(default_factory=dict)  # per second; see roof.py
    rows: list[Row] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)  # see starts.py
    traps: list[dict[str, Any]] = field(default_factory=list)  # see traps.py
    selfchecks: list[dict[str, Any]] = field(default_factory=list)  # see selfcheck.py
    parts: list[dict[str, Any]] = field(default_factory=list)  # see parts.py
    interrupted: bool = False

    def same(self) -> list[tuple[str, str, str, Ratio]]:
        """The A/A rows: case, phase, side, and its ratio to the same side in another process."""
        confidence = stats.same_confidence(sum(len(row.twins) for row in self._controls()))
        return [
            (row.case, phase, side, ratio)
            for row in self._controls()
            for (phase, side), ratio in zip(row.twins, row.same(confidence), strict=True)
        ]

    def resolution(self) -> float:
        """The difference that noise could fake in the A/A rows, by their 95 % intervals."""
        return stats.resolution([ratio for row in self._controls() for ratio in row.same()])

    def noise(self) -> float:
        """How far from 1 noise may move a ratio: by ``stats.EQUAL`` in a trusted run, else at least as far as A/A rows show."""
        return max(self.resolution(), stats.EQUAL) if self.distrust() else stats.EQUAL

    def _controls(self) -> list[Row]:
        # A sweep takes three rounds per point: it shows how a cost grows over a hundredfold, not which side is faster.
        rows = [row for row in self.rows if row.group not in ("growth", "crossing")]
        judges = self.settings.get("controls")  # with --twins there are more A/A rows, of few rounds, which judge nothing
        return rows if judges is None else [row for row in rows if row.case in judges]

    def distrust(self) -> str:
        """Why this run is not trusted, or an empty string."""
        threads = self.settings.get("threads")
        for side, facts in self.libraries.items():
            for pool, count in facts["pools"].items():
                if count != threads:
                    return f"{pool} of {side} has {count} threads, not {threads}"
        for row in self.rows:
            if row.leaked > 0.05:
                return f"while others were timed on {row.case}, idle processes used {row.leaked:.0%} of a core"
        if self.resolution() > stats.RESOLVES:
            return f"the same library in two processes differed by up to {self.resolution():.0%}: the machine was too busy"
        return stats.distrust([ratio for *_, ratio in self.same()])

    def failures(self) -> list[str]:
        """Every wrong result, in words."""
        return [f"{row.case}, {side}: {what}" for row in self.rows for side, what in row.failed.items()]

    def save(self, path: Path) -> None:
        """Write JSON, times to five digits, one row per line so that a diff is readable."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        rows = ",\n".join(json.dumps(_rounded(row)) for row in content.pop("rows"))
        head = json.dumps(_rounded(content), indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(head.removesuffix("\n}") + ',\n "rows": [\n' + rows + "\n]\n}\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: it is not such a file, or has another version.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a result of this benchmark: {error}") from None
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not a result of this benchmark")
        version = content.pop("version", None)
        if version != VERSION:
            raise ValueError(f"{path} has version {version}; this program reads version {VERSION}")
        content["rows"] = [Row(**row) for row in content["rows"]]
        return cls(**content)

    def raise_roof(self, other: Report) -> None:
        """Take the other run's limits where they are higher, if it ran on the same machine with the same number of threads."""
        if other._where() == self._where():
            self.roof = {limit: max(value, other.roof.get(limit, 0)) for limit, value in self.roof.items()}

    def _where(self) -> tuple[Any, ...]:
        return self.machine.get("cpu"), self.machine.get("cores"), self.settings.get("threads")


def together(machines: Iterable[Iterable[Path]]) -> list[Report]:
    """The reports in the files of each machine. Trusted runs come first, so that tables show those.

    Raises:
        ValueError, OSError: see :meth:`Report.load`.
    """
    reports = [report for files in machines for report in of_one_machine(files)]
    return sorted(reports, key=lambda report: bool(report.distrust()))


def of_one_machine(files: Iterable[Path]) -> list[Report]:
    """The reports in the files, each with the highest limits seen in any of them.

    Raises:
        ValueError, OSError: see :meth:`Report.load`.
    """
    reports = [Report.load(path) for path in files]
    for one, other in itertools.permutations(reports, 2):
        one.raise_roof(other)
    return reports


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
