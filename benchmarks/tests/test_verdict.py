"""The last lines of a run are its answer. All results here are made up."""

from __future__ import annotations

import pytest

from benchmarks.reports import tables, verdict
from benchmarks.reports.results import Report, Row


def row(case: str, phase: str, *, group: str = "layer", scratch: float = 1.0, twin: float = 1.0, **torch: float) -> Row:
    """Made up: scratch takes ``scratch`` seconds, its twin ``twin`` times that, and each configuration of torch what is given."""
    seconds = {"scratch": scratch, "scratch again": scratch * twin, **{f"torch {mode}": time for mode, time in torch.items()}}
    one = {side: [[[time]], [[time]]] for side, time in seconds.items()}
    return Row(case, group, "it", 8, [phase], rounds=[one] * 9)


def said(*rows: Row) -> str:
    return "\n".join(verdict.lines(Report(rows=list(rows))))


STEP = row("one_tower step", "step", group="network", scratch=1.0, eager=2.5, compile=2.0)


def test_the_last_line_is_the_answer() -> None:
    last = verdict.lines(Report(rows=[row("pool1", "forward", eager=2.0), STEP]))[-1]
    wanted = (
        "on this machine scratch trains AlexNet 2.5 times as fast as eager torch, and 2.0 times as fast as torch's best, compile"
    )
    assert last == f"In one sentence: {wanted}."


@pytest.mark.parametrize(
    ("eager", "words"), [(1.0, "about as fast as"), (0.5, "2.0 times slower than"), (0.97, "slightly slower")]
)
def test_a_slower_network_is_called_slower(eager: float, words: str) -> None:
    assert f"trains AlexNet {words}" in said(row("one_tower step", "step", group="network", eager=eager))


def test_every_question_has_its_line() -> None:
    inference = row("one_tower inference", "inference", group="network", scratch=1.0, eager=1.6, channels_last=1.25)
    text = said(row("pool1", "forward", eager=2.0), row("fc6", "forward", eager=0.8), STEP, inference)
    assert "Verified: yes. In all 4 rows" in text
    assert "Trusted: yes." in text
    assert "Training step, 8 images / eager torch: 0.40 [0.40 … 0.40] (1,000 ms against 2,500 by torch eager)" in text
    assert "Training step, 8 images / torch's best: 0.50" in text
    assert "Inference, 8 images / torch's best: 0.80" in text
    assert "Slowest layer against torch: fc6 forward: 1.25" in text


def test_distrust_says_what_it_means_and_marks_what_it_covers() -> None:
    rows = row("pool1", "forward", twin=1.2, eager=1.1), row("fc6", "forward", eager=2.0)
    assert "Trusted: no: the same library in two processes differed by up to 20%" in said(*rows)
    assert "within 20% of 1 is marked as noise" in said(*rows)
    report = Report(settings={"device": "cpu", "batch": 8, "threads": 2}, roof={"flops": 1.0, "bytes": 1.0}, rows=list(rows))
    for one in rows:
        one.flops, one.traffic = {"forward": 0.0}, {"forward": 1.0}
    marked = {line[0]: line[5].endswith("noise") for line in tables.comparison(report).rows}
    assert marked == {"pool1": True, "fc6": False}


def test_a_noisy_run_does_not_call_two_sides_equal() -> None:
    step = row("one_tower step", "step", group="network", twin=1.5, eager=1.3)
    assert "trains AlexNet not measurably faster or slower than eager torch" in said(step)


def test_what_failed_is_said_first() -> None:
    broken = row("pool1", "forward", eager=1.0)
    broken.failed = {"scratch": "out is off by 7 times what rounding allows"}
    assert said(broken).startswith("Verified: NO. These results are wrong: pool1, scratch: out is off by 7 times")


def test_what_was_left_out_is_named() -> None:
    left = row("pool1", "forward", eager=1.0)
    left.absent = {"torch compile": "no C++ compiler"}
    assert "Left out: torch compile on pool1: no C++ compiler" in said(left)
