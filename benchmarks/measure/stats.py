"""What the samples say: the ratio of two libraries with an interval, and whether the run can be trusted.

The machine drifts: its clock, its other tenants, its temperature. Two measurements of one round are close in time and drift
together, so the ratio is taken within each round and only then summarized. The summary is the median, which a few disturbed
rounds cannot move; its interval comes from resampling the rounds (Efron 1979, "Bootstrap methods: another look at the jackknife",
Annals of Statistics 7).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """The first side's time divided by the second's: the median over rounds, and its interval."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def verdict(self) -> str:
        """``faster``, ``slower`` or ``same``: the first compared with the second, beyond the noise."""
        if self.high < 1:
            return "faster"
        return "slower" if self.low > 1 else "same"

    @property
    def width(self) -> float:
        """Half the width of the interval, relative to its middle: 0.03 is 3 %."""
        return math.sqrt(self.high / self.low) - 1

    def within(self, noise: float) -> bool:
        """Whether the interval reaches so near to 1 that ``noise`` (0.03 is 3 %) may have made the difference."""
        return self.low <= 1 + noise and self.high >= 1 / (1 + noise)

    def contains(self, value: float) -> bool:
        """Whether the interval holds ``value``."""
        return self.low <= value <= self.high

    def __truediv__(self, other: Ratio) -> Ratio:
        """How this ratio changed since ``other``, measured independently: the squares of the logarithms' spreads add up."""
        median = np.log(self.median / other.median)
        below = np.hypot(np.log(self.median / self.low), np.log(other.high / other.median))
        above = np.hypot(np.log(self.high / self.median), np.log(other.median / other.low))
        low, high = math.exp(median - below), math.exp(median + above)
        return Ratio(math.exp(median), low, high, min(self.rounds, other.rounds))


def ratio(first: Sequence[float], second: Sequence[float], *, confidence: float = CONFIDENCE) -> Ratio:
    """The ratio of paired times: ``first[r]`` and ``second[r]`` were measured in the same round.

    Raises:
        ValueError: no rounds, different numbers of rounds, or a time that is not positive.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"ratio: both sides must have the same rounds, got {len(first)} and {len(second)}")
    times = np.array([first, second], dtype=float)
    if not (times > 0).all():
        raise ValueError("ratio: every time must be positive")
    logs = np.log(times[0] / times[1])  # logarithms: a ratio of 2 is as far from 1 as a ratio of 1/2
    low, high = _median_interval(logs, confidence)
    return Ratio(math.exp(np.median(logs)), math.exp(low), math.exp(high), len(logs))


def _median_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    rng = np.random.default_rng(len(values))  # a fixed seed: the same samples always print the same interval
    drawn = values[rng.integers(0, len(values), (RESAMPLES, len(values)))]
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


# What A/A rows must resolve to mean anything: an interval of 0.5 … 2 also contains 1.00, and would accept any noise.
RESOLVES = 0.10
# Two processes of one program are not equally fast: each has its own pages of memory. Ratios are printed in hundredths.
EQUAL = 0.01


def resolution(same: Sequence[Ratio]) -> float:
    """The difference that the noise of the A/A rows ``same`` could fake: 0.03 is 3 %."""
    return max((max(row.high, 1 / row.low) - 1 for row in same), default=0.0)


def distrust(same: Sequence[Ratio]) -> str:
    """Why not to trust the run: there is no A/A row, or one of ``same`` shows a difference. An empty string if all is well."""
    if not same:
        return "no A/A row was measured"
    for row in same:
        if row.low > 1 + EQUAL or row.high < 1 - EQUAL:
            return (
                f"the same library in two processes came out at {row.median:.3f} [{row.low:.3f} … {row.high:.3f}], "
                f"more than {EQUAL:.0%} from 1.00"
            )
    return ""


def same_confidence(rows: int) -> float:
    """The confidence of each of ``rows`` A/A intervals such that all contain the truth in 99 of 100 runs (Bonferroni)."""
    return 1 - 0.01 / max(rows, 1)


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """``b`` of ``cost = a·size^b``, by least squares on logarithms; 1 means twice the size costs twice as much."""
    if len(sizes) != len(costs) or len(set(sizes)) < 2:
        raise ValueError(f"exponent: needs costs at two sizes or more, got {len(costs)} costs at sizes {list(sizes)}")
    slope, _ = np.polyfit(np.log(sizes), np.log(costs), 1)
    return float(slope)
