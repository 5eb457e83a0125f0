"""A forked child computes like its parent, whatever the parent's other threads are doing: it inherits none of them.

Each test runs in its own process, and each child is killed after a time limit.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scratch.compiled import jit

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

FORK = """
import os, signal, sys, threading, time, warnings
import numba, numpy as np, scratch
from scratch.compiled import threads

def compute():
    x = np.linspace(-1, 1, 1 << 17, dtype=np.float32).reshape(4, 32, 32, 32)
    out, cache = scratch.relu.forward(x)
    pooled, _ = scratch.max_pool2d.forward(out, kernel_size=3, stride=2)
    return [array.tobytes() for array in (out, *scratch.relu.backward(x, cache), pooled)]

def fork(in_child):
    # Newer Pythons warn about a fork while there are threads: this once, and about nothing else.
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        child = os.fork()
    if child == 0:
        try:
            in_child()
        finally:
            os._exit(sys.exc_info()[0] is not None)
    for warning in warned:
        assert warning.category is DeprecationWarning and "multi-threaded" in str(warning.message), warning
    assert len(warned) == (sys.version_info >= (3, 12)), warned
    end = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            sys.exit("the child hangs")
        time.sleep(0.001)
    assert ended == (child, 0), ended
"""

WHILE_THEY_COMPUTE = """
expected = compute()
stop = threading.Event()
def others():
    while not stop.is_set():
        assert compute() == expected
computing = [threading.Thread(target=others) for _ in range(3)]
for thread in computing:
    thread.start()
def in_child():
    assert compute() == expected
    scratch.set_num_threads(3)
    assert compute() == expected
for _ in range(30):
    fork(in_child)
stop.set()
for thread in computing:
    thread.join(60)
assert compute() == expected
"""

WHILE_THEY_COMPILE = """
def compiled(number):
    function = numba.njit(eval(f"lambda x: (x + {number}) * np.exp(x) + x ** {number} - np.sqrt(x)"))
    return function(0.0)
stop = threading.Event()
def others(first):
    for number in range(first, 10_000_000):
        if stop.is_set():
            break
        compiled(number)
compiling = [threading.Thread(target=others, args=(1 + 1_000_000 * i,)) for i in range(2)]
for thread in compiling:
    thread.start()
def in_child():
    assert compiled(20) == 20
    compute()
for _ in range(8):
    time.sleep(0.05)
    fork(in_child)
stop.set()
for thread in compiling:
    thread.join(60)
"""

IN_THE_MIDDLE = """
count = scratch.get_num_threads()
together = threading.Barrier(count, timeout=60)
caller = threading.get_ident()
def run(first, last):
    together.wait()
    if threading.get_ident() != caller:
        forked.wait(60)
        return
    if pool_is_closed:
        scratch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child:
        children.append(child)
    forked.set()
children, forked, parent = [], threading.Event(), os.getpid()
try:
    threads.for_each(run, count)
except RuntimeError as error:
    assert os.getpid() != parent and "forked in the middle of a kernel" in str(error)
    compute()
    os._exit(7)
assert os.getpid() == parent
end = time.monotonic() + 60
while (ended := os.waitpid(children[0], os.WNOHANG)) == (0, 0):
    if time.monotonic() > end:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)
        sys.exit("the child hangs")
    time.sleep(0.001)
assert os.waitstatus_to_exitcode(ended[1]) == 7, ended
"""


def run(code: str, count: int = 2) -> None:
    environment = {**os.environ, "SCRATCH_NUM_THREADS": str(count)}
    process = subprocess.run([sys.executable, "-c", FORK + code], env=environment, capture_output=True, text=True, timeout=600)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_child_computes_though_other_threads_were_computing():
    run(WHILE_THEY_COMPUTE)


@pytest.mark.skipif(jit.JIT_OFF, reason="nothing is compiled")
def test_a_child_compiles_though_other_threads_were_compiling():
    run(WHILE_THEY_COMPILE)


@pytest.mark.parametrize("pool_is_closed", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_a_child_that_lacks_the_threads_of_a_kernel_says_so(count, pool_is_closed):
    run(f"pool_is_closed = {pool_is_closed}\n{IN_THE_MIDDLE}", count)
