"""Memory with watched borders, to find what a kernel writes or reads outside its arrays.

:func:`watched` gives results and workspaces fresh memory, each with just the room that was asked for. Reused memory may have more
room, left by larger arrays, and would hide an overrun. All of the fresh memory holds NaN at first. So a number that is read
before it was written, or past the end, spoils every result that depends on it.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import mmap
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from scratch.compiled import memory

PAGE = mmap.PAGESIZE
GUARD = 4096  # bytes of guard words on either side
# Guard words are NaN in float32 and in float64. Adjacent words differ, so that a vector copied from place to place is found. In
# float64 they are signalling NaN, and so is their lower half in float32: adding a number changes the bits.
_NUMBERS = np.arange(1 << 18, dtype=np.uint64)
_WORDS = (0x7FF00001 + _NUMBERS << np.uint64(32)) + 0x7F800001 + _NUMBERS
_serial = itertools.count()

CAN_FENCE = sys.platform == "linux"
# How results and workspaces are allocated: as usual; with guard words on both sides; or so that they end at a page that cannot be
# read.
MEMORIES = ("reused", "guarded", *(["fenced"] if CAN_FENCE else []))


class OverrunError(AssertionError):
    """A kernel wrote outside its arrays."""


@contextmanager
def watched(kind: str) -> Iterator[None]:
    """In the block, the results and workspaces of scratch's operations are in memory of that kind, one of MEMORIES.

    Raises:
        OverrunError: at the end of the block, a guard word has changed. Touching a page that cannot be read ends the process.
    """
    if kind == "reused":
        yield
        return
    borders: list[tuple[str, np.ndarray, bytes]] = []

    def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        size = math.prod(shape) * dtype.itemsize
        block, begin = fenced(size) if kind == "fenced" else _guarded(size)
        words = block[: block.size // 8 * 8].view(np.uint64)
        start = next(_serial) * 977 % (1 << 16)
        words[:] = np.resize(_WORDS[start : start + words.size], words.size)
        for side, border in (("before", block[:begin]), ("after", block[begin + size :])):
            borders.append((f"{side} {dtype}{list(shape)}", border, border.tobytes()))
        return block[begin : begin + size].view(dtype).reshape(shape)

    with patch.multiple(memory, empty=empty, workspace=lambda size, dtype: empty((size,), dtype)):
        yield
    broken = [where for where, border, before in borders if border.tobytes() != before]
    if broken:
        raise OverrunError(f"a kernel wrote {', '.join(broken)}")


def _guarded(size: int) -> tuple[np.ndarray, int]:
    block = np.empty(2 * GUARD + memory.ALIGNMENT + size, np.uint8)
    return block, GUARD + -(block.ctypes.data + GUARD) % memory.ALIGNMENT


def fenced(size: int) -> tuple[np.ndarray, int]:
    """Memory that ends at a page that cannot be read, and where its last ``size`` bytes begin: at GUARD or later."""
    room = GUARD + math.ceil(size / PAGE) * PAGE
    return np.frombuffer(_pages(room, fence=room)[:room], np.uint8), room - size


def fenced_off(size: int) -> np.ndarray:
    """Memory of ``size`` bytes that begins after a page that cannot be read."""
    return np.frombuffer(_pages(max(size, 1), fence=0)[PAGE:], np.uint8)[:size]


def _pages(room: int, fence: int) -> memoryview:
    """Fresh memory of at least ``room`` bytes and one more page. The page at ``fence`` cannot be read.

    This returns no array, because an array's base must not extend over that page.
    """
    pages = mmap.mmap(-1, math.ceil(room / PAGE) * PAGE + PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(pages)) + fence
    if _protect()(address, PAGE, 0):
        raise OSError(ctypes.get_errno(), "mprotect failed")
    return memoryview(pages)


def _protect() -> Callable[[int, int, int], int]:
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return protect
