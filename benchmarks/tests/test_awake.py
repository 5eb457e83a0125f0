"""The spinning processes obey, and end."""

from __future__ import annotations

import contextlib
import os
import time

import psutil
import pytest

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


def policies(awake: Awake) -> set[int]:
    return {os.sched_getscheduler(spinner.pid) for spinner in awake.spinners}


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has scheduling policies")
def test_spinners_do_not_inherit_a_policy() -> None:
    """With real-time priority, as chrt gives it, spinners would never let anything else run."""
    before = os.sched_getscheduler(0)
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # another policy, which needs no rights
    try:
        with contextlib.closing(Awake()) as awake, awake:
            end = time.monotonic() + 60  # a spinner changes its policy once Python has started
            while policies(awake) != {os.SCHED_OTHER} and time.monotonic() < end:
                time.sleep(0.05)
            assert policies(awake) == {os.SCHED_OTHER}
    finally:
        os.sched_setscheduler(0, before, os.sched_param(0))
