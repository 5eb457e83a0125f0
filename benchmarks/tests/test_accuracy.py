"""Accuracy next to speed: the table's rows. All results here are made up."""

from __future__ import annotations

from benchmarks.commands import accuracy
from benchmarks.reports.results import Report, Row
from benchmarks.subjects.cases import Layer


def test_every_pass_shows_time_and_its_worst_gradient() -> None:
    seconds = {"scratch im2col": [0.002, 0.004], "scratch winograd": [0.001, 0.001], "torch eager": [0.003, 0.003]}
    one = {side: [[laps]] * 2 for side, laps in seconds.items()}
    errors = {"out": [1e-7, 5e-7], "grad_x": [2e-7, 6e-7], "grad_weight": [3e-7, 4e-7]}
    row = Row(
        "conv1", "accuracy", "conv2d", 8, ["forward", "backward"], rounds=[one] * 3, errors=dict.fromkeys(one, errors),
        ran={"scratch im2col": "im2col", "scratch winograd": "implicit_gemm"},
    )  # fmt: skip
    found = accuracy.table(Report(rows=[row]))
    assert found.header == ["layer", "pass", "im2col", "torch eager"]  # Winograd does not take conv1
    assert found.rows[0] == ["conv1", "forward", "2.00, 1.0e-07, 5.0e-07", "3.00, 1.0e-07, 5.0e-07"]
    assert found.rows[1][2] == "4.00, 3.0e-07, 4.0e-07"


def test_its_cases_are_alexnets_layers() -> None:
    layers = [case for case in accuracy.cases() if isinstance(case, Layer)]
    assert {layer.operation for layer in layers} == set(accuracy.OPERATIONS)
    assert {"conv1", "conv5", "fc8"} <= {layer.name for layer in layers}
