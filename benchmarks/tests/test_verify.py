"""Both libraries' results pass the check before timing, and slightly wrong results do not."""

from __future__ import annotations

import numpy as np
import pytest

from alexnet_from_scratch.proof.bounds import Bounded
from benchmarks.subjects import scratch_side, torch_side
from benchmarks.subjects.cases import LADDER, MINI, Layer, Update
from benchmarks.subjects.sides import Side
from benchmarks.subjects.verify import FLOAT32, Judge, Within, own_bound

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
    found = judge.judge(results, rung)
    assert found.keys() == results.keys()
    assert max(one.share for one in found.values()) <= 1
    for name, array in results.items():
        if np.any(array):
            assert judge.judge(results | {name: array * np.float32(1.05)}, rung)[name].share > 1, name
        cut = results | {name: array[..., :-1] if array.ndim else np.stack([array])}
        assert judge.judge(cut, rung)[name] == (np.inf, None), name
    assert len(subject.run()) == len(case.phases)


def test_inputs_are_real_and_repeat() -> None:
    first, again, other = (Judge(1, seed).inputs for seed in (0, 0, 1))
    for case in LADDER:
        x = first.arrays(case)["x"]
        assert np.ptp(x) > 0
        assert np.isfinite(x).all()
        assert np.array_equal(x, again.arrays(case)["x"])
        assert not np.array_equal(x, other.arrays(case)["x"])


def test_errors_are_relative_to_the_right_values() -> None:
    """Of the right values' root mean square: errors of 0, of a hundredth everywhere, and of a tenth in one element of four."""
    value = np.array([1.0, -1.0, 1.0, -1.0])
    check = Within(Bounded(value, np.ones(4), FLOAT32))
    assert check.errors(value) == (0, 0)
    assert check.errors(value * 1.01) == pytest.approx((0.01, 0.01))
    assert check.errors(value + np.array([0, 0, 0.1, 0])) == pytest.approx((0.05, 0.1))
