"""Buffers that outlive the call: asking the system for fresh memory, and touching it first, costs as much as a pass over it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector


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
        raw = np.empty(size + ALIGNMENT // dtype.itemsize, dtype)
        start = -raw.ctypes.data % ALIGNMENT // dtype.itemsize
        buffer = raw[start : start + size]
        _buffers.by_name[name, dtype] = buffer
    return buffer
