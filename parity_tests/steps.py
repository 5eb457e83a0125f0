"""Exceptions before a chosen step that Python takes, in whatever version of it. A step is an opcode.

A signal's handler may raise at most opcodes, and at others in other versions of Python.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any


class Steps:
    """A trace function that raises ``error`` before the step ``left`` in the functions whose code it ``follows``; 0 for never."""

    def __init__(self, left: int, error: type[BaseException], follows: Callable[[CodeType], bool]) -> None:
        self.left = left
        self.error = error
        self.follows = follows
        self.last = ""  # event
        self.lost: list[str] = []  # where a line began without a step
        # Python 3.12 traces opcodes only if a frame asked for it before sys.settrace: here one that has ended.
        (lambda: sys._getframe())().f_trace_opcodes = True

    def __call__(self, frame: FrameType, event: str, _: Any) -> Any:
        if not self.follows(frame.f_code):
            return None
        if event == "call":  # in this order: from 3.13 on, a frame without a trace function asks in vain
            frame.f_trace, frame.f_trace_opcodes = self, True
        if self.last == "line" and event != "opcode":
            self.lost.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        self.last = event
        if event == "opcode" and frame.f_lineno is not None:  # None: 3.12 clears a generator, and no code could catch it
            self.left -= 1
            if self.left == 0:
                raise self.error
        return self
