"""Keep the cores awake while nothing is timed.

Between two turns a process must come to rest, and a core with nothing to do sleeps: it clocks down, and the host of a virtual
machine gives it to others. For a tenth of a second afterwards, work takes up to twice as long, by a varying factor. Training does
not have this noise, because its cores are never idle. So between turns, other processes spin on the cores.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

from benchmarks.measure import machine


class Awake:
    """``with awake:`` keeps every core busy at the lowest priority: real work goes first.

    On Windows it does nothing, since a process there cannot spin until a pipe has a byte. So times there are noisier.
    """

    def __init__(self) -> None:
        self.spinners = [
            subprocess.Popen([sys.executable, "-m", "benchmarks.measure.awake"], stdin=subprocess.PIPE, start_new_session=True)
            for _ in range(machine.cores() if os.name == "posix" else 0)
        ]

    def __enter__(self) -> None:
        self._tell()

    def __exit__(self, *exception: object) -> None:
        self._tell()

    def _tell(self) -> None:
        for spinner in self.spinners:
            assert spinner.stdin is not None
            os.write(spinner.stdin.fileno(), b".")

    def close(self) -> None:
        """End the spinning processes. They also end by themselves when this process is gone."""
        for spinner in self.spinners:
            spinner.communicate()


def spin() -> None:
    """Spin from one byte on standard input to the next, then sleep until another comes; exit when the input is closed."""
    if hasattr(os, "SCHED_OTHER"):  # a run with real-time priority (chrt) must not hand it on to the spinners
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(19)
    while os.read(0, 1):
        while not select.select([0], [], [], 0)[0]:
            pass
        os.read(0, 1)


if __name__ == "__main__":
    spin()
