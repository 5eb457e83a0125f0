"""Mutants that may end the process, each hunted in a process of its own: ``python -m parity_tests.apart NUMBER``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from alexnet_from_scratch.proof.parity import ASSERTIONS
from parity_tests import mutants_declining, mutants_memory
from parity_tests.mutants import Kill, Mutant, hunt

ROOT = Path(__file__).parent.parent
MUTANTS: tuple[Mutant, ...] = (*mutants_memory.MUTANTS, *mutants_declining.UNSAFE)


def hunt_apart(mutant: Mutant) -> Kill | None:
    """:func:`hunt` in a process of its own. If a signal ends the process, that is how the mutant died.

    Raises:
        subprocess.TimeoutExpired: after ten minutes. This does not count as found.
        RuntimeError: the process failed in another way.
    """
    command = [sys.executable, "-m", __name__, str(MUTANTS.index(mutant))]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    lines = run.stdout.splitlines()
    last = json.loads(lines[-1]) if lines else None
    if isinstance(last, dict):  # found; what the mistake has broken may still end the process at its exit
        return Kill(**last)
    if run.returncode < 0 and last:  # a case that it announced
        return Kill(signal.Signals(-run.returncode).name, *last)
    if run.returncode != 0:
        raise RuntimeError(f"{mutant}: exit status {run.returncode}: {run.stderr}")
    return None


def main() -> None:
    """Print each case before it runs, since it may be the last; then how the mutant died, or null."""
    kill = hunt(MUTANTS[int(sys.argv[1])], ASSERTIONS, shrink=False, announce=lambda *case: print(json.dumps(case), flush=True))
    print(json.dumps(kill and asdict(kill)))


if __name__ == "__main__":
    main()
