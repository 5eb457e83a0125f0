"""What limits a pass: the machine's peak or one of its streams, and how near the pass comes to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from benchmarks.measure import stats
from benchmarks.reports.results import Row

LIMITS = {"flops": "peak", "bytes": "memory", "update": "in place", "cached": "cache"}


def share_text(row: Row, phase: str, side: str, roof: dict[str, float]) -> str:
    limit, share = limit_of(row, phase, side, roof) or ("", 0.0)
    return f"{share:.0%} {LIMITS[limit]}" if limit else "–"


def limit_of(row: Row, phase: str, side: str, roof: dict[str, float]) -> tuple[str, float] | None:
    """The limit of the machine that a pass is nearest to, and the least time that it allows, as a share of the time taken.

    None if the limit was not measured, or if the pass's multiplications were not counted.
    """
    made = row.made.get(side, {}).get(phase)
    if made is None:
        return None
    # The other streams are faster than a copy in memory. If the copy takes less time than multiplying, so do they.
    least = {"flops": made / roof["flops"], row.stream: row.traffic[phase] / roof.get(row.stream, roof["bytes"])}
    limit = max(least, key=least.__getitem__)
    return (limit, least[limit] / row.seconds(phase, side)) if limit in roof else None


def beyond(rows: Iterable[Row], roof: dict[str, float]) -> Iterator[str]:
    """A warning for every pass that is faster than its limit allows. It says what must be wrong: the limit, or the count."""
    for row in rows:
        for phase, ours in scratchs(row):
            limit, share = limit_of(row, phase, ours, roof) or ("", 0.0)
            if share > 1 + stats.EQUAL:
                name = f"{label(row, ours)} {phase} is at {share:.0%} of its limit ({LIMITS[limit]})"
                yield f"{name}: {_wrong(row, phase, ours, limit, roof)}."


def _wrong(row: Row, phase: str, ours: str, limit: str, roof: dict[str, float]) -> str:
    """Whether limit or count is wrong.

    torch multiplies and moves what the definition says. So does every rung that is not counted otherwise.
    """
    best = row.best_torch(phase)
    _, theirs = (best and limit_of(row, phase, best, roof)) or ("", 0.0)
    if theirs > 1 + stats.EQUAL:
        return "the limit was measured too low, since torch exceeds it too"
    if limit != "flops":
        return f"the count of bytes is too high: part of the data was still in a nearer cache than {LIMITS[limit]}"
    if row.made[ours][phase] == row.flops[phase]:
        return f"the limit was measured too low, since {row.ran.get(ours, ours)} multiplies no less than the definition"
    return f"the count of multiplications is too high for {row.ran.get(ours, ours)}, or the limit too low"


def scratchs(row: Row) -> Iterator[tuple[str, str]]:
    """Each phase with each side of scratch."""
    for phase in row.phases:
        for side in row.sides:
            if side.startswith("scratch"):
                yield phase, side


def label(row: Row, ours: str) -> str:
    """The row's name; the rung is named if it is not the default one."""
    rung = ours.removeprefix("scratch").strip()
    if row.group == "network" and rung:
        return f"{row.case}, without Winograd"
    return f"{row.case} ({rung})" if rung else row.case
