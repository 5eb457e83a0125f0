"""A forked child computes like its parent, whatever the parent's other threads are doing: it inherits none of them.

Each test runs in its own process, and each child is killed after a time limit.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scratch.compiled import jit

pytestmark = pytest.mark.posix

WARNING = "is multi-threaded, use of fork() may lead to deadlocks in the child."

FORK = """
import os, signal, sys, threading, time
import numba, numpy as np, scratch
from scratch.compiled import threads

def compute():
    x = np.linspace(-1, 1, 1 << 17, dtype=np.float32).reshape(4, 32, 32, 32)
    out, cache = scratch.relu.forward(x)
    pooled, _ = scratch.max_pool2d.forward(out, kernel_size=3, stride=2)
    return [array.tobytes() for array in (out, *scratch.relu.backward(x, cache), pooled)]

def fork(in_child):
    child = os.fork()
    if child == 0:
        try:
            in_child()
        finally:
            os._exit(sys.exc_info()[0] is not None)
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

MULTIPLY = """
x = np.linspace(-1, 1, 57_600, dtype=np.float32).reshape(8, 32, 15, 15)
weight = np.linspace(-1, 1, 13_824, dtype=np.float32).reshape(48, 32, 3, 3)
rows = x.reshape(200, 288)
def multiply():
    with scratch.use_rung(conv2d="im2col", linear="numpy"):
        out, cache = scratch.conv2d.forward(x, weight, padding=1)
        grad_x, grad_weight, _ = scratch.conv2d.backward(out, cache)
        product, cache = scratch.linear.forward(rows, weight.reshape(48, 288))
        return [array.tobytes() for array in (out, grad_x, grad_weight, product, *scratch.linear.backward(product, cache)[:2])]
"""

WHILE_THEY_MULTIPLY = MULTIPLY + WHILE_THEY_COMPUTE.replace("compute()", "multiply()")

IN_A_SIGNALS_HANDLER = (
    MULTIPLY
    + """
from scratch.compiled import products
products.LIMIT = 1e6
expected, forked = multiply(), []
def in_child():
    assert multiply() == expected
def handle(number, frame):
    fork(in_child)
    forked.append(frame.f_code.co_name)
signal.signal(signal.SIGALRM, handle)
for i in range(30):
    signal.setitimer(signal.ITIMER_REAL, 0.0005 * (i + 1))
    while len(forked) == i:
        assert multiply() == expected
"""
)

WHAT_NEVER_ENDS = (
    MULTIPLY
    + """
from scratch.compiled import products
expected, computed = multiply(), []
products.LIMIT = 0.01
product = products._multiply  # what a product that never ends would keep
fork(lambda: computed.append(multiply()))
del product
products.LIMIT = 1e6
fork(lambda: computed.append(multiply()))
products.LIMIT = 0.01
products._forking.acquire()  # a fork that never ends
products._close()
thread = threading.Thread(target=lambda: computed.append(multiply()))
thread.start()
thread.join(60)
assert computed == [expected]
"""
)

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

IN_A_THREAD_OF_THE_POOL = """
caller, parent = threading.get_ident(), os.getpid()
together, forked, expected, ended = threading.Barrier(3, timeout=60), threading.Event(), compute(), []
def run(first, last):
    together.wait()
    if threading.get_ident() == caller or ended:
        forked.wait(60)
        return
    ended.append(None)
    child = os.fork()
    if child == 0:
        assert compute() == expected  # starts threads
        if leaves:
            os._exit(7)
        sys.stderr = sys.stdout
        return
    ended[0] = child
    forked.set()
threads.for_each(run, 3)
assert os.getpid() == parent
end = time.monotonic() + 60
while (status := os.waitpid(ended[0], os.WNOHANG)) == (0, 0):
    if time.monotonic() > end:
        os.kill(ended[0], signal.SIGKILL)
        os.waitpid(ended[0], 0)
        sys.exit("the child hangs")
    time.sleep(0.001)
assert os.waitstatus_to_exitcode(status[1]) == (7 if leaves else 1), status
assert compute() == expected
"""

WHEREVER_ANOTHER_THREAD_WAS = """
from scratch.compiled import memory
reached, go_on, ended = threading.Semaphore(0), threading.Semaphore(0), []
def work():
    for _ in range(2):
        memory.empty((1 << 20,), np.dtype(np.uint8))
        memory.workspace(1 << 20, np.dtype(np.uint8))
        memory.workspace(16, np.dtype(np.uint8))
def stop(frame, event, _):
    if frame.f_code.co_filename != memory.__file__:
        return None
    if event == "call":  # in this order: from 3.13 on, a frame without a trace function asks in vain
        frame.f_trace, frame.f_trace_opcodes = stop, True
    if event == "opcode":
        reached.release()
        go_on.acquire(timeout=60)
    return stop
def another():
    (lambda: sys._getframe())().f_trace_opcodes = True  # Python 3.12 asks for it before settrace
    sys.settrace(stop)
    work()
    sys.settrace(None)
    ended.append(None)
    reached.release()
work()
thread = threading.Thread(target=another, daemon=True)
thread.start()
steps = 0
while reached.acquire(timeout=60) and not ended:
    fork(work)
    go_on.release()
    steps += 1
thread.join(60)
assert steps > 100, steps
"""

ANOTHER_THREADS_BLOCK = """
entered, forked = threading.Event(), threading.Event()
def another():
    with scratch.use_rung(relu="naive", process=True):
        entered.set()
        forked.wait(60)
thread = threading.Thread(target=another)
thread.start()
entered.wait(60)
def rungs():
    return [ladder.chosen() and ladder.chosen().name for ladder in (scratch.relu.RUNGS, scratch.conv2d.RUNGS)]
def in_child():
    assert rungs() == [None, "im2col"], rungs()
with scratch.use_rung(conv2d="im2col", process=True):
    assert rungs() == ["naive", "im2col"]
    fork(in_child)
    assert rungs() == ["naive", "im2col"]
forked.set()
thread.join(60)
"""


def run(code: str, count: int = 2) -> None:
    environment = {**os.environ, "SCRATCH_NUM_THREADS": str(count), "OPENBLAS_NUM_THREADS": "2"}
    process = subprocess.run([sys.executable, "-c", FORK + code], env=environment, capture_output=True, text=True, timeout=600)
    # Newer Pythons warn if there are threads after the fork. Nothing here catches the warning: while other threads compile, Numba
    # catches warnings, too, and threads share the place where Python keeps who does.
    unexpected = [line for line in process.stderr.splitlines() if not line.endswith(WARNING)]
    assert (process.returncode, unexpected) == (0, [])


def test_a_child_computes_though_other_threads_were_computing():
    run(WHILE_THEY_COMPUTE)


def test_a_child_computes_wherever_another_thread_was():
    """One fork at each step of memory.py: a lock that a thread held there would stay locked in the child."""
    run(WHEREVER_ANOTHER_THREAD_WAS)


def test_a_child_multiplies_though_other_threads_were_multiplying():
    """OpenBLAS ends its threads before a fork, even in the middle of a product."""
    run(WHILE_THEY_MULTIPLY)


def test_a_fork_in_a_signals_handler_does_not_wait_for_the_product_that_it_interrupted():
    run(IN_A_SIGNALS_HANDLER)


def test_neither_a_product_nor_a_fork_that_never_ends_is_waited_for():
    run(WHAT_NEVER_ENDS)


@pytest.mark.skipif(jit.JIT_OFF, reason="nothing is compiled")
def test_a_child_compiles_though_other_threads_were_compiling():
    run(WHILE_THEY_COMPILE)


@pytest.mark.parametrize("pool_is_closed", [False, True])
@pytest.mark.parametrize("count", [2, 3])
def test_a_child_that_lacks_the_threads_of_a_kernel_says_so(count, pool_is_closed):
    run(f"pool_is_closed = {pool_is_closed}\n{IN_THE_MIDDLE}", count)


@pytest.mark.parametrize("leaves", [False, True])
def test_a_child_of_a_thread_of_the_pool_computes_and_ends(leaves):
    """The thread that called the kernel is not in the child, so the kernel has no end there."""
    run(f"leaves = {leaves}\n{IN_A_THREAD_OF_THE_POOL}", 3)


def test_a_block_of_another_thread_does_not_apply_in_a_child():
    """That thread is not in the child, so its block would never end there."""
    run(ANOTHER_THREADS_BLOCK)
