"""Cores that stay awake while nobody is timed.

Between two turns a process must come to rest, and a core with nothing to do sleeps: it clocks down, and in a virtual machine
its host lends it out. For a tenth of a second afterwards work takes up to twice as long, now more, now less: a noise that no
training knows, whose cores are never idle. So somebody counts on them meanwhile.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

from benchmarks import machine


class Awake:
    """``with awake:`` keeps every core busy at the lowest priority: whoever has work goes first."""

    def __init__(self) -> None:
        self.spinners = [
            subprocess.Popen([sys.executable, "-m", "benchmarks.awake"], stdin=subprocess.PIPE, start_new_session=True)
            for _ in range(machine.cores())
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
        """End the processes; they end by themselves, too, when this one is gone."""
        for spinner in self.spinners:
            spinner.communicate()


def spin() -> None:
    """Busy from one byte on standard input to the next, asleep until another comes, gone when no more can come."""
    os.nice(19)
    while os.read(0, 1):
        while not select.select([0], [], [], 0)[0]:
            pass
        os.read(0, 1)


if __name__ == "__main__":
    spin()
