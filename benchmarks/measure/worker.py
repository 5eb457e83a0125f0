"""One side of the comparison, in its own process: it obeys commands, and between turns it is truly idle.

Being truly idle takes care. Thread pools keep spinning after the work is done, to be quick if more comes (OpenMP for some
milliseconds, OpenBLAS for tens), and a spinning pool takes the cores from the side timed next. Spinning could be turned off
(OMP_WAIT_POLICY, KMP_BLOCKTIME), but that would slow the library down while it is timed. So it stays on: the next turn waits
until the process's own CPU time shows that it has come to rest, and whatever it used between two turns is reported.
"""

from __future__ import annotations

import gc
import importlib
import time
from typing import Any

import numpy as np

from benchmarks.measure import machine
from benchmarks.subjects.cases import Case
from benchmarks.subjects.sides import Arrays, Side, Subject, copies, rotating

REST = 0.005  # seconds without work that count as rest
AFTERMATH = 0.1  # the same, if something may just have been compiled
PATIENCE = 2.0  # seconds to wait for rest
SHORT = 0.05  # seconds: a longer pass is not affected by a cold start; shorter passes are warm after this long


class Worker:
    """The commands, one method each."""

    def __init__(self, side: Side) -> None:
        self.side = side
        # When a block is freed, the C library returns its pages unless a larger block, of up to 32 MiB, was freed before. A
        # process that has worked keeps more pages than a new one, and is faster: 9 % on conv5/2 in torch. So every process begins
        # by freeing a block of almost 32 MiB.
        np.empty((32 << 20) - (1 << 16), np.uint8)
        self.library = importlib.import_module(f"benchmarks.subjects.{side.library}_side")
        self.subject: Subject | None = None
        self.pools: dict[str, int] = {}
        self.rested = others()

    def facts(self) -> dict[str, Any]:
        """Versions, and the sizes that the thread pools really have, not those that were asked for."""
        facts = machine.libraries()
        facts["pools"] |= self.pools
        return facts

    def prepare(self, case: Case, arrays: Arrays, cache_bytes: int) -> None:
        """Make a case ready to run."""
        self.subject = self.library.prepare(self.side, case, arrays, copies(rotating(arrays), cache_bytes))

    def results(self) -> tuple[Arrays, str]:
        """What the case computes, and a note on how; this is the first pass, so compilation happens here."""
        results = {name: np.asarray(array) for name, array in self._subject.results().items()}
        self.pools = self._subject.pools()
        gc.freeze()  # do not search what a library keeps permanently for garbage after every turn
        return results, self._subject.note

    def seconds(self) -> float:
        """The seconds of a pass, all phases together; a short pass is repeated until caches and memory are warm."""
        seconds = spent = sum(self._subject.run())
        while spent < SHORT:
            again = sum(self._subject.run())
            seconds, spent = min(seconds, again), spent + again
        self.rest(AFTERMATH)
        return seconds

    def turn(self, untimed: int, passes: int) -> tuple[list[list[float]], float]:
        """The laps of ``passes`` passes after ``untimed`` ones, and the CPU seconds that idle threads used since the last
        rest.
        """
        leaked = others() - self.rested
        for _ in range(untimed):
            self._subject.run()
        return [self._subject.run() for _ in range(passes)], leaked

    def tidy(self, move: bool) -> None:
        """After a turn: collect garbage, ``move`` buffers, and come to rest.

        A buffer's address can change the time by several percent. It must not stay the same for longer than a turn, or the
        interval over the rounds would not include that effect.
        """
        gc.collect()
        if move:
            self._subject.move()
        self.rest()

    def peak(self) -> int:
        """The largest amount of memory that this process holds during a pass, in bytes: weights, libraries, everything."""
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
        """Wait until no thread of this process has worked for ``window`` seconds and none waits for a core."""
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
    """The CPU seconds of all threads except this one, which answers commands."""
    return time.process_time() - time.thread_time()
