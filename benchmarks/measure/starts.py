"""What comes before the steady state: importing, compiling, the first step. Every start is measured in a fresh process.

This module imports neither library, nor anything that imports one: the import is part of what is timed.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from time import perf_counter
from typing import Any

from benchmarks.measure.processes import Process

# The variables that say where each library keeps compiled code: an empty folder makes a cold start.
CACHES = {"scratch": "NUMBA_CACHE_DIR", "torch": "TORCHINDUCTOR_CACHE_DIR"}
# Neither library needs these, but Numba imports them if it finds them. That takes 0.15 s, for which a user who installed only the
# two libraries does not wait. The data, the tests and the benchmark itself need them.
NOT_INSTALLED = ("coverage", "scipy")


class Start:
    """A fresh process that imports a library and trains."""

    def load(self, library: str) -> float:
        """The seconds that the import takes, including NumPy's."""
        for name in NOT_INSTALLED:
            sys.modules[name] = None  # type: ignore[assignment]  # importing it now raises ImportError
        begin = perf_counter()
        self.library = importlib.import_module(f"benchmarks.subjects.{library}_side")
        return perf_counter() - begin

    def steps(self, side: Any, case: Any, arrays: Any) -> list[float]:
        """The seconds of the first and of the second training step."""
        subject = self.library.prepare(side, case, arrays, 1)
        seconds = []
        for _ in range(2):
            begin = perf_counter()
            subject.run()
            seconds.append(perf_counter() - begin)
        return seconds


def measure(threads: int, sides: list[Any], case: Any, arrays: Any) -> list[dict[str, Any]]:
    """A cold and a warm start of every side that compiles, and a warm start, with Python's bytecode compiled, of the others."""
    found = []
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            compiles = side.library == "scratch" or side.mode == "compile"
            for state in ("cold", "warm"):
                # Python keeps bytecode unless that is disabled, as on build machines; an empty value enables it again.
                environment = {CACHES[side.library]: folder, "PYTHONDONTWRITEBYTECODE": ""}
                with Process(threads, Start, **environment) as process:
                    loaded = process.ask("load", side.library)
                    first, second = process.ask("steps", side, case, arrays)
                if state == "warm" or compiles:
                    name = f"{side.name}, {state}" if compiles else side.name
                    found.append({"library": name, "import": loaded, "first": first, "second": second})
    return found
