"""Checks of the arguments of helpers that both sides share. The checks of scratch's operations are in ``scratch/core``."""

from __future__ import annotations

import operator
import os
import reprlib
from collections.abc import Iterator
from typing import Any

import numpy as np


def integer(where: str, name: str, value: Any, *, low: int | None = None) -> int:
    """``value`` as an int.

    Raises:
        TypeError: not an int, in the name of ``where``. A bool is none.
        ValueError: below ``low``.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:  # an array, for example, is no index either
        number = None
    if number is None:
        raise TypeError(f"{where}: {name} must be an int, got {reprlib.repr(value)}")
    if low is not None and number < low:
        raise ValueError(f"{where}: {name} must be at least {low}, got {reprlib.repr(number)}")
    return number


def require_flag(where: str, name: str, value: Any) -> None:
    """Raise TypeError, in the name of ``where``, unless ``value`` is a bool, Python's or NumPy's."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{where}: {name} must be True or False, got {reprlib.repr(value)}")


def iterator(where: str, name: str, value: Any) -> Iterator[Any]:
    """An iterator over ``value``. If it is not iterable, raise a TypeError that names ``where``."""
    try:
        return iter(value)
    except TypeError:
        raise TypeError(f"{where}: {name} must be iterable, got {reprlib.repr(value)}") from None


def require_path(where: str, value: Any) -> None:
    """Check that ``value`` is a path.

    Raises:
        TypeError: something else, in the name of ``where``; to Python an int is an open file.
        ValueError: it has a character that no file's name has.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{where}: a file must be given by its path, got {reprlib.repr(value)}")
    try:
        possible = b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half a surrogate pair
        possible = False
    if not possible:
        raise ValueError(f"{where}: a path must have characters that a file's name can have, got {reprlib.repr(str(value))}")
