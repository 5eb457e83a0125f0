"""What all operations share: the ladder and the choice of a rung, checks of arguments, words for kernels."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratch
from alexnet_from_scratch.proof.specs import SPECS
from scratch.compiled import exponential, jit, threads, vectors
from scratch.convolution.winograd_transforms import interleave
from scratch.core import checks

relu: Any = scratch.relu  # Any: what the types forbid must also raise
conv2d: Any = scratch.conv2d
X = np.array([-1.0, 2.0])


def rung_of(operation: Any) -> str:
    """The rung that runs."""
    _, cache = operation.forward(X) if operation is relu else operation.forward(np.ones((1, 2, 3)), np.ones((4, 1, 1, 1)))
    return cache.rung.name


# --- the ladder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_every_rung_has_an_idea(spec):
    for name, rung in spec.scratch.RUNGS.items():
        assert rung.name == name
        assert rung.idea.endswith("."), name


def test_a_ladder_reads_from_slow_to_fast():
    assert repr(relu.RUNGS) == "<relu: naive → numpy → numba>"
    assert len(relu.RUNGS) == 3


def test_an_optimizers_rung_has_no_backward():
    with pytest.raises(TypeError, match="it has no backward pass"):
        scratch.sgd.RUNGS["numba"].backward()


def test_backward_wants_its_own_forwards_cache():
    out, cache = relu.forward(X)
    with pytest.raises(TypeError, match=r"softmax.backward: cache must come from softmax.forward, got relu.forward's"):
        scratch.softmax.backward(out, cache)
    with pytest.raises(TypeError, match=r"relu.backward: cache must come from relu.forward, got dict"):
        relu.backward(out, {})


def test_backward_checks_its_gradient():
    _, cache = relu.forward(X)
    with pytest.raises(ValueError, match=r"relu.backward: grad_out must have the output's shape \(2,\), got \(3,\)"):
        relu.backward(np.ones(3), cache)
    with pytest.raises(TypeError, match=r"relu.backward: grad_out must be float64 like the input, got float32"):
        relu.backward(np.ones(2, np.float32), cache)


# --- use_rung ---------------------------------------------------------------------------------------------------------


def test_a_choice_ends_with_its_block():
    assert rung_of(relu) == "numba"
    with scratch.use_rung("naive"):
        assert rung_of(relu) == "naive"
        with scratch.use_rung(relu="numpy"):
            assert rung_of(relu) == "numpy"
            assert rung_of(conv2d) == "naive"
        assert rung_of(relu) == "naive"
    assert rung_of(relu) == "numba"


def test_a_choice_for_all_replaces_those_for_single_operations():
    with scratch.use_rung(relu="naive"), scratch.use_rung("numpy"):
        assert rung_of(relu) == "numpy"


def test_an_operation_without_the_rung_keeps_its_default():
    with scratch.use_rung("im2col"):
        assert rung_of(relu) == "numba"
        assert rung_of(conv2d) == "im2col"


def test_a_choice_is_the_threads_own_or_the_processs():
    def in_another_thread() -> str:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(rung_of, relu).result()

    with scratch.use_rung("naive"):
        assert in_another_thread() == "numba"
    with scratch.use_rung("naive", process=True):
        assert in_another_thread() == "naive"
        with scratch.use_rung("numpy"):  # a thread's own choice overrides the process's
            assert rung_of(relu) == "numpy"
    assert in_another_thread() == "numba"


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (lambda: scratch.use_rung("fastest"), "no operation has a rung 'fastest'; the rungs are .*'naive'"),
        (lambda: scratch.use_rung(relu="im2col"), r"relu has no rung 'im2col'; its rungs are \['naive', 'numpy', 'numba'\]"),
        (lambda: scratch.use_rung(rule="naive"), "no operation 'rule'; the operations are .*'relu'"),
    ],
)
def test_a_rung_that_is_not_there(choose, message):
    with pytest.raises(ValueError, match=f"use_rung: {message}"):
        choose()


# --- checks -----------------------------------------------------------------------------------------------------------


def test_numbers_of_numpys_count():
    assert checks.integer("f", "n", np.int8(3)) == 3
    assert checks.real("f", "x", np.float32(0.5)) == 0.5
    assert checks.flag("f", "yes", np.bool_(True)) is True


@pytest.mark.parametrize(
    ("check", "error", "message"),
    [
        (lambda: checks.integer("f", "n", 2**63), ValueError, "f: n must fit into 64 bits, got 9223372036854775808"),
        (lambda: checks.integer("f", "n", np.bool_(True)), TypeError, "f: n must be an int, got"),
        (lambda: checks.pair("f", "n", (1, 2, 3), low=0), ValueError, r"f: n must be an int or a pair of ints, got \(1, 2, 3\)"),
        (lambda: checks.probability("f", "p", float("nan")), ValueError, "f: p must lie between 0 and 1, got nan"),
    ],
)
def test_what_checks_refuse(check, error, message):
    with pytest.raises(error, match=message):
        check()


def test_a_pair_of_one_counts_twice():
    assert checks.pair("f", "n", (3,), low=0) == (3, 3)


# --- kernels ----------------------------------------------------------------------------------------------------------


@jit.kernel
def exp_of(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.size):
        out[i] = exponential.exp(x[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exp_errs_by_less_than_it_says(dtype):
    precise = np.longdouble if np.finfo(np.longdouble).nmant > np.finfo(dtype).nmant else None
    if precise is None:
        pytest.skip("nothing here is more precise than float64")
    lowest = np.log(np.finfo(dtype).tiny)
    rng = np.random.default_rng(0)
    count = 2_000 if jit.JIT_OFF else 300_000
    x = np.concatenate([rng.uniform(low, 0, count).astype(dtype) for low in (lowest, -2, -1e-3)])
    out = np.empty_like(x)
    exp_of(x, out)
    expected = np.exp(x.astype(precise))
    assert (np.abs(out - expected) / np.spacing(expected.astype(dtype))).max() < 1.3


def test_exp_at_the_edges():
    x = np.array([0, -0.0, -100, -np.inf, np.nan], np.float32)
    out = np.empty_like(x)
    with np.errstate(all="ignore"):  # uncompiled, NumPy would warn
        exp_of(x, out)
    np.testing.assert_array_equal(out, np.array([1, 1, 0, 0, np.nan], np.float32))


@jit.kernel
def sums(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    return vectors.total(a), vectors.dot(a, 2, b, 1, a.size - 2)


@jit.kernel
def largest(row: np.ndarray) -> float:
    return vectors.largest(row)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reductions_take_every_element_once(dtype):
    rng = np.random.default_rng(0)
    for n in [*range(2, 40), 127, 128, 129, 1000, 4099]:
        a, b = rng.integers(-50, 50, (2, n)).astype(dtype)  # sums of whole numbers are exact
        assert sums(a, b) == (a.sum(), a[2:] @ b[1 : n - 1])
        assert largest(a) == a.max()
        for i in range(n):
            row = np.full(n, -np.inf, dtype)
            row[i - 1], row[i] = np.nan, i
            assert largest(row) == i
    assert largest(np.full(2, -np.inf, dtype)) == largest(np.empty(0, dtype)) == -np.inf


@pytest.mark.skipif(jit.JIT_OFF, reason="nothing is compiled")
@jit.kernel
def _interleaved(
    source: np.ndarray, even_at: int, odd_at: int, addend: Any, target: np.ndarray, target_at: int, count: int
) -> None:
    interleave(source, even_at, odd_at, addend, target, target_at, count)


@pytest.mark.parametrize("dtype", checks.FLOATS, ids=str)
def test_two_vectors_are_interleaved_as_far_as_they_are_wanted(dtype):
    source = np.arange(80, dtype=dtype)
    L = vectors.lanes(source)
    for count in range(2 * L + 1):
        target = np.full(2 * L + 2, -1, dtype)
        _interleaved(source, 3, 40, dtype.type(0.5), target, 1, count)
        wanted = np.stack([source[3 : 3 + L], source[40 : 40 + L]], 1).ravel() + 0.5
        np.testing.assert_array_equal(target, [-1, *wanted[:count], *[-1] * (2 * L - count + 1)])


@pytest.mark.skipif(jit.JIT_OFF, reason="nothing is compiled")
def test_words_for_vectors_want_neighbours():
    with pytest.raises(TypeError, match="take 1-D, C-contiguous arrays, got array\\(float64, 1d, A\\)"):
        largest(np.zeros((4, 4))[:, 0])


@pytest.mark.skipif(jit.JIT_OFF, reason="nothing is compiled")
def test_a_kernel_is_compiled_anew_when_a_file_of_its_words_changed(tmp_path):
    shutil.copytree(Path(scratch.__file__).parent, tmp_path / "scratch", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "SCRATCH_VECTOR_BITS")}

    def log_of_half() -> float:
        code = "import numpy, scratch.log_softmax as it; print(it.forward(numpy.zeros(2), dim=0)[0][0])"
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return float(run.stdout)

    assert log_of_half() == pytest.approx(math.log(1 / 2))
    file = tmp_path / "scratch" / "compiled" / "exponential.py"  # rows.py uses its exp, and log_softmax.py uses rows.py
    file.write_text(file.read_text().replace("series * power", "2 * series * power"))
    assert log_of_half() == pytest.approx(math.log(1 / 4))


def test_at_the_start_there_is_a_thread_for_each_core(monkeypatch):
    monkeypatch.delenv("SCRATCH_NUM_THREADS", raising=False)
    assert 1 <= threads._threads_at_the_start() <= (os.cpu_count() or 1)
