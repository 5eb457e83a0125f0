"""Checks of a caller's arguments. Every message names the operation, the argument, what came and what was expected."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def array(operation: str, name: str, value: Any, *, dtype: np.dtype[Any] | None = None) -> np.ndarray:
    """``value`` as a C-contiguous float32 or float64 array in native byte order: itself if it is one, else a copy.

    A NumPy scalar counts as the 0-d array it came from: arithmetic on 0-d arrays, such as a scaled loss, returns scalars.

    Raises:
        TypeError: not a NumPy array, not float32 or float64, or not of ``dtype`` where one is asked for.
    """
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"{operation}: {name} must be a NumPy array, got {type(value).__name__}")
    native = np.dtype(value.dtype.type)
    if native not in FLOATS:
        raise TypeError(f"{operation}: {name} must be float32 or float64, got {value.dtype} with shape {value.shape}")
    if dtype is not None and native != dtype:
        raise TypeError(f"{operation}: {name} must be {dtype} like the input, got {native} with shape {value.shape}")
    # np.asarray makes a plain array of a subclass (a matrix, a memmap); it does not align, hence the copy.
    checked = np.asarray(value, dtype=native, order="C")
    return checked if checked.flags.aligned else checked.copy()


def integer(operation: str, name: str, value: Any, *, low: int | None = None) -> int:
    """``value`` as an int of at least ``low``.

    Raises:
        TypeError: not an integer (a bool is none here, as in torch).
        ValueError: below ``low``, or too large for a 64-bit integer, which is what kernels take.
    """
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{operation}: {name} must be an int, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{operation}: {name} must be an int, got {value!r}") from None
    if low is not None and number < low:
        raise ValueError(f"{operation}: {name} must be at least {low}, got {number}")
    if abs(number) >= 2**63:
        raise ValueError(f"{operation}: {name} must fit into 64 bits, got {number}")
    return number


def pair(operation: str, name: str, value: Any, *, low: int) -> tuple[int, int]:
    """``value`` as (vertical, horizontal): an int counts for both.

    Raises:
        TypeError: neither an int nor a sequence of ints.
        ValueError: more than two of them, or none, or one below ``low``.
    """
    if not isinstance(value, (tuple, list)):
        both = integer(operation, name, value, low=low)
        return both, both
    if len(value) == 1:  # torch repeats a lone entry
        value = [*value, *value]
    if len(value) != 2:
        raise ValueError(f"{operation}: {name} must be an int or a pair of ints, got {value!r}")
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
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{operation}: {name} must be a number, got {value!r}")
    return float(value)


def probability(operation: str, name: str, value: Any) -> float:
    """``value`` as a float between 0 and 1.

    Raises:
        TypeError: not a real number.
        ValueError: NaN, or outside [0, 1].
    """
    number = real(operation, name, value)
    if not 0 <= number <= 1:  # true for NaN, too
        raise ValueError(f"{operation}: {name} must lie between 0 and 1, got {number}")
    return number


def flag(operation: str, name: str, value: Any) -> bool:
    """``value`` as a bool.

    Raises:
        TypeError: not a bool.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{operation}: {name} must be True or False, got {value!r}")
    return bool(value)


def image(operation: str, name: str, value: Any) -> tuple[np.ndarray, bool]:
    """``value`` as a batch (N,C,H,W), and whether it came without its batch axis, as (C,H,W).

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
