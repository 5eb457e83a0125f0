"""Buffers that each thread writes a part of and all threads read, such as packed weights.

At the next call, several cores may hold each cache line of such a buffer. A core that writes a line the ordinary way must first
take it back from the others. A line that is written past the caches is simply replaced in memory, but then it has to be read
from there. Which way is faster depends on how far apart the cores are, and processors do not tell: in virtual machines they
often claim a shared cache that they do not have. Therefore filling a large buffer the ordinary way is timed. After PATIENCE
slow fillings in succession, all buffers are written past the caches. This changes only speed, never results.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from scratch.compiled.threads import for_each, get_num_threads

LINE = 64  # bytes
# Seconds of one thread for a line; more than that is slow. Computing and writing a line takes a third of it or less. Taking a
# line back from a core that is far away takes longer.
FAR = 60e-9
MEASURABLE = 1 << 20  # bytes; filling a smaller buffer takes too little time to measure
PATIENCE = 8  # slow buffers in succession: one may be slow because a thread had to wait, or compiled the kernel

_slow = 0  # measurable buffers in succession that were filled slowly; stops changing at PATIENCE


def fill(run: Callable[[int, int, bool], None], n: int, buffer: np.ndarray, *, values: int) -> None:
    """Fill the buffer: :func:`for_each` of ``run(first, last, past)``, which writes past the caches if ``past`` is true.

    ``n`` and ``values`` are those of ``for_each``.
    """
    past = _slow >= PATIENCE
    began = time.perf_counter()
    for_each(run, n, past, values=values)
    if not past and buffer.nbytes >= MEASURABLE:
        _note((time.perf_counter() - began) * get_num_threads() / (buffer.nbytes / LINE))


def _note(seconds: float) -> None:
    """Note that a buffer took one thread that many seconds for each line."""
    global _slow
    _slow = _slow + 1 if seconds > FAR else 0
