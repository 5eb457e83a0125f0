"""The same input gives the same bits: in every run, with any number of threads, from eight Python threads, in a forked child."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import scratch
from alexnet_from_scratch.proof.draws import Case, fewer, values
from alexnet_from_scratch.proof.specs import RUNGS, Spec
from scratch.compiled import threads as workers

FLOAT32 = np.dtype(np.float32)
COMPILED = [row for row in RUNGS if row[1] not in ("naive", "numpy", "im2col")]


@pytest.fixture(autouse=True)
def _threads():
    """Restores the number of threads; and lets even small work use another thread, or there would be nothing to test."""
    threads, worth_a_thread = scratch.get_num_threads(), workers.WORTH_A_THREAD
    workers.WORTH_A_THREAD = 1
    yield
    workers.WORTH_A_THREAD = worth_a_thread
    scratch.set_num_threads(threads)


def digest(spec: Spec, rung: str, case: Case, g: np.ndarray) -> str:
    """A digest of all bits of a forward and a backward pass."""
    with scratch.use_rung(rung):
        out, cache = spec.scratch.forward(*case.arrays, **case.params)
        outs = out if isinstance(out, tuple) else (out,)
        gradients = spec.scratch.backward(g, cache)
    results = [array for array in (*outs, *gradients) if array is not None]
    return hashlib.sha256(b"".join(array.tobytes() for array in results)).hexdigest()


def cotangent(spec: Spec, case: Case) -> np.ndarray:
    out, _ = spec.scratch.forward(*case.arrays, **case.params)
    shape = (out[0] if isinstance(out, tuple) else out).shape
    return np.random.default_rng(1).standard_normal(shape).astype(FLOAT32)


@pytest.mark.parametrize(("spec", "rung"), COMPILED, ids=str)
@fewer
@given(data=st.data())
def test_any_number_of_threads_gives_the_same_bits(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT32, True))
    out = cotangent(spec, case)
    g = data.draw(values(FLOAT32, out.shape, "reals"))
    digests = set()
    for threads in (1, 2, 3, 7, 2):
        scratch.set_num_threads(threads)
        digests.add(digest(spec, rung, case, g))
    assert len(digests) == 1, str(case)


def big_case(spec: Spec, rung: str) -> Case:
    """A call that the rung takes and that keeps several threads busy."""
    normal = np.random.default_rng(0).standard_normal

    def array(*shape: int) -> np.ndarray:
        return normal(shape).astype(FLOAT32)

    arrays: dict[str, tuple[Any, ...]] = {
        "conv2d": (array(2, 8, 17, 19), array(18, 4, 3, 3), array(18)),
        "linear": (array(16, 300), array(250, 300), array(250)),
        "cross_entropy": (array(64, 10), np.arange(64) % 10),
        "sgd": (array(5000), array(5000)),
    }
    params: dict[str, dict[str, Any]] = {
        "conv2d": {"stride": 1 if rung == "winograd" else 2, "padding": 1, "groups": 2},
        "local_response_norm": {"size": 5},
        "max_pool2d": {"kernel_size": 3, "stride": 2},
        "adaptive_avg_pool2d": {"output_size": 6},
        "dropout": {"mask": normal((4, 6, 20, 21)) > 0},
        "sgd": {"lr": (0.1,), "momentum": 0.9},
    }
    return Case(arrays.get(spec.name, (array(4, 6, 20, 21),)), params.get(spec.name, {}), "normal")


@pytest.mark.parametrize(("spec", "rung"), COMPILED, ids=str)
def test_the_rung_takes_its_big_case(spec, rung):
    """Otherwise the tests below would run another rung."""
    case = big_case(spec, rung)
    with scratch.use_rung(rung):
        _, cache = spec.scratch.forward(*case.arrays, **case.params)
    assert cache.rung.name == rung


@pytest.mark.parametrize(("spec", "rung"), COMPILED, ids=str)
def test_eight_python_threads_at_once(spec, rung):
    case = big_case(spec, rung)
    g = cotangent(spec, case)
    alone = digest(spec, rung, case, g)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda _: digest(spec, rung, case, g), range(32)))
    assert set(together) == {alone}


class Digests(torch.utils.data.Dataset):
    """Every item takes a forward and a backward pass of a compiled rung."""

    def __len__(self) -> int:
        return len(COMPILED)

    def __getitem__(self, i: int) -> str:
        spec, rung = COMPILED[i]
        case = big_case(spec, rung)
        return digest(spec, rung, case, cotangent(spec, case))


@pytest.mark.posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_data_loaders_forked_workers_compute_the_same():
    scratch.set_num_threads(3)
    here = [Digests()[i] for i in range(len(COMPILED))]  # starts threads, which a forked worker does not have
    loader = torch.utils.data.DataLoader(Digests(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=120)
    assert list(loader) == here
