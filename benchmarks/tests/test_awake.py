"""The spinning processes obey, and end."""

from __future__ import annotations

import contextlib
import time

import psutil

from benchmarks.measure import machine
from benchmarks.measure.awake import Awake


def test_every_core_has_somebody_who_counts_on_it_when_told() -> None:
    with contextlib.closing(Awake()) as awake:
        processes = [psutil.Process(spinner.pid) for spinner in awake.spinners]
        assert len(processes) == machine.cores()
        with awake:  # until each has used some CPU time: no clock, and no end if none spins
            while any(process.cpu_times().user < 0.5 for process in processes):
                time.sleep(0.05)
    assert [spinner.returncode for spinner in awake.spinners] == [0] * machine.cores()
