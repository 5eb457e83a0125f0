"""Compiled kernels.

A kernel that Python calls is a plain loop over ``range(first, last)`` of independent work items. Numba compiles it to run
without the GIL, the lock that only one Python thread can hold at a time, so several threads (``threads.py``) may run it at
once. Functions that kernels call may be kernels, too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numba
from numba.core import config, types

from scratch.compiled import kernel_cache

_F = TypeVar("_F", bound=Callable[..., Any])

JIT_OFF: bool = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]  # set when Numba is imported


def kernel(function: _F) -> _F:
    """Compile ``function`` at its first call, keep the compiled code on disk, and run it without the GIL."""
    # error_model: division by zero gives inf or nan, as in NumPy. Never fastmath: it breaks NaN and the order of sums.
    # no_cfunc_wrapper: no C code calls a kernel, and without an entry point for C code it compiles faster.
    options: Any = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
    compiled = numba.njit(**options)(function)
    if hasattr(compiled, "get_call_template"):
        compiled.get_call_template = functools.partial(_template_of_plain_types, compiled.get_call_template)
    if hasattr(compiled, "_cache"):
        compiled._cache = kernel_cache.KernelCache(function)
    elif not JIT_OFF:
        kernel_cache.warn(f"Numba {numba.__version__} does not let a function keep another cache")
    return cast("_F", compiled)


def _template_of_plain_types(template: Callable[..., Any], args: Sequence[types.Type], kws: Mapping[str, types.Type]) -> Any:
    """``template`` without literal types: or else a kernel is compiled again for every constant that another one passes it."""
    return template([types.unliteral(each) for each in args], {name: types.unliteral(each) for name, each in kws.items()})
