"""Checks of what callers pass to the helpers that both sides share; scratch's operations have theirs in ``scratch/core``."""

from __future__ import annotations

import operator
import os
import reprlib
from collections.abc import Iterator
from typing import Any


def integer(where: str, name: str, value: Any) -> int:
    """``value`` as an int; a TypeError, in the name of ``where``, if it is none. A bool is none."""
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:  # an array, for example, is no index either
        pass
    raise TypeError(f"{where}: {name} must be an int, got {reprlib.repr(value)}")


def iterator(where: str, name: str, value: Any) -> Iterator[Any]:
    """An iterator over ``value``; a TypeError, in the name of ``where``, if there is none."""
    try:
        return iter(value)
    except TypeError:
        raise TypeError(f"{where}: {name} must be iterable, got {reprlib.repr(value)}") from None


def require_path(where: str, value: Any) -> None:
    """Raise TypeError, in the name of ``where``, unless ``value`` is a path: to Python an int is an open file."""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{where}: a file must be given by its path, got {reprlib.repr(value)}")
