"""Settings from environment variables, and errors in them.

A wrong setting raises an error when something is computed, not when scratch is imported. ``python -m scratch.train`` imports
scratch before any of the command's own code runs, so the command could not report the error plainly.
"""

from __future__ import annotations

import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Container
from typing import Any

import llvmlite.binding

from scratch.core.checks import shown

_wrong: list[str] = []


def choice(name: str, allowed: Container[int], wanted: str, otherwise: Callable[[], int]) -> int:
    """The int in an environment variable, or what ``otherwise`` returns if the variable is not set or is wrong."""
    asked = os.environ.get(name)
    if asked is not None:
        if asked.isdecimal() and len(asked) < 10 and int(asked) in allowed:
            return int(asked)
        _wrong.append(f"{name} must be {wanted}, got {shown(asked)}")
    return otherwise()


def check() -> None:
    """Call this before kernels compute anything.

    Raises:
        ValueError: an environment variable is wrong, or this Python runs without the GIL.
    """
    if _wrong:
        raise ValueError(_wrong[0])


try:
    os.getcwd()
except FileNotFoundError:
    raise FileNotFoundError("scratch: the working directory was deleted, and Numba compiles nothing without one") from None

# Numba raises an error at its import if one of these numbers is too small. For other values that it cannot read, it prints
# a warning with a traceback.
for _name, _least, _wanted in (
    ("NUMBA_NUM_THREADS", 1, "a positive int"),
    ("NUMBA_FUNCTION_CACHE_SIZE", 0, "an int of 0 or more"),
):
    if choice(_name, range(_least, 10**9), _wanted, lambda: -1) < 0:
        os.environ.pop(_name, None)
SETTINGS = ".numba_config.yaml"  # Numba also reads settings from this file in the working directory
with warnings.catch_warnings(record=True) as _warned:
    warnings.simplefilter("always")
    try:
        import numba
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) or not os.path.isfile(SETTINGS):
            raise
        what = textwrap.shorten(f"{error}", 200, placeholder="…")
        raise ImportError(
            f"scratch: {SETTINGS} in the working directory must hold settings that Numba can read, got {what}", name="numba"
        ) from error
for _warning in _warned:
    if str(_warning.message).startswith("Environment variable"):
        _wrong.append(textwrap.shorten(str(_warning.message).splitlines()[0], 300, placeholder="…"))
    else:
        warnings.warn_explicit(_warning.message, _warning.category, _warning.filename, _warning.lineno)

# If a feature has no sign, LLVM aborts the process as soon as a kernel is defined. If the processor lacks a feature, the
# process ends later, at the first instruction that needs it.
_config: Any = numba.config
for _feature in filter(None, (_config.CPU_FEATURES or "").split(",")):
    if _feature[0] not in "+-":
        _wrong.append(f"NUMBA_CPU_FEATURES must have + or - before each name, such as +avx2,-fma, got {shown(_feature)}")
    elif _feature[0] == "+" and llvmlite.binding.get_host_cpu_features().get(_feature[1:]) is False:
        _wrong.append(f"NUMBA_CPU_FEATURES must name features of this processor, which has no {_feature[1:]}")
    else:
        continue
    os.environ.pop("NUMBA_CPU_FEATURES", None)
    _config.CPU_FEATURES = None

# A list's iterator hands out each range once because only one thread runs Python at a time. Much other code relies on that,
# too.
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    _wrong.append("scratch must run in a Python with the GIL, got a free-threaded one without it. PYTHON_GIL=1 turns it on")
