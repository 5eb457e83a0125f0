"""Memory that is used again: asking the system for fresh pages, and touching them first, costs more than a pass over them.

:func:`empty` is np.empty for an operation's results: its memory goes back to a shelf when the last array that looks at it is
gone, and the next result of that size takes it from there. :func:`workspace` is for buffers that never leave an operation.
"""

from __future__ import annotations

import itertools
import math
import threading
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
# Large blocks are shifted by different distances, PLACES of them. Arrays that a kernel walks through side by side, such as a
# parameter, its gradient and its velocity, would else ask the same bank of the memory for different rows, in turns.
LARGE, SHIFT, PLACES = 1 << 20, 21 << 10, 31  # bytes, bytes, and how many
SMALL = 1 << 17  # bytes: up to here the C library keeps what is freed; glibc hands more than that back to the system


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array of that shape and dtype, C-contiguous, holding whatever was left in its memory."""
    size = math.prod(shape) * dtype.itemsize
    if size <= SMALL:
        return np.empty(shape, dtype)
    block = _shelf.take(size)
    if block is None:
        block = _aligned(size, np.dtype(np.uint8))
    return np.asarray(_Lease(block)).view(dtype).reshape(shape)


def clear() -> None:
    """Give what lies on the shelf, and the workspaces of all threads, back to the system."""
    global _buffers
    _shelf.clear()
    _buffers = _Buffers()


def empty_like(array: np.ndarray) -> np.ndarray:
    """:func:`empty`, of the array's shape and dtype."""
    return empty(array.shape, array.dtype)


def copy(array: np.ndarray) -> np.ndarray:
    """The same numbers in memory of :func:`empty`: where it is large it begins at a cache line, and no vector straddles two."""
    copied = empty_like(array)
    copied[...] = array
    return copied


class _Shelf:
    """Blocks that are free."""

    def __init__(self) -> None:
        # Here rather than among the module's names, which are gone when the last array ends at exit.
        self.limit = 1 << 30  # bytes that may lie free; beyond it memory goes back to the system
        self.blocks: dict[int, list[np.ndarray]] = {}  # by size in bytes
        self.bytes = 0
        self.lock = threading.RLock()  # taken again where freeing something inside ends a lease

    def take(self, size: int) -> np.ndarray | None:
        with self.lock:
            blocks = self.blocks.get(size)
            if not blocks:
                return None
            self.bytes -= size
            return blocks.pop()

    def put(self, block: np.ndarray) -> None:
        with self.lock:
            if self.bytes + block.nbytes <= self.limit:
                self.bytes += block.nbytes
                self.blocks.setdefault(block.nbytes, []).append(block)

    def clear(self) -> None:
        with self.lock:
            self.blocks.clear()
            self.bytes = 0


_shelf = _Shelf()


class _Lease:
    """Holds a block for the arrays that look at it: every view of them keeps the lease alive, whose end frees the block."""

    def __init__(self, block: np.ndarray) -> None:
        self.block = block
        self.put = _shelf.put  # bound here: at exit the module's own names may be gone
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        self.put(self.block)


class _Buffers(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[tuple[str, np.dtype[Any]], np.ndarray] = {}


_buffers = _Buffers()


def workspace(name: str, size: int, dtype: np.dtype[Any]) -> np.ndarray:
    """The calling thread's buffer of that name: at least ``size`` elements, 1-D, aligned, holding whatever was left in it.

    It is the same memory at every call with the name, so it must not leave the operation that asked for it.
    """
    buffer = _buffers.by_name.get((name, dtype))
    if buffer is None or buffer.size < size:
        buffer = _buffers.by_name[name, dtype] = _aligned(size, dtype)
    return buffer


_turn = itertools.count()


def _aligned(size: int, dtype: np.dtype[Any]) -> np.ndarray:
    shift = next(_turn) % PLACES * SHIFT if size * dtype.itemsize >= LARGE else 0
    raw = np.empty(size + (ALIGNMENT + shift) // dtype.itemsize, dtype)
    start = (-raw.ctypes.data % ALIGNMENT + shift) // dtype.itemsize
    return raw[start : start + size]
