"""Draws that find bugs, shrink well and are repeatable: arrays, their layout in memory, and the numbers in them.

An array is drawn as a string of bytes, one per element (a long array repeats them), and a palette maps each byte to one of 256
numbers. So Hypothesis sees the elements, shrinks each towards byte 0, and repeats a failure bit for bit. A draw takes
microseconds. In the first palettes, low bytes are the plain numbers 0, 1, -1, 2 …. Repeated values, and so ties, are common in
every palette.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from alexnet_from_scratch.proof.guards import CAN_FENCE, MEMORIES, fenced, fenced_off

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _palettes(dtype: np.dtype[Any]) -> dict[str, np.ndarray]:
    """Palettes by name. The plainest comes first, because failures shrink to the first."""
    info = np.finfo(dtype)
    steps = np.arange(256)
    integers = np.array([0, 1, -1, 2, -2, 3, -3, 4, -4])[steps % 9].astype(dtype)
    # The golden ratio's multiples modulo 1, scaled, fill (-2, 2) evenly with numbers that use all bits of their significand.
    reals = (4 * ((steps * 0.6180339887498949) % 1) - 2).astype(dtype)
    reals[:16] = integers[:16]
    # The exponents are spread from -12 to 12, so that sums have terms that must count and terms that are too small to count.
    wide = reals * np.ldexp(dtype.type(1), (steps * 7) % 25 - 12)
    scale = info.maxexp // 4
    odd = np.array([-np.inf, np.nan, np.inf, -0.0, 0.0, info.smallest_subnormal, -info.tiny / 4, info.tiny])[steps % 8]
    # A sum of a few products of two such numbers is near the largest float, and may be on either side of it.
    near_the_root = np.ldexp(reals, info.maxexp // 2 - 3)
    near_the_largest = np.ldexp(reals, info.maxexp - 2 - steps % 5)
    few_large = np.where(steps < 240, reals, np.ldexp(reals, scale + steps % 16 * (info.maxexp - 6 - scale) // 15))
    few_large[254:] = np.ldexp(reals[254:], info.maxexp - 1)  # one is close to the largest
    few_special = np.where(steps < 240, reals, odd)
    many_special = np.where(steps < 128, integers, odd)
    mostly_special = np.where(steps % 4 < 3, -np.inf, integers)  # as in masks; whole windows and rows of -inf
    return {
        "integers": integers,
        "reals": reals,
        "after relu": np.maximum(reals, 0),  # half of them are tied zeros
        "wide": wide.astype(dtype),
        "huge": np.ldexp(reals, scale).astype(dtype),
        "near the root": near_the_root.astype(dtype),
        "near the largest": near_the_largest.astype(dtype),
        "near the largest here and there": few_large.astype(dtype),
        "tiny": np.ldexp(reals, -scale).astype(dtype),
        "subnormal": (np.round(reals * 8) * info.smallest_subnormal).astype(dtype),
        "few special": few_special.astype(dtype),
        "special, NaN alone": np.where(steps < 240, reals, np.nan).astype(dtype),
        "many special": many_special.astype(dtype),
        "mostly special": mostly_special.astype(dtype),
    }


PALETTES = {dtype: _palettes(dtype) for dtype in FLOATS}


def drawn(function: Callable[..., Any]) -> Callable[..., st.SearchStrategy[Any]]:
    """A composite strategy, made once for each set of arguments: Hypothesis is slow to inspect a new one."""
    return cache(st.composite(function))


@lru_cache(maxsize=None, typed=True)  # 1 and 1.0 are different choices
def choice(*choices: Any) -> st.SearchStrategy[Any]:
    """Any of the choices; a failure shrinks to the first."""
    return st.sampled_from(choices)


@lru_cache(maxsize=1 << 12)
def values(dtype: np.dtype[Any], shape: tuple[int, ...], palette: str) -> st.SearchStrategy[np.ndarray]:
    """A C-contiguous array of ``shape`` with numbers of ``palette``."""
    size, numbers = math.prod(shape), PALETTES[dtype][palette]
    # A long array repeats itself after 509 elements. That is a prime number, so rows are not all equal.
    raw = st.binary(min_size=min(size, 509), max_size=min(size, 509))
    return raw.map(lambda raw: numbers[np.resize(np.frombuffer(raw, np.uint8), size)].reshape(shape))


def _sliced(array: np.ndarray) -> np.ndarray:
    every_other: tuple[Any, ...] = tuple(slice(1, 2 * n + 1, 2) for n in array.shape)
    view = np.zeros([2 * n + 1 for n in array.shape], array.dtype)[(..., *every_other)]
    view[...] = array
    return view


def _reversed(array: np.ndarray) -> np.ndarray:
    backwards: tuple[Any, ...] = (..., *[slice(None, None, -1)] * array.ndim)
    return array[backwards].copy()[backwards]


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def _unaligned(array: np.ndarray) -> np.ndarray:
    view = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _placed(array: np.ndarray, place: np.ndarray) -> np.ndarray:
    view = place.view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _before_a_fence(array: np.ndarray) -> np.ndarray:
    block, begin = fenced(array.nbytes)
    return _placed(array, block[begin:])


def _after_a_fence(array: np.ndarray) -> np.ndarray:
    return _placed(array, fenced_off(array.nbytes))


# Ways to lay out the same numbers in memory. A fence is a page that cannot be read: a kernel that touches it ends the process.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "C": lambda array: array.copy(),
    "Fortran": lambda array: array.copy(order="F"),
    "sliced": _sliced,
    "reversed": _reversed,
    "read-only": _read_only,
    "foreign byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "unaligned": _unaligned,
    **({"before a fence": _before_a_fence, "after a fence": _after_a_fence} if CAN_FENCE else {}),
}


def fewer(test: Callable[..., None]) -> Callable[..., None]:
    """For the many properties outside the generic test: a third of the profile's cases, at least ten.

    The profile must be loaded already: pytest does that before it imports any test.
    """
    return settings(max_examples=max(10, settings().max_examples // 3))(test)


@dataclass(frozen=True)
class Case:
    """One call of an operation: its positional arrays, its parameters by name, and the palette of its numbers."""

    arrays: tuple[Any, ...]
    params: dict[str, Any]
    palette: str

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.arrays[0].dtype

    @property
    def elements(self) -> int:
        """The number of elements in the positional arrays, by which failures are compared."""
        return sum(array.size for array in self.arrays if array is not None)

    def __str__(self) -> str:
        def show(value: Any) -> str:
            return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)

        arguments = [show(array) for array in self.arrays]
        arguments += [f"{name}={show(value)}" for name, value in self.params.items()]
        return f"({', '.join(arguments)}) of {self.palette}"


@cache
def int_or_pair(low: int, high: int) -> st.SearchStrategy[int | tuple[int, int]]:
    numbers = st.integers(low, high)
    return st.one_of(numbers, st.tuples(numbers, numbers))


def draw_arrays(
    draw: DrawFn,
    dtype: np.dtype[Any],
    *shapes: tuple[int, ...] | None,
    palettes: Sequence[str] | None = None,
    products: bool = False,
) -> tuple[Any, ...]:
    """An array for each shape (None for None), then the palette's name. All arrays use one palette, as in real data.

    Special numbers are an exception: often only the first array has them and the others have plain numbers, since an infinite
    weight would hide the effect of the rest. If the operation computes ``products`` of the arrays, the numbers may also be so
    large that they or their products are near the largest float. If only a few are so large, they are in a single array.
    """
    palette = draw(choice(*(palettes or [name for name in PALETTES[dtype] if products or not name.startswith("near")])))
    others = draw(choice("reals", palette)) if "special" in palette else "reals" if "here" in palette else palette
    at = draw(st.integers(0, len(shapes) - 1)) if "here" in palette else 0
    arrays = (
        None if shape is None else draw(values(dtype, shape, palette if i == at else others)) for i, shape in enumerate(shapes)
    )
    return *arrays, palette


layouts = st.sampled_from(list(LAYOUTS))
memories = st.sampled_from(("reused", *MEMORIES))  # "reused" is drawn more often: the others take longer
