"""The statistics on made-up samples with known answers. There is no clock."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.measure import stats


def noisy(rounds: int, times: float, *, seed: int, noise: float = 0.03) -> list[float]:
    return list(times * np.exp(noise * np.random.default_rng(seed).standard_normal(rounds)))


def test_no_difference_is_called_the_same() -> None:
    found = [stats.ratio(noisy(15, 0.2, seed=2 * i), noisy(15, 0.2, seed=2 * i + 1)) for i in range(200)]
    assert np.mean([r.verdict == "same" for r in found]) >= 0.92  # 95 % intervals, 15 rounds


def test_ten_percent_is_found_and_sized() -> None:
    found = [stats.ratio(noisy(15, 0.22, seed=2 * i), noisy(15, 0.2, seed=2 * i + 1)) for i in range(200)]
    assert all(r.verdict == "slower" for r in found)
    assert np.median([r.median for r in found]) == pytest.approx(1.1, rel=0.01)
    assert np.mean([r.contains(1.1) for r in found]) >= 0.92


def test_a_drift_that_both_share_does_not_matter() -> None:
    drift = np.linspace(1, 2, 15)  # at the end, the machine takes twice as long
    slow, fast = drift * noisy(15, 0.22, seed=0), drift * noisy(15, 0.2, seed=1)
    found, steady = stats.ratio(list(slow), list(fast)), stats.ratio(noisy(15, 0.22, seed=0), noisy(15, 0.2, seed=1))
    assert (found.median, found.low, found.high) == pytest.approx((steady.median, steady.low, steady.high))


def test_a_few_outliers_do_not_matter() -> None:
    slow, fast = noisy(15, 0.22, seed=0), noisy(15, 0.2, seed=1)
    for i in (3, 8, 12):
        fast[i] *= 10
    found = stats.ratio(slow, fast)
    assert found.verdict == "slower"
    assert found.median == pytest.approx(1.1, rel=0.03)


def test_the_ratio_is_symmetric() -> None:
    a, b = noisy(9, 3, seed=0), noisy(9, 2, seed=1)
    there, back = stats.ratio(a, b), stats.ratio(b, a)
    assert there.median == pytest.approx(1 / back.median)
    assert there.low == pytest.approx(1 / back.high, rel=0.01)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0]), ([1.0], [float("nan")])])
def test_what_cannot_be_compared_is_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="ratio"):
        stats.ratio(first, second)


def test_trust_needs_one_inside_a_narrow_interval() -> None:
    good = stats.Ratio(1.01, 0.99, 1.02, 9)
    assert stats.distrust([good, good]) == ""
    assert stats.distrust([good, stats.Ratio(1.02, 1.009, 1.03, 9), stats.Ratio(0.98, 0.97, 0.991, 9)]) == ""
    for differs in (stats.Ratio(1.02, 1.011, 1.03, 9), stats.Ratio(0.98, 0.97, 0.989, 9)):
        assert "more than 1% from 1.00" in stats.distrust([good, differs])
    assert stats.resolution([good, stats.Ratio(1.0, 0.8, 1.1, 9)]) == pytest.approx(0.25)
    assert "no A/A" in stats.distrust([])


def test_change_between_runs_counts_the_noise_of_both() -> None:
    steady = stats.Ratio(1.0, 0.98, 1.02, 9)
    assert (stats.Ratio(1.1, 1.08, 1.12, 9) / steady).verdict == "slower"
    assert (stats.Ratio(1.1, 0.95, 1.30, 9) / steady).verdict == "same"
    assert (steady / stats.Ratio(1.1, 1.08, 1.12, 9)).verdict == "faster"


def test_exponent_of_a_power_law() -> None:
    sizes = [1, 2, 4, 8, 16]
    assert stats.exponent(sizes, [3 * s**1.5 for s in sizes]) == pytest.approx(1.5)
    with pytest.raises(ValueError, match="two sizes"):
        stats.exponent([4, 4], [1.0, 2.0])


def test_the_width_is_the_same_wherever_the_interval_lies() -> None:
    assert stats.Ratio(1.0, 0.95, 1.05, 9).width == pytest.approx(stats.Ratio(3.0, 2.85, 3.15, 9).width)
    assert stats.Ratio(2.0, 1.0, 4.0, 9).width == pytest.approx(1.0)
