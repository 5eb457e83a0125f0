"""Checks of a caller's arguments. Every message names the operation, the argument, what was expected and what was given."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
PLAIN = (np.ndarray, np.memmap, np.matrix)  # other subclasses may hold a mask or a unit, which would be lost
LARGE = 1 << 28  # bytes: smaller arrays are not checked for room


class _Shown(reprlib.Repr):
    """Python's repr of a value, but short: an array by dtype and shape, a long integer by its bits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 100

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, int) and x.bit_length() > 64:
            return f"an int of {x.bit_length()} bits"
        shape = getattr(x, "shape", None)
        if isinstance(shape, tuple) and shape and hasattr(x, "dtype"):
            return f"{type(x).__name__} of {x.dtype} with shape {tuple(shape)}"
        return super().repr1(x, level)


shown = _Shown().repr


def plain(operation: str, name: str, value: Any) -> Any:
    """Return ``value``, a NumPy array or scalar.

    Raises:
        TypeError: ``value`` is something else, or an array of a subclass that holds more than numbers, such as a masked array.
    """
    if type(value) not in PLAIN and not isinstance(value, np.generic):
        raise TypeError(f"{operation}: {name} {not_plain(value)}")
    return value


def not_plain(value: Any) -> str:
    """The message for a value that is not a plain array."""
    kind = "plain NumPy array" if isinstance(value, np.ndarray) else "NumPy array"
    return f"must be a {kind}, got {type(value).__name__}"


def room(operation: str, name: str, value: Any, what: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Check that ``what``, an array of ``shape`` and ``dtype``, fits into memory, before anything is made from ``value``.

    An axis of length 0 counts as 1, as in NumPy's own limit.

    Raises:
        ValueError: the array does not fit.
    """
    # The second product takes a microsecond, and is needed for empty arrays only.
    size = (math.prod(shape) or math.prod(max(length, 1) for length in shape)) * dtype.itemsize
    if size >= LARGE and not _fits(size):
        raise ValueError(f"{operation}: {name} must not make {what} {shape} too large for memory, got {shown(value)}")


def _fits(size: int) -> bool:
    if hasattr(os, "sysconf") and size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        return False  # some systems promise more than they have
    try:
        np.empty(size, np.uint8)  # untouched, so it costs nothing
    except (MemoryError, ValueError, OverflowError):
        return False
    return True


def array(operation: str, name: str, value: Any, *, dtype: np.dtype[Any] | None = None) -> np.ndarray:
    """``value`` as a C-contiguous float32 or float64 array in native byte order: itself or a view if possible, else a copy.

    A NumPy scalar counts as the 0-d array it came from: arithmetic on 0-d arrays, such as a scaled loss, returns scalars.

    Raises:
        TypeError: not a plain NumPy array, not float32 or float64, or not of ``dtype`` if one is given.
        ValueError: there is no room for the copy.
    """
    plain(operation, name, value)
    native = np.dtype(value.dtype.type)
    if native not in FLOATS:
        raise TypeError(f"{operation}: {name} must be float32 or float64, got {value.dtype} with shape {value.shape}")
    if dtype is not None and native != dtype:
        raise TypeError(f"{operation}: {name} must be {dtype} like the input, got {native} with shape {value.shape}")
    if not value.flags.c_contiguous:  # such as a view that repeats one number many times
        room(operation, name, value, "a copy in C order", value.shape, native)
    # np.asarray makes a plain array from a matrix or a memmap, but it does not align, hence the copy.
    checked = np.asarray(value, dtype=native, order="C")
    return checked if checked.flags.aligned else checked.copy()


def integer(operation: str, name: str, value: Any, *, low: int | None = None, high: int | None = None) -> int:
    """``value`` as an int from ``low`` to ``high``: anything Python accepts as an index, including NumPy's integers.

    Raises:
        TypeError: not an integer (a bool does not count as one, as in torch).
        ValueError: below ``low``, above ``high``, or too large for a 64-bit integer, which kernels take.
    """
    if _is_bool(value):
        raise TypeError(f"{operation}: {name} must be an int, got {shown(value)}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{operation}: {name} must be an int, got {shown(value)}") from None
    if low is not None and number < low:
        raise ValueError(f"{operation}: {name} must be at least {low}, got {shown(number)}")
    if high is not None and number > high:
        raise ValueError(f"{operation}: {name} must be at most {high}, got {shown(number)}")
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{operation}: {name} must fit into 64 bits, got {shown(number)}")
    return number


def _is_bool(value: Any) -> bool:
    """Whether ``value`` is a bool: Python's, NumPy's, or a tensor's, which Python would accept as an index."""
    if type(value) in (int, float):
        return False
    return isinstance(value, (bool, np.bool_)) or str(getattr(value, "dtype", "")).endswith("bool")


def pair(operation: str, name: str, value: Any, *, low: int) -> tuple[int, int]:
    """``value`` as (vertical, horizontal): an int counts for both.

    Raises:
        TypeError: neither an int nor a tuple or list of ints.
        ValueError: more than two ints, or none, or one below ``low``.
    """
    if not isinstance(value, (tuple, list)):
        both = integer(operation, name, value, low=low)
        return both, both
    if len(value) == 1:  # torch repeats a lone entry
        value = [*value, *value]
    if len(value) != 2:
        raise ValueError(f"{operation}: {name} must be an int or a pair of ints, got {shown(value)}")
    return integer(operation, name, value[0], low=low), integer(operation, name, value[1], low=low)


def axis(operation: str, name: str, value: Any, shape: tuple[int, ...]) -> int:
    """``value`` as an axis of an array of ``shape``, counted from the front; a 0-d array counts as (1,), as in torch.

    Raises:
        TypeError: not an integer.
        ValueError: no such axis.
    """
    number, ndim = integer(operation, name, value), max(len(shape), 1)
    if not -ndim <= number < ndim:
        raise ValueError(f"{operation}: {name} must lie between {-ndim} and {ndim - 1} for shape {shape}, got {number}")
    return number % ndim


def real(operation: str, name: str, value: Any) -> float:
    """``value`` as a float.

    Raises:
        TypeError: not a real number.
        ValueError: too large for a float.
    """
    real_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, np.timedelta64)
    if _is_bool(value) or not real_number:  # a span of time is an integer to NumPy
        raise TypeError(f"{operation}: {name} must be a number, got {shown(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{operation}: {name} must fit into a float, got {shown(value)}") from None


def probability(operation: str, name: str, value: Any) -> float:
    """``value`` as a float between 0 and 1.

    Raises:
        TypeError: not a real number.
        ValueError: NaN, or outside [0, 1].
    """
    number = real(operation, name, value)
    if not 0 <= number <= 1:  # also true for NaN
        raise ValueError(f"{operation}: {name} must lie between 0 and 1, got {number}")
    return number


def flag(operation: str, name: str, value: Any) -> bool:
    """``value`` as a bool.

    Raises:
        TypeError: not a bool.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{operation}: {name} must be True or False, got {shown(value)}")
    return bool(value)


def word(operation: str, name: str, value: Any, words: Sequence[str]) -> str:
    """``value``, one of ``words``.

    Raises:
        ValueError: it is none of them.
    """
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{operation}: {name} must be one of {', '.join(words)}, got {shown(value)}")
    return value


def floating(operation: str, name: str, value: Any) -> np.dtype[Any]:
    """``value``, float32 or float64 in any form that NumPy accepts, as a dtype.

    Raises:
        TypeError: something else; also None, which means float64 to NumPy and float32 to torch.
    """
    if value is None or isinstance(value, np.ndarray) or value not in FLOATS:
        raise TypeError(f"{operation}: {name} must be float32 or float64, got {shown(value)}")
    dtype: np.dtype[Any] = np.dtype(value)
    return dtype


def image(operation: str, name: str, value: Any) -> tuple[np.ndarray, bool]:
    """``value`` as a batch (N,C,H,W), and whether it was given without the batch axis, as (C,H,W).

    Raises:
        TypeError: see :func:`array`.
        ValueError: neither 3-D nor 4-D.
    """
    checked = array(operation, name, value)
    if checked.ndim == 3:
        return checked[np.newaxis], True
    if checked.ndim != 4:
        raise ValueError(f"{operation}: {name} must have shape (N,C,H,W) or (C,H,W), got {checked.shape}")
    return checked, False
