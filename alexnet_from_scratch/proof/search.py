"""A search for an input on which a test fails, by Hypothesis: the same search at every run, and nothing is kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

Draw = Callable[[st.SearchStrategy[Any]], Any]


def search(test: Callable[[Draw], None], cases: int, *, shrink: bool = True) -> None:
    """Call ``test`` with a function that draws its input, until it raises an AssertionError or has run for ``cases`` inputs.

    With ``shrink``, ``test`` is then called with smaller and smaller inputs; the last call that fails has the smallest one.
    A race between threads may fail at one call and pass at the next. This too ends the search.

    Raises:
        hypothesis.errors.Unsatisfiable: ``test`` assumed away every input.
    """

    @settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )
    @given(data=st.data())
    def searched(data: Any) -> None:
        test(data.draw)

    try:
        searched()
    except (AssertionError, Flaky):
        return
