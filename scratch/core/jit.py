"""Compiled kernels.

A kernel is a plain Python loop over ``range(first, last)`` of independent pieces of work, compiled by Numba without the
GIL, so that threads (``threads.py``) may run it side by side.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config

_F = TypeVar("_F", bound=Callable[..., Any])

JIT_OFF: bool = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]  # set when Numba is imported


def kernel(function: _F) -> _F:
    """Compile ``function`` at its first call, keep the result on disk, and let it run without the GIL."""
    # error_model: division by zero gives inf or nan, as in NumPy. Never fastmath: it breaks NaN and the order of sums.
    # The cache on disk does not know about a forced vector width, so there is none then.
    cache = "SCRATCH_VECTOR_BITS" not in os.environ
    compiled = numba.njit(cache=cache, nogil=True, error_model="numpy")(function)
    if cache and not JIT_OFF:
        # Numba compiles anew when the function's own file has changed. Its words come from other files too.
        index = compiled._cache._cache_file  # type: ignore[attr-defined]
        index._source_stamp = index._source_stamp, _words(function)
    return cast("_F", compiled)


def _words(function: Callable[..., Any]) -> tuple[Any, ...]:
    """The state of the files that a kernel may take its words from: those of core, and those that its module imports from."""
    modules = {getattr(value, "__module__", None) for value in function.__globals__.values()}
    files = {str(sys.modules[name].__file__) for name in modules if name and name.startswith("scratch.")}
    return tuple(_stamp(file) for file in sorted(files | {str(file) for file in Path(__file__).parent.glob("*.py")}))


@functools.cache
def _stamp(file: str) -> tuple[str, int, int]:
    state = Path(file).stat()
    return Path(file).name, state.st_mtime_ns, state.st_size
