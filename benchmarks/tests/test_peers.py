"""Other libraries: each computes the same network, none can break a run, and every row says what was measured."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

from benchmarks.commands import peers
from benchmarks.measure import pairing
from benchmarks.measure.processes import POOLS
from benchmarks.measure.run import Settings, passed
from benchmarks.reports.results import Report, Row
from benchmarks.subjects import sides
from benchmarks.subjects.cases import ONE_TOWER, Network
from benchmarks.subjects.sides import NEEDS, PEERS, Side
from benchmarks.subjects.verify import Judge, Judged

NETWORKS = [case for case in peers.cases() if isinstance(case, Network)]
INFERENCE, STEP = NETWORKS[0], replace(NETWORKS[-1], batch=1)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge(1, 0)


PAIRS = [(side.library, case) for case in (INFERENCE, STEP) for side in sides.peers(case)]


@pytest.mark.parametrize(("library", "case"), PAIRS)
def test_a_peer_computes_the_network(library: str, case: Network, judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same weights, within the bound; and weights that are a little off are noticed."""
    for package in NEEDS[library]:
        pytest.importorskip(package, reason="the extra 'peers' is not installed")
    for pool in POOLS:
        monkeypatch.setenv(pool, "2")
    arrays = judge.arrays(case)
    prepare = import_module(f"benchmarks.subjects.{library}_side").prepare
    subject = prepare(Side(library), case, arrays, 1)
    assert max(found.share for found in judge.judge(subject.results(), "").values()) <= 1
    assert len(subject.run()) == 1
    name = next(name for name in arrays if name.endswith("weight"))
    other = prepare(Side(library), case, arrays | {name: arrays[name] * np.float32(1.05)}, 1)
    assert max(found.share for found in judge.judge(other.results(), "").values()) > 1


def test_threads_are_read_back_from_the_engines(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for library in ("openvino", "onnxruntime"):
        for package in NEEDS[library]:
            pytest.importorskip(package, reason="the extra 'peers' is not installed")
        prepare = import_module(f"benchmarks.subjects.{library}_side").prepare
        subject = prepare(Side(library), INFERENCE, judge.arrays(INFERENCE), 1)
        assert subject.pools() == {library: 1}


def test_every_case_has_every_library_that_can_run_it() -> None:
    settings = Settings(list(peers.cases()), pairing.QUICK, threads=2, compile_=True)
    names = {case.name: {side.library for side in settings.sides(case)} for case in settings.cases}
    assert names["inference, 8"] == {"scratch", "torch", *PEERS}
    assert names["training step, 32"] == {"scratch", "torch", "jax"}


def test_what_is_not_installed_is_left_out_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert sides.missing(Side("openvino")) == "openvino, onnx not installed; pip install --editable '.[peers]'"
    assert sides.missing(Side("scratch")) == sides.missing(Side("torch", "eager")) == ""


def test_a_wrong_peer_is_left_out_and_fails_nothing() -> None:
    row = Row("inference, 1", "peers", "alexnet", 1, ["inference"])
    assert not passed(row, Side("openvino"), {"logits": Judged(9.0)})
    assert row.absent == {"openvino": "logits is off by 9 times what rounding allows"}
    assert not passed(row, Side("torch", "eager"), {"logits": Judged(9.0)})
    assert list(row.failed) == ["torch eager"]


def test_of_several_wrong_results_the_worst_is_named() -> None:
    row = Row("step", "network", "alexnet", 1, ["step"])
    assert not passed(row, Side("scratch"), {"a": Judged(2.0), "b": Judged(0.5), "c": Judged(9.0)})
    assert row.failed == {"scratch": "c is off by 9 times what rounding allows; 2 results are wrong"}
    assert not passed(row, Side("scratch"), {"a": Judged(2.0), "b": Judged(math.nan)})
    assert row.failed == {"scratch": "b is off by nan times what rounding allows; 2 results are wrong"}


def test_the_table_has_the_fastest_first_and_what_is_missing_last() -> None:
    seconds = {"scratch": 0.02, "torch eager": 0.03, "openvino": 0.01}
    row = Row(
        "inference, 1", "peers", "alexnet", 1, ["inference"], absent={"jax": "not installed"},
        rounds=[{side: [[[time]]] * 2 for side, time in seconds.items()}] * 5,
    )  # fmt: skip
    report = Report(rows=[row], libraries={"openvino": {"versions": {"openvino": "2026.4"}, "pools": {}}})
    assert peers.table(report).rows == [
        ["inference, 1", "openvino 2026.4", "10.0", "2.00 [2.00 … 2.00]"],
        ["", "**scratch**", "20.0", "–"],
        ["", "torch eager", "30.0", "0.67 [0.67 … 0.67]"],
        ["", "jax", "–", "not measured: not installed"],
    ]


def test_a_run_that_is_not_trusted_says_so_with_its_margin() -> None:
    quiet, busy = (
        Row(
            "inference, 1", "peers", "alexnet", 1, ["inference"],
            rounds=[{"scratch": [[[1.0]]] * 2, "scratch again": [[[again]]] * 2, "jax": [[[1.1]]] * 2} for again in agains],
        )
        for agains in ((1.0,) * 5, (0.8, 1.2, 0.8, 1.2, 1.0))
    )  # fmt: skip
    assert "not trusted" not in peers.table(Report(rows=[quiet])).caption
    report = Report(rows=[busy])
    table, margin = peers.table(report), f"{report.noise():.0%}"
    assert f"**This run is not trusted**: the same library in two processes differed by up to {margin}" in table.caption
    assert table.caption.endswith(f"A row says noise where its interval reaches within {margin} of 1.")
    assert table.rows[1][3].endswith("noise")


def test_one_tower_is_a_chain() -> None:
    weighted = [layer.name for layer in ONE_TOWER if layer.weight]
    assert weighted == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    for before, layer in itertools.pairwise(ONE_TOWER):
        assert np.prod(before.out) == np.prod(layer.shape)
