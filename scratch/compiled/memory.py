"""Memory that is reused: getting fresh pages from the system and touching them for the first time costs more than a later pass.

:func:`empty` is np.empty for an operation's results: its memory goes back to a shelf when the last array that uses it is gone,
and the next result of that size takes it from there. :func:`workspace` is for buffers that never leave an operation.

Between any two steps of these functions, a signal handler, a finalizer or another thread may call them, and an exception may
end them. So there is no lock, and nothing is ever half done: a block changes hands in one call in C, and has one owner at any
moment. A block that is lost in between goes back to the system like any other array.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import functools
import itertools
import math
import sys
import threading
import weakref
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
# Large blocks begin at one of PLACES different offsets. Otherwise arrays that a kernel reads together, such as a parameter, its
# gradient and its velocity, would keep asking the same memory bank for different rows.
LARGE, SHIFT, PLACES = 1 << 20, 21 << 10, 31  # bytes, bytes, and how many
SMALL = 1 << 17  # bytes: the C library keeps freed memory up to this size; glibc returns more to the system


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array of that shape and dtype, C-contiguous and not initialized."""
    size = math.prod(shape) * dtype.itemsize
    if size <= SMALL:
        return np.empty(shape, dtype)
    return np.asarray(_Lease(_shelf.take(size))).view(dtype).reshape(shape)


def workspace(size: int, dtype: np.dtype[Any]) -> np.ndarray:
    """A buffer of ``size`` elements, 1-D, aligned, holding whatever was left in it.

    As long as an array uses the buffer, no other call gets its memory.
    """
    # Sizes are powers of two, so that the layers of a network share a few blocks. Pages that are never touched cost nothing.
    length = size * dtype.itemsize
    bits = (length | 15).bit_length()  # at least 16 bytes, so no less than an element
    if length >= LARGE:
        return np.asarray(_Lease(_shelf.take(1 << bits))).view(dtype)[:size]
    kinds = _spares.kinds
    spares = kinds.get((dtype, bits)) or kinds.setdefault((dtype, bits), collections.deque(maxlen=64))
    spare = _unseen(spares)
    if spare is None:
        memory, start = _from_system(1 << bits)
        spare = memory[start : start + (1 << bits)].view(dtype)
    buffer = spare[:size]
    spares.appendleft(spare)
    return buffer


def clear() -> None:
    """Give what lies on the shelf, and the workspaces of all threads, back to the system."""
    global _spares
    _shelf.clear()
    _spares = _Spares()


def empty_like(array: np.ndarray) -> np.ndarray:
    """:func:`empty`, of the array's shape and dtype."""
    return empty(array.shape, array.dtype)


def copy(array: np.ndarray) -> np.ndarray:
    """A copy in memory from :func:`empty`. A large copy begins at a cache line, so no vector straddles two lines."""
    copied = empty_like(array)
    copied[...] = array
    return copied


class _Block:
    """Memory that is either lent out or on the shelf."""

    __slots__ = ("array", "interface")

    def __init__(self, size: int) -> None:
        memory, start = _from_system(size)
        self.array = memory[start : start + size]
        self.interface = self.array.__array_interface__


class _Lease:
    """Holds a block for the arrays that use it. Every view of them keeps the lease alive; the lease's end frees the block."""

    __slots__ = ("__array_interface__", "__weakref__", "end")

    def __init__(self, block: _Block) -> None:
        self.__array_interface__ = block.interface
        # Not __del__: an interrupt inside a finalizer in Python is lost; this callback is one call in C.
        self.end = weakref.ref(self, functools.partial(_shelf.freed.setdefault, block))


class _Shelf:
    """The free blocks. If there are too many, the least recently used go back to the system."""

    def __init__(self) -> None:
        self.limit = 1 << 30  # bytes that may be free when a block is taken
        self.freed: dict[_Block, object] = {}  # blocks freed since the last take
        # By size in bytes. The most recently used size comes last, and so does the most recently used block of each size.
        self.blocks: collections.OrderedDict[int, collections.deque[_Block]] = collections.OrderedDict()
        # Bytes in all blocks. The number is never too low, except when two threads count at once. An interrupt may leave it too
        # high, so the bytes are counted again before anything is evicted.
        self.bytes = 0

    def take(self, size: int) -> _Block:
        """A block of that size; a new one if none is free."""
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
        """Evict down to seven eighths, so that counting is rare."""
        # A list of ints: while a list of pairs is made, older Pythons collect garbage, and a finalizer may take a block.
        self.bytes = sum(size * len(self.blocks.get(size, ())) for size in list(self.blocks))
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


class _Spares(threading.local):
    """Each thread's small workspaces, free or in use. They stay with the thread, since they are in its core's cache.

    They have no lease, which would cost small kernels too much. Instead, the number of references to a workspace's memory tells
    whether it is lent: every array that uses the memory holds one.
    """

    def __init__(self) -> None:
        # By dtype and ``bits``: a workspace has 2**bits bytes.
        self.kinds: dict[tuple[np.dtype[Any], int], collections.deque[np.ndarray]] = {}


_spares = _Spares()


def _unseen(spares: collections.deque[np.ndarray]) -> np.ndarray | None:
    """Find a spare that no other array uses, and take it out of the list, so that no other call gets it."""
    try:
        for _ in range(len(spares)):
            spare = spares.pop()
            if sys.getrefcount(spare.base) == 2:  # held by the spare, and by getrefcount's own argument
                return spare
            spares.appendleft(spare)
    except IndexError:  # a signal's handler took the last ones
        pass
    return None


_turn = itertools.count()
_first_byte, _address = ctypes.c_char.from_buffer, ctypes.addressof  # in a third of the time that array.ctypes.data takes


def _from_system(size: int) -> tuple[np.ndarray, int]:
    """Memory for that many bytes, and the aligned position in it at which they begin."""
    shift = next(_turn) % PLACES * SHIFT if size >= LARGE else 0
    memory: Any = np.empty(size + ALIGNMENT + shift, np.uint8)
    return memory, -_address(_first_byte(memory)) % ALIGNMENT + shift
