"""What changed between two runs, beyond the noise of both.

Absolute times of two runs are not comparable: the machine's state and its neighbours change. So the ratios to torch within each
run are compared: torch is the yardstick that both runs share.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.measure import stats
from benchmarks.measure.stats import Ratio
from benchmarks.reports.results import Report, Row


@dataclass(frozen=True)
class Change:
    """How the time of one row changed: ``ratio`` is new over old."""

    case: str
    phase: str
    side: str
    ratio: Ratio

    def __str__(self) -> str:
        percent = self.ratio.median - 1
        return (
            f"{self.case} {self.phase} ({self.side}): {self.ratio.verdict} by {abs(percent):.1%} "
            f"[{self.ratio.low - 1:+.1%} … {self.ratio.high - 1:+.1%}]"
        )


def changes(old: Report, new: Report) -> list[Change]:
    """Every row of scratch that both runs timed; each of k rows is judged at 5 %/k, so that chance alone is rarely reported."""
    before = {(row.case, row.batch, row.threads): row for row in old.rows}
    pairs = []
    for row in new.rows:
        other = before.get((row.case, row.batch, row.threads))
        if other is None:
            continue
        for phase in row.phases:
            for side in row.sides:
                yardstick = _yardstick(phase, other, row)
                if side.startswith("scratch") and side in other.sides and yardstick:
                    pairs.append((other, row, phase, side, yardstick))
    confidence = 1 - (1 - stats.CONFIDENCE) / max(1, len(pairs))
    return [
        Change(
            row.case,
            phase,
            side,
            row.ratio(phase, side, yardstick, confidence=confidence) / other.ratio(phase, side, yardstick, confidence=confidence),
        )
        for other, row, phase, side, yardstick in pairs
    ]


def caveats(old: Report, new: Report) -> list[str]:
    """Why the two may not be comparable."""
    found = [
        f"the {name} run is not trusted: {reason}" for name, run in (("old", old), ("new", new)) if (reason := run.distrust())
    ]
    for fact in ("cpu", "cores", "python"):
        if old.machine.get(fact) != new.machine.get(fact):
            found.append(f"{fact} was {old.machine.get(fact)}, is {new.machine.get(fact)}")
    for side in old.libraries.keys() & new.libraries.keys():
        if old.libraries[side]["versions"] != new.libraries[side]["versions"]:
            found.append(f"{side} had {old.libraries[side]['versions']}, has {new.libraries[side]['versions']}")
    return found


def _yardstick(phase: str, old: Row, new: Row) -> str | None:
    """The configuration of torch that was fastest in the old run, if the new one timed it too."""
    best = old.best_torch(phase)
    return best if best in new.sides else None
