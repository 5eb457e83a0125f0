"""Memory that is used again: asking the system for fresh pages, and touching them first, costs more than a pass over them.

:func:`empty` is np.empty for an operation's results: its memory goes back to a shelf when the last array that looks at it is
gone, and the next result of that size takes it from there. :func:`workspace` is the same for buffers that never leave an
operation.

Signal handlers, finalizers and other threads may call all this between any two steps of it, and an exception may end it there.
So there is no lock, and nothing is half done: a block changes hands by one call in C, and has one owner at any moment. What is
lost in between goes back to the system like any other array.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import itertools
import math
import weakref
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
# Large blocks are shifted by different distances, PLACES of them. Arrays that a kernel walks through side by side, such as a
# parameter, its gradient and its velocity, would else ask the same bank of the memory for different rows, in turns.
LARGE, SHIFT, PLACES = 1 << 20, 21 << 10, 31  # bytes, bytes, and how many
SMALL = 1 << 17  # bytes: up to here the C library keeps what is freed; glibc hands more than that back to the system
_BYTE = np.dtype(np.uint8)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array of that shape and dtype, C-contiguous, holding whatever was left in its memory."""
    size = math.prod(shape) * dtype.itemsize
    if size <= SMALL:
        return np.empty(shape, dtype)
    return np.asarray(_Lease(_shelf.take(size))).view(dtype).reshape(shape)


def workspace(size: int, dtype: np.dtype[Any]) -> np.ndarray:
    """A buffer of ``size`` elements, 1-D, aligned, holding whatever was left in it: nobody else's while an array looks at it."""
    if size * dtype.itemsize <= SMALL:
        return _aligned(size, dtype)
    # By powers of two, so that the layers of a network share a few blocks; pages that nobody touches cost nothing.
    block = _shelf.take(1 << (size * dtype.itemsize - 1).bit_length())
    return np.asarray(_Lease(block)).view(dtype)[:size]


def clear() -> None:
    """Give what lies on the shelf back to the system."""
    _shelf.clear()


def empty_like(array: np.ndarray) -> np.ndarray:
    """:func:`empty`, of the array's shape and dtype."""
    return empty(array.shape, array.dtype)


def copy(array: np.ndarray) -> np.ndarray:
    """The same numbers in memory of :func:`empty`: where it is large it begins at a cache line, and no vector straddles two."""
    copied = empty_like(array)
    copied[...] = array
    return copied


class _Block:
    """Memory that is lent, or lies on the shelf."""

    __slots__ = ("array", "interface")

    def __init__(self, size: int) -> None:
        self.array = _aligned(size, _BYTE)
        self.interface = self.array.__array_interface__


class _Lease:
    """Holds a block for the arrays that look at it: every view of them keeps the lease alive, whose end frees the block."""

    __slots__ = ("__array_interface__", "__weakref__", "end")

    def __init__(self, block: _Block) -> None:
        self.__array_interface__ = block.interface
        # Not __del__: an interrupt that comes in the middle of a finalizer is lost, and this one is a call in C.
        self.end = weakref.ref(self, functools.partial(_shelf.freed.setdefault, block))


class _Shelf:
    """Blocks that are free. The least recently used go back to the system when too many are."""

    def __init__(self) -> None:
        self.limit = 1 << 30  # bytes that may lie free when a block is taken
        self.freed: dict[_Block, object] = {}  # since a block was taken last
        # By size in bytes; the size that was used last is the last, and so is the block in each.
        self.blocks: collections.OrderedDict[int, collections.deque[_Block]] = collections.OrderedDict()
        # Of all blocks: never too few but where two threads count at once. An interrupt may leave too many, so before
        # anything is evicted they are counted anew.
        self.bytes = 0

    def take(self, size: int) -> _Block:
        """A block of that size, from the system if there is none."""
        while self.freed:
            self._put()
        if self.bytes > self.limit:
            self._evict()
        blocks = self.blocks.get(size)
        if not blocks:
            return _Block(size)
        try:
            block = blocks.pop()
            self.bytes -= size
            self.blocks.move_to_end(size)
        except LookupError:  # another thread was faster: it took the last one, or evicted this size
            return _Block(size)
        return block

    def clear(self) -> None:
        self.freed.clear()
        self.blocks.clear()
        self.bytes = 0

    def _put(self) -> None:
        with contextlib.suppress(KeyError):  # another thread was faster
            block = self.freed.popitem()[0]
            size = block.array.nbytes
            self.bytes += size
            self.blocks.setdefault(size, collections.deque()).append(block)
            self.blocks.move_to_end(size)

    def _evict(self) -> None:
        """Down to seven eighths, so that the counting is rare."""
        self.bytes = sum(size * len(blocks) for size, blocks in list(self.blocks.items()))
        with contextlib.suppress(LookupError):  # other threads took the last ones
            while self.bytes > self.limit // 8 * 7:
                size, blocks = self.blocks.popitem(last=False)
                if blocks:
                    blocks.popleft()
                    self.bytes -= size
                if blocks:
                    self.blocks[size] = blocks
                    self.blocks.move_to_end(size, last=False)


_shelf = _Shelf()
_turn = itertools.count()


def _aligned(size: int, dtype: np.dtype[Any]) -> np.ndarray:
    shift = next(_turn) % PLACES * SHIFT if size * dtype.itemsize >= LARGE else 0
    raw = np.empty(size * dtype.itemsize + ALIGNMENT + shift, np.uint8)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(raw.data)) % ALIGNMENT + shift  # the fastest way to ask where it lies
    return np.ndarray(size, dtype, raw, start)
