"""The same layers on two machines. All results here are made up."""

from __future__ import annotations

from benchmarks.reports import between
from benchmarks.reports.results import Report, Row


def made(cpu: str, *, scratch: float, peak: float, **facts: object) -> Report:
    one = {"scratch": [[[scratch]]] * 2, "torch eager": [[[2.0]]] * 2}
    row = Row(
        "conv9", "layer", "conv2d", 8, ["forward"], flops={"forward": 40.0}, traffic={"forward": 1.0},
        made={"scratch": {"forward": 40.0}}, rounds=[one] * 5,
    )  # fmt: skip
    return Report(
        machine={"cpu": cpu, "commit": "abc", "last_level_cache_bytes": 32 << 20, **facts},
        settings={"threads": 2, "date": "2026-01-01"}, roof={"flops": peak, "bytes": 10.0}, rows=[row],
    )  # fmt: skip


def test_each_machine_has_its_ratio_and_the_limit_that_counts() -> None:
    runs = {"near": made("Abacus", scratch=1.0, peak=50.0), "far": made("Slide rule", scratch=3.0, peak=100.0)}
    (line,) = between.table(runs).rows
    assert line == ["conv9", "forward", "0.50", "80% peak", "1.50", "13% waits"]


def test_a_layer_that_one_machine_lacks_has_a_dash() -> None:
    other = made("Slide rule", scratch=1.0, peak=50.0)
    other.rows = []
    (line,) = between.table({"one": made("Abacus", scratch=1.0, peak=50.0), "other": other}).rows
    assert line[-2:] == ["–", "–"]


def test_machines_are_described_as_far_as_their_files_know() -> None:
    old, new = (
        made("Abacus", scratch=1.0, peak=5e10),
        made("Slide rule", scratch=1.0, peak=1e11, caches={"L1": 1 << 15, "L2": 1 << 20}),
    )
    new.roof["update"] = 6e10
    rows = {line[0]: line[1:] for line in between.facts({"old": old, "new": new}).rows}
    assert rows["peak, GFLOP/s"] == ["50", "100"]
    assert rows["in place, GB/s"] == ["–", "60"]
    assert rows["caches"] == ["last level 32 MiB", "L1 32 KiB, L2 1 MiB"]
