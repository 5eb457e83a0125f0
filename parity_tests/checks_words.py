"""Each word's meaning in Python and what its emitter writes: the same numbers, in every array that the word gets.

The numbers are small integers, so no order of a sum matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np

from scratch.compiled import microkernel, vectors
from scratch.compiled.microkernel import HALF, MR, NR_VECTORS
from scratch.convolution import winograd_transforms
from scratch.fully_connected import few_rows
from scratch.pooling import window_maximum

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
Calls = Iterator[tuple[Any, ...]]


class Numbers:
    """Arrays of small integers, each another."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype, self.rng = dtype, np.random.default_rng(0)
        self.lanes = vectors.lanes(np.empty(0, dtype))

    def row(self, size: int) -> np.ndarray:
        return self.rng.integers(-9, 10, size).astype(self.dtype)

    def vector(self, size: int) -> np.ndarray:
        """At a whole vector's place."""
        row = np.empty(size + 64, self.dtype)
        begin = -row.ctypes.data % 64 // row.itemsize
        row[begin : begin + size] = self.row(size)
        return row[begin : begin + size]


def _elements(n: Numbers) -> Calls:
    for _ in range(9):
        yield tuple(n.row(3))


def _first(n: Numbers) -> Calls:
    yield (np.array([3, 4], np.int64),)


def _copies(n: Numbers) -> Calls:
    yield n.row(3 * n.lanes), 5, n.row(3 * n.lanes), 2


def _streams(n: Numbers) -> Calls:
    yield n.row(3 * n.lanes), 5, n.vector(3 * n.lanes), n.lanes


def _few(n: Numbers) -> Calls:
    for count in range(n.lanes + 2):
        yield n.row(3 * n.lanes), 1, n.row(3 * n.lanes), 2, count


def _squares(n: Numbers) -> Calls:
    offsets = np.arange(n.lanes + 2) * (n.lanes + 3)
    yield n.row(2 * (n.lanes + 3) ** 2), 2, offsets, 1, n.row(2 * (n.lanes + 3) ** 2), 3, n.lanes + 1


def _sums(n: Numbers) -> Calls:
    for parts in (0, 1, 7, 8, 19):
        yield n.row((parts + 2) * n.lanes), parts * n.lanes


def _largest(n: Numbers) -> Calls:
    yield from _sums(n)
    row = n.row(9 * n.lanes)
    row[::2] = np.nan
    yield row, 9 * n.lanes


def _dots(n: Numbers) -> Calls:
    for parts in (0, 1, 7, 8, 19):
        yield n.row((parts + 2) * n.lanes), 3, n.row((parts + 2) * n.lanes), 1, parts * n.lanes


def _row_products(n: Numbers) -> Calls:
    for steps in (0, 1, 5):
        row = (steps + 1) * n.lanes + 1
        yield steps, n.row(few_rows.WEIGHTS * row), 2, row, n.row(few_rows.ROWS * row + 1), 3, row, n.row(30 * n.lanes), 1


def _added_rows(n: Numbers) -> Calls:
    for steps, count in ((0, 2), (1, 1), (3, 2), (2, 5)):
        row = (steps + 1) * n.lanes + 1
        factors, block = n.row(2 * few_rows.ROWS + 3), n.row(few_rows.ROWS * row + 1)
        yield steps, factors, 3, n.row(few_rows.PAIR * row), 2, row, block, 1, row, count


def _tiles(n: Numbers) -> Calls:
    NR = NR_VECTORS * n.lanes
    for K, rows, add in ((0, MR, True), (0, MR, False), (1, HALF, True), (5, HALF + 1, False), (5, MR, True), (4, 1, False)):
        a, b, c = n.row(2 + 8 * MR), n.row(2 + 6 * (NR + 3)), n.row(1 + MR * (NR + 1))
        yield K, a, 2, MR, 1, b, 1, NR + 3, c, 1, NR + 1, rows, add
        yield K, a, 1, 1, 8, b, 2, NR, c, 0, NR, rows, add


def _windows(n: Numbers, palette: tuple[float, ...] = (-1, 0, 1, 2)) -> Calls:
    numbers = np.dtype(f"i{n.dtype.itemsize}")
    for rows, count in ((1, 1), (1, 3), (2, 1), (3, 2)):
        x = n.rng.choice(np.array(palette, n.dtype), 40 * n.lanes)
        outs = n.row(3 * n.lanes), np.zeros(3 * n.lanes, numbers)
        yield x, 2, 9, rows, 3, count, *outs, n.lanes


def _windows_with_nan(n: Numbers) -> Calls:
    yield from _windows(n)
    yield from _windows(n, (np.nan, -np.inf, 0, 1))


def _sandwiches(n: Numbers) -> Calls:
    offsets = n.rng.permutation(16) * (n.lanes + 1)  # of as many as the largest takes
    for size in (4, 9, 16):
        yield n.row(20 * (n.lanes + 1)), 2, offsets[:size], n.row(20 * (n.lanes + 2)), 3, n.lanes + 2


def _interleaved(n: Numbers) -> Calls:
    for count in range(2 * n.lanes + 1):
        yield n.row(4 * n.lanes), 1, 2 * n.lanes, n.dtype.type(3), n.row(3 * n.lanes), 2, count


TABLE: dict[str, tuple[Any, Callable[[Numbers], Calls]]] = {
    "multiply_add": (vectors, _elements),
    "load_acquire": (vectors, _first),
    "copy_vector": (vectors, _copies),
    "stream_vector": (vectors, _streams),
    "copy_few": (vectors, _few),
    "transpose_square": (vectors, _squares),
    "dot_of_vectors": (vectors, _dots),
    "sum_of_vectors": (vectors, _sums),
    "largest_of_vectors": (vectors, _largest),
    "row_products": (few_rows, _row_products),
    "add_rows": (few_rows, _added_rows),
    "micro_kernel": (microkernel, _tiles),
    "window_maximum": (window_maximum, _windows_with_nan),
    "window_maximum_of_numbers": (window_maximum, _windows),
    "weight_transform": (winograd_transforms, _sandwiches),
    "input_transform": (winograd_transforms, _sandwiches),
    "output_transform": (winograd_transforms, _sandwiches),
    "grad_transform": (winograd_transforms, _sandwiches),
    "grad_weight_transform": (winograd_transforms, _sandwiches),
    "interleave": (winograd_transforms, _interleaved),
}
WITHOUT_RESULT = ("prefetch_line", "stream_end")  # these change no number
SIDES = {"weight_transform": 9, "input_transform": 16, "output_transform": 16, "grad_transform": 4, "grad_weight_transform": 16}


def check_words() -> None:
    """Every word, on every row of its table."""
    for name, (module, calls) in TABLE.items():
        word = getattr(module, name)
        for dtype in FLOATS:
            for call in calls(Numbers(dtype)):
                if name in SIDES and len(call[2]) != SIDES[name]:
                    continue
                emitted, meant = (tuple(np.copy(part) if _is_long(part) else part for part in call) for _ in range(2))
                if name == "stream_vector":  # it writes to a whole vector's place
                    emitted = (*emitted[:2], call[2], emitted[3])
                    meant = (*meant[:2], call[2].copy(), meant[3])
                result, meaning = _compiled(word)(*emitted), word.meaning(*meant)
                what = f"{name} {dtype}"
                if meaning is not None:
                    np.testing.assert_array_equal(result, meaning, what)
                for i, (one, other) in enumerate(zip(emitted, meant, strict=True)):
                    np.testing.assert_array_equal(one, other, f"{what}, argument {i}")


def _is_long(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.ndim > 0


_KERNELS: dict[Any, Any] = {}


def _compiled(word: Any) -> Any:
    if word not in _KERNELS:

        @numba.njit(error_model="numpy")
        def kernel(*arguments):
            return word(*arguments)

        _KERNELS[word] = kernel
    return _KERNELS[word]
