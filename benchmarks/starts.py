"""What comes before the steady state: importing, compiling, the first step. Each measured in a process that did nothing before.

This module imports neither library, nor anything that does: the import is part of what is timed.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from time import perf_counter
from typing import Any

from benchmarks.processes import Process

# Where compiled code is kept, and whose: an empty folder there makes a cold start.
CACHES = {"scratch": "NUMBA_CACHE_DIR", "torch": "TORCHINDUCTOR_CACHE_DIR"}
# Neither library needs these, but Numba imports them where it finds them: 0.15 s that whoever installed the packages alone does
# not wait for. They are here for the data, the tests and the benchmark itself.
NOT_INSTALLED = ("coverage", "scipy")


class Start:
    """A newborn process, told to import a library and to train."""

    def load(self, library: str) -> float:
        """Seconds that the import takes, NumPy's included."""
        for name in NOT_INSTALLED:
            sys.modules[name] = None  # type: ignore[assignment]  # to import it is an ImportError from here on
        begin = perf_counter()
        self.library = importlib.import_module(f"benchmarks.{library}_side")
        return perf_counter() - begin

    def steps(self, side: Any, case: Any, arrays: Any) -> list[float]:
        """Seconds of the first training step and of the second."""
        subject = self.library.prepare(side, case, arrays, 1)
        seconds = []
        for _ in range(2):
            begin = perf_counter()
            subject.run()
            seconds.append(perf_counter() - begin)
        return seconds


def measure(threads: int, sides: list[Any], case: Any, arrays: Any) -> list[dict[str, Any]]:
    """A cold and a warm start of every side that compiles, a warm one of the others: Python has compiled them before, too."""
    found = []
    for side in sides:
        with tempfile.TemporaryDirectory() as folder:
            compiles = side.library == "scratch" or side.mode == "compile"
            for state in ("cold", "warm"):
                # Python keeps bytecode unless somebody forbade it, as build machines do; an empty value allows it again.
                environment = {CACHES[side.library]: folder, "PYTHONDONTWRITEBYTECODE": ""}
                with Process(threads, Start, **environment) as process:
                    loaded = process.ask("load", side.library)
                    first, second = process.ask("steps", side, case, arrays)
                if state == "warm" or compiles:
                    name = f"{side.name}, {state}" if compiles else side.name
                    found.append({"library": name, "import": loaded, "first": first, "second": second})
    return found
