"""Both libraries' results pass the check before timing, and slightly wrong results do not."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.subjects import scratch_side, torch_side
from benchmarks.subjects.cases import LADDER, MINI, Layer, Update
from benchmarks.subjects.sides import Side
from benchmarks.subjects.verify import Judge, own_bound

CASES = [*LADDER, MINI, Update("mini sgd", "mini", 551_146)]
LIBRARIES = {"scratch": scratch_side, "torch": torch_side}


@pytest.fixture(scope="module")
def judge():
    return Judge(1, 0)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_results_are_checked_one_by_one(case, library, judge) -> None:
    arrays = judge.arrays(case)
    subject = LIBRARIES[library].prepare(Side(library), case, arrays, copies=2)
    results = subject.results()
    if isinstance(case, Layer):
        expected = {"out"} | {f"grad_{name}" for name in ("x", "weight", "bias") if name in arrays}
        assert results.keys() == expected
    rung = own_bound(case, subject.note)
    shares = judge.shares(results, rung)
    assert shares.keys() == results.keys()
    assert max(shares.values()) <= 1
    for name, array in results.items():
        if np.any(array):
            assert judge.shares(results | {name: array * np.float32(1.05)}, rung)[name] > 1, name
        assert judge.shares(results | {name: array[..., :-1] if array.ndim else np.stack([array])}, rung)[name] == np.inf, name
    assert len(subject.run()) == len(case.phases)


def test_inputs_are_real_and_repeat() -> None:
    first, again, other = (Judge(1, seed).inputs for seed in (0, 0, 1))
    for case in LADDER:
        x = first.arrays(case)["x"]
        assert np.ptp(x) > 0
        assert np.isfinite(x).all()
        assert np.array_equal(x, again.arrays(case)["x"])
        assert not np.array_equal(x, other.arrays(case)["x"])
