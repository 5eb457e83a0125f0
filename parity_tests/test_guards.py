"""The watched borders of memory: they see what they are for, and no kernel crosses them where the generic test seldom looks."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_from_scratch.proof.draws import FLOATS, LAYOUTS
from alexnet_from_scratch.proof.guards import CAN_FENCE, MEMORIES, OverrunError, watched
from parity_tests import mutants_compiled
from parity_tests.mutants import planted
from scratch import conv2d, max_pool2d, use_rung
from scratch.compiled import memory, vectors
from scratch.compiled.blocks import KC
from scratch.compiled.jit import JIT_OFF
from scratch.compiled.microkernel import MR, NR_VECTORS

ROOT = Path(__file__).parent.parent
fences = pytest.mark.skipif(not CAN_FENCE, reason="only Linux has mprotect")


def write(kind: str, shape: tuple[int, ...], where: int) -> None:
    """Change the byte that many bytes from an array's first, or for -1 the one before it."""
    with watched(kind):
        array = memory.workspace(shape[0], FLOATS[0]) if len(shape) == 1 else memory.empty(shape, FLOATS[0])
        whole = array.base
        assert isinstance(whole, np.ndarray)
        whole[array.ctypes.data - whole.ctypes.data + where] ^= 1


@pytest.mark.parametrize("kind", [kind for kind in MEMORIES if kind != "reused"])
@pytest.mark.parametrize("shape", [(3,), (5, 7), (4096,)])
def test_what_is_written_beside_an_array_is_seen(kind, shape):
    size = FLOATS[0].itemsize * int(np.prod(shape))
    write(kind, shape, size - 1)
    with pytest.raises(OverrunError, match=r"a kernel wrote before float32\["):
        write(kind, shape, -1)
    if kind == "guarded":  # else there is a fence
        with pytest.raises(OverrunError, match=r"a kernel wrote after float32\["):
            write(kind, shape, size)


@pytest.mark.parametrize("dtype", FLOATS)
def test_what_is_added_past_an_array_is_seen(dtype):
    def add() -> None:
        with watched("guarded"), np.errstate(all="ignore"):
            np.lib.stride_tricks.as_strided(memory.empty((5,), dtype), (7,))[5:] += 1  # one of two float32 is signalling

    with pytest.raises(OverrunError, match="a kernel wrote after"):
        add()


@pytest.mark.parametrize("kind", [kind for kind in MEMORIES if kind != "reused"])
def test_what_was_not_written_is_nan(kind):
    with watched(kind):
        for dtype in FLOATS:
            assert np.isnan(memory.empty((5, 7), dtype)).all()
            assert np.isnan(memory.workspace(5000, dtype)).all()


@fences
@pytest.mark.parametrize(
    "place", ['LAYOUTS["before a fence"](x)[-1:], 1', 'LAYOUTS["after a fence"](x)[:1], -1', "workspace(3)[-1:], 1"]
)
def test_what_is_read_past_a_fence_ends_the_process(place):
    code = f"""
import numpy as np
from alexnet_from_scratch.proof.draws import LAYOUTS
from alexnet_from_scratch.proof.guards import watched
from scratch.compiled import memory
x = np.ones(3, np.float32)
with watched("fenced"):
    def workspace(size):
        array = memory.workspace(size, np.dtype(np.float32))
        array[...] = 1
        return array
    edge, step = {place}
    print(edge.sum(), flush=True)
    print(np.lib.stride_tricks.as_strided(edge, (2,), (4 * step,)).sum())
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (-signal.SIGSEGV, "1.0\n"), run.stderr


@fences
@pytest.mark.skipif(JIT_OFF, reason="nothing in plain Python reads past an array")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_no_stretch_of_pixels_reads_past_the_last_tile(dtype):
    """The last stretch of a full tile begins at every pixel of a panel in turn."""
    NR = NR_VECTORS * vectors.lanes(np.empty(0, dtype))
    for N in (1, 2, 3, 4):
        for W in range(1, NR):
            x = LAYOUTS["before a fence"](np.arange(N * W, dtype=dtype).reshape(N, 1, 1, W))
            with use_rung("implicit_gemm"), watched("fenced"):
                out, cache = conv2d.forward(x, np.ones((MR, 1, 1, 1), dtype))
            assert cache.rung.name == "implicit_gemm"
            assert (out == x).all()


@fences
@pytest.mark.skipif(JIT_OFF, reason="nothing in plain Python reads past an array")
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("rung", ["implicit_gemm", "winograd"])
def test_no_weight_is_read_past_its_last_tap(rung, dtype):
    """The weight's last vector has each number of taps in turn."""
    for C in range(1, 2 * vectors.lanes(np.empty(0, dtype)) + 2):
        side = 1 if rung == "implicit_gemm" else 3
        x, weight = np.ones((1, C, side, side), dtype), LAYOUTS["before a fence"](np.ones((1, C, side, side), dtype))
        with use_rung(rung):
            out, cache = conv2d.forward(x, weight)
            grad_x, _, _ = conv2d.backward(out, cache)
        assert cache.rung.name == rung
        assert (out == weight.size).all()
        assert np.all(grad_x == weight.size)


def pad_by_more_than_a_window(conv: Any) -> None:
    """Whole rows of outputs see only padding: grad_x has none of their gradient. They are longer than the room for a vector."""
    x, weight = np.ones((1, 1, 2, 100), np.float32), np.ones((1, 1, 1, 1), np.float32)
    with use_rung(conv2d="implicit_gemm"), watched("guarded"):
        out, cache = conv.forward(x, weight, padding=3)
        grad_x, _, _ = conv.backward(out, cache)
    assert cache.rung.name == "implicit_gemm"
    assert (grad_x == x).all()


def test_padding_may_be_wider_than_a_window():
    pad_by_more_than_a_window(conv2d)


@pytest.mark.skipif(JIT_OFF, reason="in plain Python an index past an array is an error by itself")
@pytest.mark.parametrize("mutant", mutants_compiled.WIDE_PADDING, ids=str)
def test_rows_without_room_are_found(mutant):
    with planted(mutant) as stand_ins, pytest.raises(OverrunError, match="a kernel wrote after"):
        pad_by_more_than_a_window(stand_ins["scratch_module"])


def fill_a_block_of_tiles(conv: Any, dtype: np.dtype[Any]) -> None:
    """Rows of five tiles: the block's last vector begins in the middle of a row, and reaches past the end of a whole panel."""
    rng = np.random.default_rng(0)
    shapes = (1, 1, 2 * math.ceil(KC / 5) + 2, 12), (MR, 1, 3, 3)
    x, weight = (rng.integers(-2, 3, shape).astype(dtype) for shape in shapes)
    gradients = []
    for rung in ("im2col", "winograd"):
        with use_rung(conv2d=rung), watched("guarded"):
            out, cache = conv.forward(x, weight)
            gradients.append(conv.backward(np.sign(out), cache))
        assert cache.rung.name == rung
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_a_block_of_tiles_may_be_full(dtype):
    fill_a_block_of_tiles(conv2d, dtype)


@pytest.mark.skipif(JIT_OFF, reason="in plain Python an index past an array is an error by itself")
@pytest.mark.planted
@pytest.mark.parametrize("mutant", mutants_compiled.FULL_BLOCK, ids=str)
def test_a_full_block_without_room_is_found(mutant):
    with planted(mutant) as stand_ins, pytest.raises(OverrunError, match="a kernel wrote after"):
        fill_a_block_of_tiles(stand_ins["scratch_module"], FLOATS[0])


def copy_one_by_one(conv: Any) -> None:
    """Outputs one pixel wide, then one tile wide: a plan has a vector for each, as many as a block may have."""
    for rung, side, width in (("implicit_gemm", 1, 1), ("winograd", 3, 2)):
        x, weight = np.ones((1, 1, KC * width + side - 1, width + side - 1), np.float32), np.ones((1, 1, side, side), np.float32)
        with use_rung(conv2d=rung):
            out, cache = conv.forward(x, weight)
            _, grad_weight, _ = conv.backward(out, cache)
        assert cache.rung.name == rung
        assert (out == weight.size).all()
        assert np.all(grad_weight == out.sum())


def copied_in_plain_python(number: int | None) -> str:
    """The last line of what :func:`copy_one_by_one` says without the JIT, where no index is past an array; "" for nothing.

    ``number`` is that of the mistake to plant.
    """
    planting = "nullcontext({'scratch_module': conv2d})" if number is None else f"planted(mutants_compiled.FULL_PLAN[{number}])"
    code = f"""
from contextlib import nullcontext
from parity_tests.test_guards import *
with {planting} as stand_ins:
    copy_one_by_one(stand_ins["scratch_module"])
"""
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return "".join(run.stderr.splitlines()[-1:])


def test_a_plan_may_be_full():
    copy_one_by_one(conv2d)
    assert copied_in_plain_python(None) == ""


@pytest.mark.planted
@pytest.mark.parametrize(
    "number", range(len(mutants_compiled.FULL_PLAN)), ids=lambda number: str(mutants_compiled.FULL_PLAN[number])
)
def test_a_full_plan_without_room_is_found(number):
    assert copied_in_plain_python(number).startswith("IndexError")


def spreads_to_the_next_plane(pool: Any) -> bool:
    """Whether a plane whose windows all miss the image has a gradient, or gives the plane after it one.

    Guard words might not show this: as float32, every other one is a quiet NaN, which stays the same if a number is added.
    """
    grad_x = np.zeros((2, 12), np.float32)
    pool._backward_kernel(0, 1, np.ones((2, 5), np.float32), np.full((2, 5), 12, np.uint16), grad_x)
    return bool(grad_x.any())


def test_a_window_without_a_cell_has_no_gradient():
    assert not spreads_to_the_next_plane(max_pool2d)


@pytest.mark.parametrize("mutant", mutants_compiled.NO_CELL, ids=str)
def test_a_gradient_after_the_last_cell_is_found(mutant):
    with planted(mutant) as stand_ins:
        assert spreads_to_the_next_plane(stand_ins["scratch_module"])
