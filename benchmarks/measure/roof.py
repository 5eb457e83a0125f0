"""The limits of this machine, measured: how fast it can multiply and add, and how fast it can move bytes.

Multiply-adds: eleven independent chains of vector FMAs that never leave the registers. Eleven are enough to fill two pipelines
with a latency of four or five cycles, and few enough for sixteen registers. The loop is written as LLVM code: with a loop in
Python, the compiler would decide whether anything but FMAs is measured.

Moving bytes has three streams, since none of them limits every pass. "bytes": one array copied onto another, both many times
larger than the cache; each byte counts as read and as written. "update": an array changed in place by another, as an optimizer
does; it reads the lines that it writes. "cached": a copy that fits into the last-level cache, but not into the caches above it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from benchmarks.measure import machine
from scratch.compiled.emission import spread

CHAINS = 11
REPEATS = 7  # the best counts: the limit is what an undisturbed run reaches
STEPS = 5_000_000
MOVED = 1 << 28  # bytes in total of the streams from memory
AGAIN = 20  # how often a stream within the cache is repeated, since one pass is too short for the clock


LANES = machine.lanes()


@intrinsic
def _chains(typingctx: Any, steps: Any, factor: Any, summand: Any) -> Any:
    """``steps`` times ``x = x·factor + summand`` in every lane of every chain; returns the sum, so that nothing is optimized
    away.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        count, factor, summand = arguments
        vector = ir.VectorType(ir.FloatType(), LANES)
        lane = ir.IntType(32)
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector, vector, vector]), f"llvm.fma.v{LANES}f32"
        )

        factors, summands = (spread(builder, vector, value) for value in (factor, summand))
        before = builder.block
        loop, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.branch(loop)
        builder.position_at_end(loop)
        index = builder.phi(count.type)
        index.add_incoming(count.type(0), before)
        chains = [builder.phi(vector) for _ in range(CHAINS)]
        for number, chain in enumerate(chains):
            chain.add_incoming(ir.Constant(vector, [float(number)] * LANES), before)
            chain.add_incoming(builder.call(fma, [chain, factors, summands]), loop)
        following = builder.add(index, count.type(1))
        index.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        total = chains[0]
        for chain in chains[1:]:
            total = builder.fadd(total, chain)
        return builder.extract_element(total, lane(0))

    return types.float32(types.int64, types.float32, types.float32), generate


@numba.njit(nogil=True)
def _multiply_add(steps: int, factor: float, summand: float) -> float:
    return _chains(steps, factor, summand)  # type: ignore[call-arg]


@numba.njit(nogil=True)
def _update(x: np.ndarray, y: np.ndarray) -> None:
    for i in range(x.size):
        x[i] = x[i] * np.float32(0.5) + y[i]


def _copy(target: np.ndarray, source: np.ndarray) -> None:
    np.copyto(target, source)


class Roof:
    """Measures the limits in its own process."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)

    def measure(self) -> dict[str, float]:
        """``flops``, ``bytes``, ``update`` and ``cached`` per second on all threads."""
        factor, summand = 0.5, 1.0  # x converges to 2: no denormals, no infinities
        _multiply_add(1, factor, summand)
        flops = 2.0 * CHAINS * LANES * STEPS * self.threads / self._best(lambda i: _multiply_add(STEPS, factor, summand))
        _update(np.ones(1, np.float32), np.ones(1, np.float32))  # compiles it
        return {
            "flops": flops,
            "bytes": self._stream(_copy, MOVED, moves=2),
            "update": self._stream(_update, MOVED, moves=3),
            "cached": self._stream(_copy, machine.below_last_level(self.threads), moves=2, again=AGAIN),
        }

    def _stream(self, kernel: Callable[..., None], size: int, *, moves: int, again: int = 1) -> float:
        """Bytes per second of a kernel over two arrays of ``size`` bytes together, each byte of an array moved ``moves``/2 times
        on average.
        """
        count = size // 8 // self.threads
        pairs = [(np.zeros(count, np.float32), np.ones(count, np.float32)) for _ in range(self.threads)]

        def work(i: int) -> None:
            for _ in range(again):
                kernel(*pairs[i])

        return 4.0 * count * self.threads * moves * again / self._best(work)

    def _best(self, work: Callable[[int], Any]) -> float:
        """The fewest seconds in which all threads did ``work``."""
        times = []
        for _ in range(REPEATS):
            start = perf_counter()
            list(self.pool.map(work, range(self.threads)))
            times.append(perf_counter() - start)
        return min(times)
