"""What the environment chooses, and what it gets wrong.

A wrong choice is an error when something is computed, not when scratch is imported: ``python -m scratch.train`` imports it before
anything of the command runs, which could then not say it plainly.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container

_wrong: list[str] = []


def choice(name: str, allowed: Container[int], wanted: str, otherwise: Callable[[], int]) -> int:
    """The int in a variable of the environment, or what ``otherwise`` returns where it is not set or wrong."""
    asked = os.environ.get(name)
    if asked is not None:
        if asked.isdecimal() and len(asked) < 10 and int(asked) in allowed:
            return int(asked)
        _wrong.append(f"{name} must be {wanted}, got {asked!r}")
    return otherwise()


def check() -> None:
    """Called before anything is computed by kernels.

    Raises:
        ValueError: a variable of the environment is wrong, or this is a Python without the GIL.
    """
    if _wrong:
        raise ValueError(_wrong[0])


# A list's iterator hands each range out once because one thread runs Python at a time; much else in core/ leans on that, too.
if not getattr(sys, "_is_gil_enabled", lambda: True)():
    _wrong.append(
        "scratch must run in a Python whose threads share a lock (the GIL), got a free-threaded one: PYTHON_GIL=1 turns it on"
    )
