"""What changes from one kind of machine to another: each layer's ratio to torch, and the limit that it is nearest to on each."""

from __future__ import annotations

from benchmarks.reports.limits import LIMITS, limit_of
from benchmarks.reports.results import Report, Row
from benchmarks.reports.tables import LAYERS, Table, fastest, origin

ALONE = 0.5  # the share of its limit below which a pass is said to wait for something else


def facts(runs: dict[str, Report]) -> Table:
    """The machines themselves: what was measured of each."""
    reports = list(runs.values())
    limits = sorted({limit for run in reports for limit in run.roof}, key=list(LIMITS).index)
    units = {"flops": "GFLOP/s"}
    rows = [[f"{LIMITS[limit]}, {units.get(limit, 'GB/s')}", *(_rate(run, limit) for run in reports)] for limit in limits]
    rows.append(["caches", *(", ".join(f"{name} {_size(size)}" for name, size in _caches(run).items()) for run in reports)])
    return Table("The machines", ["measured", *(origin(run) for run in reports)], rows, "")


def table(runs: dict[str, Report]) -> Table:
    """For every pass and machine: scratch's time divided by that of the fastest torch, and the limit that it is nearest to."""
    reports = list(runs.values())
    header = ["layer", "pass", *(f"{name}: {column}" for name in runs for column in ("scratch / best torch", "of its limit"))]
    rows = []
    for case, phase in dict.fromkeys((row.case, phase) for run in reports for row in _rows(run) for phase in row.phases):
        cells = [cell for run in reports for cell in _cells(run, case, phase)]
        rows.append([case, phase, *cells])
    return Table(
        "The same layers on each machine",
        header,
        rows,
        f"The limit that applies is named where a pass reaches {ALONE:.0%} of it. *waits* means that the pass is far from every "
        "limit. It then waits for something that has no column: the caches between the registers and memory, or the latency of "
        "one instruction after the other.",
    )


def _rows(run: Report) -> list[Row]:
    return [row for row in run.rows if row.group in LAYERS and row.rounds]


def _cells(run: Report, case: str, phase: str) -> tuple[str, str]:
    row = next((row for row in _rows(run) if row.case == case), None)
    best = row.best_torch(phase) if row else None
    if row is None or best is None:
        return "–", "–"
    ours = fastest(row)
    ratio = f"{row.ratio(phase, ours, best).median:.2f}"
    found = limit_of(row, phase, ours, run.roof)
    if found is None:
        return ratio, "–"
    limit, share = found
    return ratio, f"{share:.0%} {LIMITS[limit] if share >= ALONE else 'waits'}"


def _rate(run: Report, limit: str) -> str:
    return f"{run.roof[limit] / 1e9:,.0f}" if limit in run.roof else "–"


def _caches(run: Report) -> dict[str, int]:
    return run.machine.get("caches") or {"last level": run.machine["last_level_cache_bytes"]}


def _size(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
