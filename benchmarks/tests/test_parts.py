"""The parts of a pass are its own, phase by phase, and add up to no more than the whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.commands import parts
from benchmarks.reports.results import Report


def test_parts_are_those_of_each_phase(tmp_path: Path) -> None:
    file = tmp_path / "parts.json"
    command = [sys.executable, "-m", "benchmarks", "parts", "--ops", "pool5,conv5/2,sgd", "--batch", "2", "--json", str(file)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "max_pool2d.numba_forward" in printed
    found = {(one["case"], one["phase"]): one for one in Report.load(file).parts}
    assert list(found) == [
        ("conv5/2", "forward"), ("conv5/2", "backward"), ("pool5", "forward"), ("pool5", "backward"), ("sgd", "update"),
    ]  # fmt: skip
    assert set(found["pool5", "forward"]["parts"]) == {"max_pool2d.numba_forward"}
    assert set(found["pool5", "backward"]["parts"]) == {"max_pool2d._backward_kernel"}
    assert "winograd_filters._transform" in found["conv5/2", "forward"]["parts"]
    assert "winograd_grad_weight.grad_weight_of" not in found["conv5/2", "forward"]["parts"]
    assert "winograd_grad_weight.grad_weight_of" in found["conv5/2", "backward"]["parts"]
    for one in found.values():
        assert 0 < sum(one["parts"].values()) <= one["seconds"]
        assert (one["batch"], one["traffic"] > 0) == (2, True)


def test_a_pass_is_shown_beside_the_least_that_it_takes() -> None:
    one = {
        "case": "it",
        "phase": "forward",
        "rung": "",
        "batch": 4,
        "threads": 2,
        "seconds": 2.0,
        "flops": 3,
        "traffic": 2,
        "stream": "bytes",
    }
    report = Report(roof={"flops": 2, "bytes": 2}, parts=[{**one, "parts": {"a": 1.5, "b": 0.25, "c": 0.001}}])
    assert [row[2:] for row in parts.table(report).rows] == [
        ["**all**", "2,000", "100%"],
        ["`a`", "1,500", "75%"],
        ["`b`", "250", "12%"],
        [parts.BETWEEN, "249", "12%"],
        [parts.LEAST, "1,500", "75%"],
    ]
