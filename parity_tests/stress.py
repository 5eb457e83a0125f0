"""Threads × signals × forks × changing numbers of threads, all at once: ``python -m parity_tests.stress SECONDS``.

Results have the same bits as without stress; nothing hangs; afterwards nothing is missing and nothing is left over.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import FrameType

import numpy as np

import scratch
from parity_tests.sweeps import LIMIT, Interrupt, all_take_part, pool_threads, wait_until
from scratch.compiled import memory, threads

rng = np.random.default_rng(0)
X = rng.standard_normal((8, 32, 15, 15), np.float32)
WEIGHT = rng.standard_normal((48, 32, 3, 3), np.float32)
ROWS, MATRIX = rng.standard_normal((32, 256), np.float32), rng.standard_normal((300, 256), np.float32)


def conv2d(rung: str) -> list[bytes]:
    with scratch.use_rung(rung):
        out, cache = scratch.conv2d.forward(X, WEIGHT, padding=1)
        return [array.tobytes() for array in (out, *scratch.conv2d.backward(out, cache)) if array is not None]


def linear(rung: str) -> list[bytes]:
    with scratch.use_rung(rung):
        out, cache = scratch.linear.forward(ROWS, MATRIX)
        return [array.tobytes() for array in (out, *scratch.linear.backward(out, cache)) if array is not None]


def in_place() -> list[bytes]:
    x = X.copy()
    scratch.relu.forward(x, inplace=True)
    return [x.tobytes()]


WORK: dict[str, Callable[[], list[bytes]]] = {
    "winograd": lambda: conv2d("winograd"),
    "implicit_gemm": lambda: conv2d("implicit_gemm"),
    "im2col": lambda: conv2d("im2col"),
    "linear": lambda: linear("numba"),
    "numpy": lambda: linear("numpy"),
    "in_place": in_place,
}


def unraisable(args: sys.UnraisableHookArgs) -> None:
    """An exception in a finalizer is lost. Python has finalizers of its own for that to happen in; scratch has none."""
    if not (args.exc_type is Interrupt and getattr(args.object, "__module__", "") in ("_weakrefset", "weakref", "threading")):
        sys.__unraisablehook__(args)


def main(seconds: float) -> None:
    sys.unraisablehook = unraisable
    faulthandler.dump_traceback_later(seconds + 10 * LIMIT, exit=True)
    threads.WORTH_A_THREAD = 1
    warnings.filterwarnings("ignore", "use_rung.* has chosen nothing", RuntimeWarning)  # an interrupt came before the block
    expected = {name: work() for name, work in WORK.items()}
    counts = dict.fromkeys(("computed", "interrupted", "nested", "forked"), 0)
    wrong: list[str] = []
    draw = random.Random(0)

    def compute() -> None:
        name = random.choice(list(WORK))
        if WORK[name]() != expected[name]:
            wrong.append(name)

    def handle(number: int, frame: FrameType | None) -> None:
        if draw.random() < 0.8:
            counts["interrupted"] += 1
            raise Interrupt
        counts["nested"] += 1
        compute()

    def others() -> None:
        while not stop.is_set():
            compute()

    def change() -> None:
        while not stop.is_set():
            scratch.set_num_threads(random.randint(1, 4))
            time.sleep(random.random() / 100)

    stop = threading.Event()
    helpers = [threading.Thread(target=target, daemon=True) for target in (others, others, change)]
    for helper in helpers:
        helper.start()
    signal.signal(signal.SIGALRM, handle)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(50):
            with contextlib.suppress(Interrupt):
                signal.setitimer(signal.ITIMER_REAL, draw.random() / 500)
                compute()
                counts["computed"] += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
        with contextlib.suppress(Interrupt):  # the last one
            signal.setitimer(signal.ITIMER_REAL, 0)
            time.sleep(0)
        fork(compute, wrong)
        counts["forked"] += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    sys.setswitchinterval(interval)
    stop.set()
    for helper in helpers:
        helper.join(LIMIT)
        assert not helper.is_alive()
    assert not wrong, wrong
    scratch.set_num_threads(3)
    all_take_part(3)
    [pool] = threads._pools
    wait_until(lambda: len(pool.idle) == len(pool.threads) == 2 and not pool.waiting)
    wait_until(lambda: len(pool_threads()) == 2)
    shelf = memory._shelf
    shelf.bytes = shelf.limit + 1  # so that it counts
    memory.empty((memory.SMALL + 1,), np.dtype(np.uint8))
    assert shelf.bytes == sum(size * len(blocks) for size, blocks in shelf.blocks.items()) <= shelf.limit
    print(counts)


def fork(compute: Callable[[], None], wrong: list[str]) -> None:
    with warnings.catch_warnings():  # newer Pythons warn about a fork while there are threads
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            wrong.clear()
            for _ in range(3):
                compute()
        finally:
            os._exit(bool(wrong) or sys.exc_info()[0] is not None)
    end = time.monotonic() + LIMIT
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise TimeoutError("a child hangs")
        time.sleep(0.001)
    assert ended == (child, 0), ended


if __name__ == "__main__":
    main(float(sys.argv[1]))
