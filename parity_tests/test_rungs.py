"""Which rung runs: what set_rung and use_rung choose, however a block ends, and the default for work of any size."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scratch
from alexnet_from_scratch.proof.specs import RUNGS, SPECS
from alexnet_from_scratch.xray import photo
from alexnet_from_scratch.xray.operations import OPERATIONS
from parity_tests.steps import Steps
from scratch import conv2d, modules, relu, sgd
from scratch.core import ladder


def chosen() -> dict[str, str | None]:
    """The names of the rungs that are chosen for two operations, in this thread and in another."""

    def here() -> list[str | None]:
        return [None if rung is None else rung.name for rung in (conv2d.RUNGS.chosen(), relu.RUNGS.chosen())]

    with ThreadPoolExecutor(1) as pool:
        return dict(
            zip(("conv2d", "relu", "conv2d elsewhere", "relu elsewhere"), here() + pool.submit(here).result(), strict=True)
        )


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Restores the process's choice; a thread's own choice needs its own thread or context."""
    monkeypatch.setattr(ladder, "_process_choice", {})


# --- interrupts -------------------------------------------------------------------------------------------------------


def interrupted(block: Callable[[], None], k: int) -> BaseException | None:
    """Run the block, interrupted at its k-th step. Return the interrupt, as code that catches it would hold it."""
    before, steps = sys.gettrace(), Steps(k, KeyboardInterrupt, lambda code: True)
    sys.settrace(steps)
    try:
        block()
    except KeyboardInterrupt as interrupt:
        return interrupt
    finally:
        sys.settrace(before)
        assert not steps.lost, f"no interrupt would come at {steps.lost}"
    assert steps.left > 0, f"the interrupt at step {k} was lost"
    return None


def inside(**wanted: str | None) -> None:
    for operation, name in wanted.items():
        rung = getattr(scratch, operation).RUNGS.chosen()
        assert (rung and rung.name) == name


def nested() -> None:
    with scratch.use_rung("naive"), scratch.use_rung(relu="numpy"):
        inside(conv2d="naive", relu="numpy")


def for_the_process() -> None:
    with scratch.use_rung(conv2d="im2col", process=True):
        inside(conv2d="im2col", relu=None)


def after_an_error() -> None:
    with contextlib.suppress(ValueError), scratch.use_rung("naive"):
        inside(conv2d="naive", relu="naive")
        raise ValueError


@pytest.mark.filterwarnings("ignore:use_rung.* has chosen nothing:RuntimeWarning")  # interrupted before its block
@pytest.mark.parametrize("block", [nested, for_the_process, after_an_error])
def test_a_choice_ends_with_its_block_wherever_an_interrupt_comes(block):
    def sweep() -> int:
        before, k = chosen(), 1
        while (interrupt := interrupted(block, k)) is not None:
            assert chosen() == before, f"interrupted at step {k}"
            assert interrupt.__traceback__ is not None  # all the frames are still there
            k += 1
        assert chosen() == before
        return k

    # In a thread: a trace function may raise where Python itself never would, and so corrupt the thread's error state.
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(sweep).result() > 1


# --- what is chosen ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize("process", [False, True])
def test_what_was_chosen_for_another_operation_stays(process):
    def run() -> None:
        scratch.set_rung(conv2d="im2col", process=process)
        scratch.set_rung(relu="numpy", process=process)
        inside(conv2d="im2col", relu="numpy", linear=None)
        scratch.set_rung(conv2d="naive", process=process)
        inside(conv2d="naive", relu="numpy")
        scratch.set_rung("numpy", process=process)  # a choice for all operations replaces those for single ones
        inside(conv2d=None, relu="numpy", linear="numpy")
        with scratch.use_rung(conv2d="im2col", process=process), scratch.use_rung(linear="numba", process=process):
            inside(conv2d="im2col", relu="numpy", linear="numba")
            with scratch.use_rung("naive", process=process):
                inside(conv2d="naive", relu="naive", linear="naive")
            inside(conv2d="im2col", relu="numpy", linear="numba")
        inside(conv2d=None, relu="numpy", linear="numpy")

    contextvars.Context().run(run)
    inside(conv2d=None, relu="numpy" if process else None)


@pytest.mark.usefixtures("_fresh")
def test_a_threads_choice_goes_before_the_processs():
    scratch.set_rung(relu="numpy", process=True)
    with scratch.use_rung("naive"):  # although this is for all operations
        assert chosen()["relu"] == "naive"
        assert chosen()["relu elsewhere"] == "numpy"


def test_a_block_takes_its_own_choice_back_and_no_other():
    """Blocks of several threads need not end in the order in which they began."""
    first, second = contextlib.ExitStack(), contextlib.ExitStack()
    first.enter_context(scratch.use_rung(relu="naive", process=True))
    second.enter_context(scratch.use_rung(relu="numpy", process=True))
    first.close()
    inside(relu="numpy")
    second.close()
    inside(relu=None)


@pytest.mark.usefixtures("_fresh")
def test_a_block_may_go_while_choices_are_looked_through():
    """As garbage, which Python before 3.12 collects whenever something is made."""
    thresholds = gc.get_threshold()
    gc.freeze()  # collecting is quick then
    with contextlib.ExitStack() as blocks:
        blocks.callback(gc.unfreeze)
        for _ in range(40):
            blocks.enter_context(scratch.use_rung(relu="naive", process=True))
        for made in range(1, 100):
            gc.collect()
            gc.disable()
            gone = scratch.use_rung(relu="numpy", process=True)
            gone.__enter__()
            cycle: list[Any] = [gone]
            cycle.append(cycle)
            del gone, cycle
            gc.set_threshold(made, 10, 10)
            gc.enable()
            try:
                list(ladder._choices())
            finally:
                gc.set_threshold(*thresholds)
        gc.collect()
        assert {choice["relu"] for choice in ladder._choices() if choice} == {"naive"}


def test_a_choice_is_for_one_block():
    choice = scratch.use_rung("naive")
    with choice:
        inside(relu="naive")
    inside(relu=None)  # although the choice is still there
    with (
        pytest.raises(
            RuntimeError, match=r"use_rung: a choice must be used for one block only, got a second block for use_rung\('naive'\)"
        ),
        choice,
    ):
        pass


def test_a_choice_without_a_block_says_so():
    with pytest.warns(RuntimeWarning, match=r"use_rung\(relu='naive'\) has chosen nothing.*set_rung"):
        scratch.use_rung(relu="naive")
    inside(relu=None)


@pytest.mark.parametrize("choose", [scratch.use_rung, scratch.set_rung])
@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        (("fastest",), {}, ValueError, "no operation has a rung 'fastest'; the rungs are .*'naive'"),
        (([],), {}, ValueError, r"no operation has a rung \[\]"),
        ((), {"relu": "im2col"}, ValueError, r"relu has no rung 'im2col'; its rungs are \['naive', 'numpy', 'numba'\]"),
        ((), {"relu": None}, ValueError, "relu has no rung None"),
        ((), {"rule": "naive"}, ValueError, "no operation 'rule'; the operations are .*'relu'"),
        (("naive",), {"process": "yes"}, TypeError, "process must be True or False, got 'yes'"),
    ],
)
def test_a_choice_that_is_none(choose, names, options, error, message):
    with pytest.raises(error, match=f"{choose.__name__}: {message}"):
        choose(*names, **options)
    inside(relu=None)


# --- the default ------------------------------------------------------------------------------------------------------


def ran(operation: str, *arrays: np.ndarray, **params: Any) -> str:
    _, cache = getattr(scratch, operation).forward(*arrays, **params)
    return cache.rung.name


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("batch", "C", "side", "OC", "groups", "rung"),
    [
        (1, 3, 32, 8, 1, "numba"),
        (1, 4, 13, 4, 1, "numba"),
        (2, 16, 16, 16, 1, "numba"),
        (7, 1, 4, 1, 1, "numba"),
        (8, 1, 4, 1, 1, "implicit_gemm"),  # with many images numba is slower, however small they are
        (2, 64, 16, 64, 1, "implicit_gemm"),
        (2, 64, 32, 64, 1, "winograd"),
        (2, 64, 32, 64, 4, "implicit_gemm"),  # a quarter of the multiplications
        (8, 64, 32, 64, 4, "winograd"),
        (16, 64, 32, 64, 8, "implicit_gemm"),  # too few channels in a group
        (64, 1, 28, 32, 1, "implicit_gemm"),
        (64, 32, 28, 8, 1, "implicit_gemm"),
    ],
)
def test_small_work_runs_on_a_rung_that_is_worth_it(batch, C, side, OC, groups, rung):
    x, weight = zeros(batch, C, side, side), zeros(OC, C // groups, 3, 3)
    assert ran("conv2d", x, weight, padding=1, groups=groups) == rung
    with scratch.use_rung("winograd"):
        assert ran("conv2d", x, weight, padding=1, groups=groups) == "winograd"


@pytest.mark.parametrize(
    ("rows", "IN", "OUT", "rung"), [(1, 64, 64, "numpy"), (64, 64, 64, "numpy"), (65, 64, 64, "numba"), (1, 512, 513, "numba")]
)
def test_a_small_product_is_blass(rows, IN, OUT, rung):
    assert ran("linear", zeros(rows, IN), zeros(OUT, IN)) == rung
    with scratch.use_rung("numba"):
        assert ran("linear", zeros(rows, IN), zeros(OUT, IN)) == "numba"


WITH_PRICES = [(spec, rung) for spec, rung in RUNGS if spec.scratch.RUNGS[rung].worth_it is not ladder._always]


@pytest.mark.parametrize(("spec", "rung"), WITH_PRICES, ids=str)
def test_a_rung_chosen_by_name_runs_work_of_any_size(spec, rung):
    """With the generic test's draws: most are too small for the rung to pay off, and it runs all that it can compute."""
    reached = []

    @settings(max_examples=100, derandomize=True, database=None)
    @given(data=st.data())
    def draw(data: Any) -> None:
        case = spec.call(data.draw, rung, np.dtype(np.float32))
        if not spec.declines(rung, case):
            with scratch.use_rung(rung):
                _, cache = spec.scratch.forward(*case.arrays, **case.params)
            assert cache.rung.name == rung
            _, by_default = spec.scratch.forward(*case.arrays, **case.params)
            reached.append(by_default.rung.name != rung)

    draw()
    assert sum(reached) >= 10  # that many the default would have given to another rung


def test_the_xray_shows_every_rung_however_small_its_arrays():
    page = OPERATIONS["conv2d"](photo.load(None, None), size=6, channels=2, kernel=3, stride=1)
    for name in ("out", "grad_x", "grad_weight"):
        assert list(page.panel(name).rungs) == list(conv2d.RUNGS), name


# --- what a cache says ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.name != "sgd"], ids=str)
@given(data=st.data())
def test_a_cache_says_in_short_what_it_is_of(spec, data):
    case = spec.call(data.draw, "naive", np.dtype(np.float32))
    out, cache = spec.scratch.forward(*case.arrays, **case.params)
    outs = out if isinstance(out, tuple) else (out,)
    assert repr(cache) == f"<cache of {spec.name}.forward by {cache.rung.name}: {case.dtype} {outs[0].shape}>"


def test_nothing_that_holds_arrays_prints_them():
    layer = modules.Conv2d(3, 64, 3)
    network = modules.Sequential(layer, modules.ReLU())
    network(np.zeros((1, 3, 64, 64), np.float32))
    optimizer = sgd.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for shown in (network, layer, layer.weight, optimizer, conv2d.RUNGS, conv2d.RUNGS["naive"]):
        assert len(repr(shown)) < 200, type(shown)
        assert "[[" not in repr(shown)
