"""One side of the comparison, in a process of its own: it does what it is told, and between turns it is truly idle.

Truly idle takes care. Thread pools go on spinning after the work is done, to be quick if more comes (OpenMP for some
milliseconds, OpenBLAS for tens), and a spinning pool takes the cores from whoever is timed next. Spinning could be forbidden
(OMP_WAIT_POLICY, KMP_BLOCKTIME), but that would slow the library down while it is timed. So nothing is forbidden: the next
turn waits until the process has come to rest by its own CPU time, and whatever it used between two turns is reported.
"""

from __future__ import annotations

import gc
import importlib
import time
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.cases import Case
from benchmarks.sides import Arrays, Side, Subject, copies

REST = 0.005  # seconds without work that count as rest
AFTERMATH = 0.1  # the same where something may just have been compiled
PATIENCE = 2.0  # seconds to wait for it
SHORT = 0.05  # a pass that takes longer does not notice whether it begins cold; a shorter one is warm after so long


class Worker:
    """The commands, each a method."""

    def __init__(self, side: Side) -> None:
        self.side = side
        # When a block is freed, the C library returns its pages unless a larger one, of up to 32 MiB, was freed before. A process
        # that has worked keeps more than a new one, and is faster: 9 % on conv5/2 in torch. So all begin by freeing the largest.
        np.empty((32 << 20) - (1 << 16), np.uint8)
        self.library = importlib.import_module(f"benchmarks.{side.library}_side")
        self.subject: Subject | None = None
        self.rested = others()

    def facts(self) -> dict[str, Any]:
        """Versions, and the thread pools as they are, not as they were asked for."""
        return machine.libraries()

    def prepare(self, case: Case, arrays: Arrays, cache_bytes: int) -> None:
        """Make a case ready to run."""
        self.subject = self.library.prepare(self.side, case, arrays, copies(arrays, cache_bytes))

    def results(self) -> tuple[Arrays, str]:
        """What the case computes, and what is to be said about how; the first pass, so compilation happens here."""
        results = {name: np.asarray(array) for name, array in self._subject.results().items()}
        gc.freeze()  # what a library keeps for good need not be searched for garbage after every turn
        return results, self._subject.note

    def seconds(self) -> float:
        """A pass, all phases together; a short one is taken again until it is warm and its memory has been used before."""
        seconds = spent = sum(self._subject.run())
        while spent < SHORT:
            again = sum(self._subject.run())
            seconds, spent = min(seconds, again), spent + again
        self.rest(AFTERMATH)
        return seconds

    def turn(self, untimed: int, passes: int) -> tuple[list[list[float]], float]:
        """The laps of ``passes`` passes after ``untimed`` ones, and the CPU seconds that idle threads used since it rested."""
        leaked = others() - self.rested
        for _ in range(untimed):
            self._subject.run()
        return [self._subject.run() for _ in range(passes)], leaked

    def tidy(self, move: bool) -> None:
        """After a turn: no garbage is left, buffers ``move``, and the process comes to rest.

        Where in memory a buffer happens to lie is worth several percent for as long as it lies there. It may not last longer than
        a turn, or the interval over the rounds would not know of it.
        """
        gc.collect()
        if move:
            self._subject.move()
        self.rest()

    def peak(self) -> int:
        """The most memory that this process holds during a pass, in bytes: its weights, its libraries, everything."""
        machine.forget_peak()
        self._subject.run()
        return machine.peak_bytes()

    def drop(self) -> None:
        """Forget the case."""
        self.subject = None
        gc.unfreeze()
        gc.collect()
        self.rest()

    def rest(self, window: float = REST) -> None:
        """Wait until no thread of this process has worked for ``window`` seconds, and none waits for a core to work on."""
        for _ in range(int(PATIENCE / window)):
            before = time.process_time()
            time.sleep(window)
            if time.process_time() - before < window / 20 and not machine.waiting_threads():
                break
        self.rested = others()

    @property
    def _subject(self) -> Subject:
        if self.subject is None:
            raise RuntimeError("no case is prepared")
        return self.subject


def others() -> float:
    """The CPU seconds of all threads but this one, which answers commands."""
    return time.process_time() - time.thread_time()
