"""Exercises: write an operation's backward pass yourself. If it is wrong, see the smallest input found that shows it.

``table.py`` has the order and the hints, ``examples.py`` the first inputs, ``stub.py`` makes the file to fill in from the
shipped source, ``answers.py`` calls what the reader wrote, ``judging.py`` runs it through the parity suite's generic test,
``mistakes.py`` names known mistakes, ``drawing.py`` shows the result. Begin with ``python -m alexnet_from_scratch.exercises
--help``, or in a notebook with :func:`check`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def check(operation: str, function: Callable[..., Any], cases: int = 150) -> bool:
    """Judge a backward pass, or sgd's update, that was defined in a notebook; print the verdict and return whether it is right.

    Args:
        operation: such as 'conv2d'.
        function: takes what ``scratch.conv2d.naive_backward`` takes and returns what that returns.
        cases: how many inputs of each kind to try.

    Raises:
        ValueError: there is no such exercise.
    """
    from rich.console import Console

    from alexnet_from_scratch.exercises.__main__ import judge
    from alexnet_from_scratch.exercises.answers import WrongAnswerError
    from alexnet_from_scratch.exercises.table import EXERCISES

    if operation not in EXERCISES:
        raise ValueError(f"check: operation must be one of {', '.join(EXERCISES)}, got {operation!r}")
    console = Console(highlight=False, width=120, force_jupyter=False)
    try:
        return judge(operation, function, cases, console)
    except WrongAnswerError as error:
        console.print(str(error), markup=False)
        return False
