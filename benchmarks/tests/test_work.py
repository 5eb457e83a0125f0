"""What a pass multiplies and moves, and the limits it is compared with. All results here are made up."""

from __future__ import annotations

import pytest

from benchmarks.measure import machine
from benchmarks.measure.roof import Roof
from benchmarks.reports import limits
from benchmarks.reports.results import Row
from benchmarks.subjects import work
from benchmarks.subjects.cases import CASES, Case

ROOF = {"flops": 20.0, "bytes": 2.0, "update": 3.0, "cached": 8.0}


def named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def test_winograd_is_asked_for_the_multiplications_that_it_makes() -> None:
    conv = named("conv5/2")
    assert work.made(conv, "forward", "implicit_gemm", 3) == conv.flops("forward", 3)
    # 13×13 outputs are 7×7 squares, whose 16 products replace 4·9.
    share = 49 * 16 / (169 * 9)
    for phase in conv.phases:
        assert work.made(conv, phase, "winograd", 3) == pytest.approx(share * conv.flops(phase, 3))
    assert work.made(named("one_tower step"), "step", "", 3) is None


@pytest.mark.parametrize(
    ("name", "batch", "cache", "stream"),
    [
        ("sgd", 8, 32 << 20, "update"),
        ("relu1", 32, 32 << 20, "bytes"),  # 74 MB of images and gradients
        ("loss", 32, 32 << 20, "cached"),
        ("loss", 32, 1 << 18, "bytes"),  # four copies of 128 KB outgrow it
        ("fc8", 1, 16 << 20, "bytes"),  # 16 MB of weights
    ],
)
def test_bytes_come_from_where_they_fit(name: str, batch: int, cache: int, stream: str) -> None:
    assert work.stream(named(name), batch, cache) == stream


def row(
    *, flops: float, traffic: float, stream: str = "bytes", scratch: float = 2.0, torch: float = 4.0, made: float = 0.0
) -> Row:
    one = {"scratch": [[[scratch]], [[scratch]]], "torch eager": [[[torch]], [[torch]]]}
    return Row(
        "it", "layer", "conv2d", 8, ["forward"], flops={"forward": flops}, traffic={"forward": traffic}, stream=stream,
        made={"scratch": {"forward": made or flops}, "torch eager": {"forward": flops}}, ran={"scratch": "winograd"},
        rounds=[one] * 5,
    )  # fmt: skip


def test_the_limit_counts_what_is_made() -> None:
    one = row(flops=40.0, traffic=1.0, made=20.0)
    assert limits.limit_of(one, "forward", "scratch", ROOF) == ("flops", 0.5)
    assert limits.limit_of(one, "forward", "torch eager", ROOF) == ("flops", 0.5)


@pytest.mark.parametrize(("stream", "share"), [("bytes", 1.0), ("update", 2 / 3), ("cached", 0.25)])
def test_bytes_are_compared_with_their_own_stream(stream: str, share: float) -> None:
    one = row(flops=1.0, traffic=4.0, stream=stream)
    limit, found = limits.limit_of(one, "forward", "scratch", ROOF) or ("", 0.0)
    assert limit == stream
    assert found == pytest.approx(share)


def test_a_limit_that_nobody_measured_is_not_made_up() -> None:
    one = row(flops=1.0, traffic=4.0, stream="update")
    assert limits.limit_of(one, "forward", "scratch", {"flops": 20.0, "bytes": 2.0}) is None
    one.made = {}
    assert limits.limit_of(one, "forward", "scratch", ROOF) is None


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (row(flops=90.0, made=60.0, traffic=1.0, torch=9.0), "the count of multiplications is too high for winograd"),
        (row(flops=60.0, traffic=1.0), "the limit was measured too low, since winograd multiplies no less"),
        (row(flops=60.0, traffic=1.0, torch=2.5), "the limit was measured too low, since torch exceeds it too"),
        (row(flops=0.0, traffic=6.0), "the count of bytes is too high"),
        (row(flops=30.0, traffic=1.0), ""),
    ],
)
def test_a_pass_faster_than_its_limit_says_which_of_the_two_is_wrong(one: Row, words: str) -> None:
    found = list(limits.beyond([one], ROOF))
    assert len(found) == bool(words)
    assert all(words in warning for warning in found)


def test_every_limit_is_measured() -> None:
    assert Roof(1).measure().keys() == ROOF.keys() == limits.LIMITS.keys()


def test_a_stream_within_the_cache_is_larger_than_the_caches_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "caches", lambda: {"L1": 1 << 15, "L2": 1 << 20, "L3": 1 << 25})
    assert 2 << 20 < machine.below_last_level(2) <= 1 << 25
    monkeypatch.setattr(machine, "caches", dict)
    assert 0 < machine.below_last_level(2) <= machine.cache_bytes()
