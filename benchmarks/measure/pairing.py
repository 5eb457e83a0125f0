"""A B B A: which side is timed when, and how often. This module has no clock.

A round goes through all sides and then back: A B C C B A. Each side's two turns have the same midpoint, so a machine that slows
down steadily within the round slows all sides by the same factor. Every round has its own order: a turn leaves traces in caches
and in freed memory, and no side may always find the same traces or always be at the ends.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

Laps = list[list[float]]  # a turn: for every pass, the seconds of each phase
Round = dict[str, list[Laps]]  # side → its two turns


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    turn: float  # seconds per turn: short passes are repeated within it
    passes: int  # at most this many passes per turn
    rounds: tuple[int, int]  # at least, at most
    case: float  # seconds for all rounds of a case: between the two bounds, as many rounds as fit

    def passes_of(self, seconds: float) -> int:
        """The number of passes in a turn, if one takes ``seconds``."""
        return max(1, min(self.passes, math.ceil(self.turn / max(seconds, 1e-9))))

    def rounds_of(self, seconds: float) -> int:
        """The number of rounds to measure, if one takes ``seconds``."""
        low, high = self.rounds
        return max(low, min(high, int(self.case / max(seconds, 1e-9))))

    @property
    def longer(self) -> Effort:
        """For an A/A row: up to three times as many rounds, and enough time for them if a pass takes a few milliseconds."""
        low, high = self.rounds
        return replace(self, rounds=(low, 3 * high), case=16 * self.case)


QUICK = Effort(turn=0.01, passes=5, rounds=(3, 7), case=1.0)
DEFAULT = Effort(turn=0.01, passes=10, rounds=(5, 31), case=1.5)
FULL = Effort(turn=0.05, passes=10, rounds=(15, 31), case=30.0)


def order(sides: Sequence[str], round_: int) -> list[str]:
    """All sides in some order, and back again; the round's number determines the order."""
    there = random.Random(round_).sample(sides, len(sides))
    return there + there[::-1]


def measure(sides: Sequence[str], rounds: int, turn: Callable[[str], Laps], done: Callable[[Round], bool]) -> None:
    """Take ``rounds`` rounds of ``turn(side)`` and pass each complete one to ``done``, which says whether there are enough."""
    for number in range(rounds):
        one: Round = {side: [] for side in sides}
        for side in order(sides, number):
            one[side].append(turn(side))
        if done(one):
            return
