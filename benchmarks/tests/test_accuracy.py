"""Accuracy next to speed: the table's rows, on made-up results; and what a default rung may cost, at AlexNet's layers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.commands import accuracy
from benchmarks.reports.results import Report, Row
from benchmarks.subjects import scratch_side, torch_side
from benchmarks.subjects.cases import Layer
from benchmarks.subjects.sides import Side
from benchmarks.subjects.verify import Judge, own_bound

# Of a default rung's root mean square error, in torch's. Winograd's sums hold terms that cancel in the end.
AT_MOST = {"winograd": 2.0}
ELSE_AT_MOST = 1.25
BATCH = {"conv2d": 2, "linear": 8}  # the fewest images for which these rungs run; linear's product begins at eight


def test_every_pass_shows_time_and_its_worst_gradient() -> None:
    seconds = {"scratch im2col": [0.002, 0.004], "scratch winograd": [0.001, 0.001], "torch eager": [0.003, 0.003]}
    one = {side: [[laps]] * 2 for side, laps in seconds.items()}
    errors = {"out": [1e-7, 5e-7], "grad_x": [2e-7, 6e-7], "grad_weight": [3e-7, 1.4e-6]}
    row = Row(
        "conv1", "accuracy", "conv2d", 8, ["forward", "backward"], rounds=[one] * 3, errors=dict.fromkeys(one, errors),
        ran={"scratch im2col": "im2col", "scratch winograd": "implicit_gemm"},
    )  # fmt: skip
    found = accuracy.table(Report(rows=[row]))
    assert found.header == ["layer", "pass", "im2col", "torch eager"]  # Winograd does not take conv1
    assert found.rows[0] == ["conv1", "forward", "2.00, 1.0, 5.0", "3.00, 1.0, 5.0"]
    assert found.rows[1][2] == "4.00, 3.0, 14"


def test_its_cases_are_alexnets_layers() -> None:
    layers = [case for case in accuracy.cases() if isinstance(case, Layer)]
    assert {layer.operation for layer in layers} == set(accuracy.OPERATIONS)
    assert {"conv1", "conv5", "fc8"} <= {layer.name for layer in layers}


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(max(BATCH.values()), 0)


WHOLE = [case for case in accuracy.cases() if not case.name.endswith("/2")]  # groups have shorter sums


@pytest.mark.parametrize("case", WHOLE, ids=lambda case: case.name)
def test_a_default_rung_rounds_hardly_more_than_torch(case, judge) -> None:
    """Against float64, at AlexNet's own sizes: the output and every gradient."""
    case = replace(case, batch=BATCH[case.operation])
    arrays = judge.arrays(case)
    ours = scratch_side.prepare(Side("scratch"), case, arrays, copies=1)
    theirs = torch_side.prepare(Side("torch", "eager"), case, arrays, copies=1)
    found = judge.judge(ours.results(), own_bound(case, ours.note))
    for name, torchs in judge.judge(theirs.results(), "").items():
        (error, _), (torch_error, _) = found[name].errors, torchs.errors
        most = AT_MOST.get(ours.note, ELSE_AT_MOST)
        assert error <= most * torch_error, f"{name} by {ours.note}: {error:.2g}, {error / torch_error:.2f} of torch's"
