"""Which side is timed when. There is no clock: turns are made up."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pytest

from benchmarks.measure import pairing
from benchmarks.reports.results import Row

SIDES = ("a", "b", "c")


def kept_in(rounds: list[pairing.Round], enough: int = 99) -> Callable[[pairing.Round], bool]:
    """A callback that keeps every round, and says when there are enough."""

    def done(one: pairing.Round) -> bool:
        rounds.append(one)
        return len(rounds) == enough

    return done


def test_it_ends_when_there_are_enough_rounds() -> None:
    rounds: list[pairing.Round] = []
    pairing.measure(SIDES, 5, lambda side: [[1.0]], kept_in(rounds, enough=2))
    assert len(rounds) == 2


def test_every_side_lies_around_the_middle_of_its_round() -> None:
    orders = [pairing.order(SIDES, number) for number in range(31)]
    for order in orders:
        assert order == order[::-1]
        assert Counter(order) == dict.fromkeys(SIDES, 2)
    assert {tuple(order[:3]) for order in orders} == set(itertools.permutations(SIDES))


def test_a_steady_drift_cancels_within_the_round() -> None:
    clock = itertools.count(100)  # every turn takes longer than the one before it
    rounds: list[pairing.Round] = []
    pairing.measure(SIDES, 5, lambda side: [[float(next(clock))]], kept_in(rounds))
    row = Row(case="relu1", group="layer", operation="relu", batch=1, phases=["forward"], rounds=rounds)
    for a, b in itertools.combinations(SIDES, 2):
        found = row.ratio("forward", a, b)
        assert (found.median, found.low, found.high) == pytest.approx((1, 1, 1))


def test_an_interrupted_round_is_dropped_and_the_others_kept() -> None:
    turns = itertools.count()
    rounds: list[pairing.Round] = []

    def turn(side: str) -> pairing.Laps:
        if next(turns) == 8:
            raise KeyboardInterrupt
        return [[1.0]]

    with pytest.raises(KeyboardInterrupt):
        pairing.measure(SIDES, 5, turn, kept_in(rounds))
    assert rounds == [{side: [[[1.0]], [[1.0]]] for side in SIDES}]


def test_effort_repeats_short_passes_and_bounds_the_rounds() -> None:
    effort = pairing.Effort(turn=0.1, passes=20, rounds=(5, 15), case=4)
    assert [effort.passes_of(s) for s in (1e-6, 0.01, 0.03, 5)] == [20, 10, 4, 1]
    assert [effort.rounds_of(s) for s in (0.01, 0.5, 10)] == [15, 8, 5]
