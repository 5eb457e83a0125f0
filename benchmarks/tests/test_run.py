"""Verify, then time: objects that count how often they are timed replace the processes. No clock matters here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.measure import pairing
from benchmarks.measure.processes import WorkerError
from benchmarks.measure.run import FIRST_LOOK, Settings, blank, measure
from benchmarks.reports.results import Report, Row
from benchmarks.subjects.cases import CASES, Layer, Network, choose
from benchmarks.subjects.sides import Side
from benchmarks.subjects.verify import checks, judged
from torch_impl.alexnet import AlexNet

RELU = next(case for case in CASES if case.name == "small relu")
ONE = pairing.Effort(turn=0, passes=1, rounds=(5, 5), case=0)


class Judge:
    """Checks relu as the real one does, on two numbers."""

    def __init__(self) -> None:
        self.arrays = {"x": np.array([-1.0, 2.0], np.float32), "grad_out": np.array([3.0, 4.0], np.float32)}

    def ask(self, command, *arguments):
        assert isinstance(RELU, Layer)
        if command == "arrays":
            return self.arrays
        found = checks(RELU, self.arrays, "")
        return {name: judged(check, arguments[0].get(name)) for name, check in found.items()}


class Actor:
    """A library whose relu returns a given result, and that records whether it was timed."""

    def __init__(self, results=None, error=None) -> None:
        self.given = results or {"out": np.array([0, 2], np.float32), "grad_x": np.array([0, 4], np.float32)}
        self.error = error
        self.turns = 0

    def ask(self, command, *arguments):
        if command == "prepare" and self.error:
            raise WorkerError(self.error)
        if command == "turn":
            self.turns += 1
            return [[0.5, 0.5]], 0.0
        return {"results": (self.given, "numba"), "seconds": 1.0}.get(command)


def play(case=RELU, **actors):
    sides = {name: Side("scratch") if name == "scratch" else Side("torch", name) for name in actors}
    row = blank(case, 32, threads=2)
    names = {side.name: actors[name] for name, side in sides.items()}
    measure(row, case, list(sides.values()), lambda side: names[side.name], Judge(), ONE, lambda what: None)
    return row


@pytest.mark.parametrize(("slower", "spread", "rounds"), [(1.0, 0.0, FIRST_LOOK), (1.3, 0.0, FIRST_LOOK), (1.0, 1.0, 50)])
def test_twins_are_timed_until_noise_is_small_wherever_they_lie(slower: float, spread: float, rounds: int) -> None:
    rng = np.random.default_rng(0)

    class Noisy(Actor):
        def ask(self, command, *arguments):
            answer = super().ask(command, *arguments)
            seconds = slower * 0.5 * float(np.exp(spread * rng.standard_normal()))
            return ([[seconds] * 2], 0.0) if command == "turn" else answer

    sides = {Side("scratch").name: Actor(), Side("scratch", again=True).name: Noisy(), Side("torch", "eager").name: Actor()}
    row = blank(RELU, 32, threads=2)
    effort = replace(ONE, rounds=(50, 50))
    everybody = [Side("scratch"), Side("torch", "eager"), Side("scratch", again=True)]
    measure(row, RELU, everybody, lambda side: sides[side.name], Judge(), effort, lambda what: None)
    assert len(row.rounds) == rounds


def test_what_is_right_is_timed() -> None:
    ours, theirs = Actor(), Actor()
    row = play(scratch=ours, eager=theirs)
    assert ours.turns == theirs.turns == 2 * 5
    assert row.checked == {"scratch": 0, "torch eager": 0}
    assert row.errors["scratch"] == {"out": [0, 0], "grad_x": [0, 0]}
    assert row.ran["scratch"] == "numba"
    assert len(row.rounds) == 5
    assert not row.failed


@pytest.mark.parametrize(
    "wrong",
    [
        {"out": np.array([0, 2], np.float32), "grad_x": np.array([3, 4], np.float32)},
        {"out": np.array([0, 2.0001], np.float32), "grad_x": np.array([0, 4], np.float32)},
        {"out": np.array([np.nan, 2], np.float32), "grad_x": np.array([0, 4], np.float32)},
        {"out": np.array([[0, 2]], np.float32), "grad_x": np.array([0, 4], np.float32)},
        {"out": np.array([0, 2], np.float32)},
    ],
    ids=["gradient", "output", "nan", "shape", "missing"],
)
def test_a_wrong_kernel_is_never_timed(wrong) -> None:
    ours, theirs = Actor(wrong), Actor()
    row = play(scratch=ours, eager=theirs)
    assert ours.turns == theirs.turns == 0
    assert "scratch" in row.failed
    assert Report(rows=[row]).failures()


def test_a_wrong_side_of_torch_is_left_out_and_reported() -> None:
    ours, wrong, right = Actor(), Actor({"out": np.zeros(2, np.float32)}), Actor()
    row = play(scratch=ours, channels_last=wrong, eager=right)
    assert (ours.turns, wrong.turns, right.turns) == (10, 0, 10)
    assert list(row.failed) == ["torch channels_last"]


def test_no_compiler_is_no_failure() -> None:
    row = play(scratch=Actor(), eager=Actor(), compile=Actor(error="...\nInvalidCxxCompiler: no C++ compiler"))
    assert row.absent == {"torch compile": "InvalidCxxCompiler: no C++ compiler"}
    assert row.sides == ["scratch", "torch eager"]
    assert not row.failed


def test_a_process_that_died_is_left_out_and_the_run_goes_on() -> None:
    class Dead(Actor):
        def ask(self, command, *arguments):
            raise WorkerError("the process ended with code -6")

    ours = Actor()
    row = play(scratch=ours, eager=Actor(), compile=Dead())
    assert row.absent == {"torch compile": "the process ended with code -6"}
    assert ours.turns == 10


def test_a_crash_of_scratch_is_a_failure() -> None:
    ours, theirs = Actor(error="...\nZeroDivisionError: division by zero"), Actor()
    row = play(scratch=ours, eager=theirs)
    assert row.failed == {"scratch": "ZeroDivisionError: division by zero"}
    assert theirs.turns == 0


def test_there_is_always_an_a_a_row() -> None:
    for ops in ("relu1", "fc8", "small norm", "sgd", None):
        settings = Settings(choose(ops, {"layer", "network", "ladder"}), ONE, threads=2)
        twins = [side for case in settings.cases for side in settings.sides(case) if side.again]
        assert {side.library for side in twins} == {"scratch", "torch"}, ops


def test_sides_have_names_of_their_own() -> None:
    settings = Settings(list(CASES), ONE, threads=2, slow={"conv2d": 1.1}, rungs=("all",))
    for case in CASES:
        names = [side.name for side in settings.sides(case)]
        assert len(set(names)) == len(names)


def test_naive_loops_run_on_small_sizes_only() -> None:
    settings = Settings(list(CASES), ONE, threads=2, rungs=("all",))
    for case in CASES:
        naive = [side for side in settings.sides(case) if side.mode == "naive"]
        assert bool(naive) == (case.group == "ladder")


def test_cases_fit_together() -> None:
    layers = {case.name: case for case in CASES if isinstance(case, Layer)}
    for layer in layers.values():
        if layer.source and layer.group not in ("ladder", "shapes"):
            source = layers[layer.source].out
            assert np.prod(source) == np.prod(layer.shape), layer.name
    assert len({case.name for case in CASES}) == len(CASES)


def test_networks_also_run_without_winograd_and_the_default_comes_last() -> None:
    settings = Settings(choose("one_tower step,conv3", {"layer"}), ONE, threads=2)
    ours = [
        [side.name for side in settings.sides(case) if side.library == "scratch" and not side.again] for case in settings.cases
    ]
    assert ours == [["scratch"], ["scratch implicit_gemm", "scratch"]]


def test_twins_of_every_row_do_not_judge_the_run() -> None:
    settings = Settings(choose("pool1,fc8", {"layer"}), ONE, threads=2, twins=True)
    assert all(any(side.again for side in settings.sides(case)) for case in settings.cases)
    assert settings.controls == ["pool1"]
    turn, other = [[[1.0]], [[1.0]]], [[[2.0]], [[2.0]]]
    rows = [
        Row(case, "layer", "it", 8, ["forward"], rounds=[{"scratch": turn, "scratch again": again}] * 30)
        for case, again in (("pool1", turn), ("fc8", other))
    ]
    assert not Report(settings={"controls": settings.controls}, rows=rows).distrust()
    assert Report(rows=rows).distrust()


def test_only_conv1_leaves_out_the_gradient_of_its_input() -> None:
    layers = [case for case in CASES if isinstance(case, Layer)]
    assert [layer.name for layer in layers if not layer.needs_grad_x] == ["conv1"]
    with_it = next(layer for layer in layers if layer.name == "conv1 with the images' gradient")
    without = next(layer for layer in layers if layer.name == "conv1")
    assert with_it.flops("backward", 2) == 2 * without.flops("backward", 2)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="conv9"):
        choose("conv1,conv9", {"layer"})


def test_threads_that_differ_and_pools_that_spin_are_not_trusted() -> None:
    turn = [[[1.0]], [[1.0]]]
    rounds = [{"scratch": turn, "scratch again": turn} for _ in range(5)]
    good = Row("relu1", "layer", "relu", 32, ["forward"], rounds=rounds)
    pools = {"scratch": {"versions": {}, "pools": {"scratch": 2, "openblas": 2}}}
    assert Report(settings={"threads": 2}, libraries=pools, rows=[good]).distrust() == ""
    assert Report(settings={"threads": 1}, libraries=pools, rows=[good]).distrust() == "scratch of scratch has 2 threads, not 1"
    shaken = [{"scratch": turn, "scratch again": [[[factor]], [[factor]]]} for factor in (0.7, 0.8, 1.0, 1.2, 1.4)]
    noisy = Row("relu1", "layer", "relu", 32, ["forward"], rounds=shaken)
    assert "too busy" in Report(settings={"threads": 2}, libraries=pools, rows=[noisy]).distrust()
    good.leaked = 0.3
    assert "idle processes used 30%" in Report(settings={"threads": 2}, libraries=pools, rows=[good]).distrust()


@pytest.mark.parametrize("case", [case for case in CASES if isinstance(case, Network)], ids=lambda case: case.name)
def test_multiplications_of_a_network_are_those_of_its_layers(case) -> None:
    """Counted in torch's own model, on an image of zeros: a convolution's output size times the taps of each element."""
    counts: list[int] = []

    def count(module, inputs, out):
        counts.append(out[0].numel() // module.weight.shape[0] * module.weight.numel())

    with torch.device("meta"):
        model = AlexNet(case.variant, device="meta")
        for module in model.modules():
            if hasattr(module, "weight"):
                module.register_forward_hook(count)
        model(torch.zeros(1, 3, case.size, case.size))
    assert case.macs == pytest.approx(sum(counts), rel=0.002)
    assert case.first == pytest.approx(counts[0], rel=0.01)
