"""Buffers that each thread writes a part of and all threads read, such as packed weights.

At the next call each of their cache lines may be in several cores. Before a core writes such a line the ordinary way, it takes it
back from the others. Written past the caches, a line is simply replaced in memory, but then it has to be read from there. Which
is faster depends on how far apart the cores are, and processors do not tell: in virtual machines they often claim a shared cache
that they do not have. So it is measured while buffers are filled. It decides no bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from scratch.compiled.threads import for_each, get_num_threads

LINE = 64  # bytes
# Seconds of one thread for a line. Computing and writing it takes a third of that or less; waiting for a core that is far away
# takes longer.
FAR = 60e-9
MEASURABLE = 1 << 20  # bytes; a smaller buffer takes too short
PATIENCE = 8  # slow ones in succession: one may be slow because the thread had to wait, or compiled the kernel

_slow = 0  # measurable buffers in succession that were filled slowly; from PATIENCE on it stays


def fill(run: Callable[[int, int, bool], None], n: int, buffer: np.ndarray, *, values: int) -> None:
    """:func:`for_each` of ``run(first, last, past)``, which writes the buffer, past the caches if ``past`` is true.

    ``n`` and ``values`` are those of ``for_each``.
    """
    past = _slow >= PATIENCE
    began = time.perf_counter()
    for_each(run, n, past, values=values)
    if not past and buffer.nbytes >= MEASURABLE:
        _note((time.perf_counter() - began) * get_num_threads() / (buffer.nbytes / LINE))


def _note(seconds: float) -> None:
    """Count a buffer that took one thread so many seconds for each line."""
    global _slow
    _slow = _slow + 1 if seconds > FAR else 0
