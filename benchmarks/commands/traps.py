"""The traps of benchmarking, shown by falling into them on purpose. The results fill docs/benchmark-traps.md."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from itertools import cycle
from time import perf_counter, sleep
from typing import Any

import numpy as np
import threadpoolctl

from benchmarks.measure import stats
from benchmarks.measure.processes import Process
from benchmarks.reports.results import Report
from benchmarks.reports.tables import Table, milliseconds

REPEATS = 25
QUIET = 0.3  # seconds after which every pool has gone to sleep

Found = list[tuple[str, float]]  # what was timed, and its median in seconds; the honest way comes last


def _seconds(function: Callable[[], Any], *, before: Callable[[], Any] = lambda: None) -> float:
    """The median time of ``function``, with an untimed ``before`` at each repeat."""
    times = []
    for _ in range(REPEATS):
        before()
        start = perf_counter()
        function()
        times.append(perf_counter() - start)
    return statistics.median(times)


class Trap:
    """Both libraries in one process, which is the first mistake."""

    def __init__(self, threads: int) -> None:
        import torch  # here: reading results needs no torch

        self.torch = torch
        self.threads = threads
        self.rng = np.random.default_rng(0)

    def threads_differ(self) -> Found:
        """``torch.set_num_threads(1)`` does not change NumPy's own pool."""
        a = self.rng.standard_normal((1024, 1024), dtype=np.float32)
        tensor = self.torch.from_numpy(a)
        self.torch.set_num_threads(1)
        try:
            torch = _seconds(lambda: tensor @ tensor)
            loose = _seconds(lambda: a @ a)
            with threadpoolctl.threadpool_limits(1):
                tight = _seconds(lambda: a @ a)
        finally:
            self.torch.set_num_threads(self.threads)
        return [
            ("torch `a @ a`, torch.set_num_threads(1)", torch),
            (f"NumPy `a @ a`, the same setting: its pool still has {self.threads} threads", loose),
            ("NumPy `a @ a`, every pool set to 1 thread", tight),
        ]

    def idle_pools_spin(self) -> Found:
        """A pool that has just worked keeps its cores busy, waiting for more."""
        a = self.rng.standard_normal((1024, 1024), dtype=np.float32)
        x = self.torch.randn(8, 96, 55, 55)
        relu = self.torch.nn.functional.relu

        def work_and_rest() -> None:
            a @ a
            sleep(QUIET)

        return [
            ("torch relu, right after NumPy's `a @ a`", _seconds(lambda: relu(x), before=lambda: a @ a)),
            ("torch relu, after NumPy's pool has gone to sleep", _seconds(lambda: relu(x), before=work_and_rest)),
        ]

    def zeros_are_not_data(self) -> Found:
        """A comparison that always has the same result costs next to nothing: the processor predicts it."""
        numbers = self.torch.randn(8, 96, 55, 55)
        pool = self.torch.nn.functional.max_pool2d
        return [
            (f"torch max-pool of {name}", _seconds(partial(pool, x, 3, 2)))
            for name, x in (("zeros", self.torch.zeros_like(numbers)), ("numbers", numbers))
        ]

    def a_warm_cache_flatters(self) -> Found:
        """A small buffer that is used again and again stays in the cache; in a network it does not."""
        arrays = [self.rng.standard_normal(1 << 19, dtype=np.float32) for _ in range(64)]
        out = np.empty_like(arrays[0])
        following = cycle(arrays)
        return [
            ("NumPy maximum of 2 MiB, always the same", _seconds(lambda: np.maximum(arrays[0], 0, out=out))),
            ("NumPy maximum of 2 MiB, another array each time", _seconds(lambda: np.maximum(next(following), 0, out=out))),
        ]


TRAPS = ("threads_differ", "idle_pools_spin", "zeros_are_not_data", "a_warm_cache_flatters")


def run(threads: int) -> list[dict[str, Any]]:
    """Fall into every trap, each in its own process."""
    found = []
    for name in TRAPS:
        with Process(threads, Trap, threads) as process:
            found += [{"trap": name, "what": what, "seconds": seconds} for what, seconds in process.ask(name)]
    return found


def table(name: str, report: Report) -> Table:
    """One trap's measurements, and what they show: the last row is the honest one, the row before it fell into the trap."""
    rows = [(found["what"], found["seconds"]) for found in report.traps if found["trap"] == name]
    cells = [[what, milliseconds(seconds), f"{seconds / rows[-1][1]:.2f}"] for what, seconds in rows]
    return Table("", ["what was timed", "ms", "times the last row"], cells, _shown(rows[-2][1] / rows[-1][1]) if rows else "")


def _shown(ratio: float) -> str:
    if abs(ratio - 1) <= stats.RESOLVES:
        return (
            f"In this run the trap does not show: the wrong way measures {ratio:.2f} times what the honest one measures. "
            f"A difference of up to {stats.RESOLVES:.0%} may be noise."
        )
    return (
        f"Measured the wrong way, the operation looks {max(ratio, 1 / ratio):.1f} times as "
        f"{'slow' if ratio > 1 else 'fast'} as it is."
    )
