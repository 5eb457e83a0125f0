"""The environment of a process that times a start."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure.starts import NOT_INSTALLED


def test_a_start_finds_only_what_the_libraries_need() -> None:
    code = (
        "import importlib, sys; from benchmarks.measure.starts import NOT_INSTALLED, Start; Start().load('scratch')\n"
        "for name in NOT_INSTALLED:\n"
        "    try: print(importlib.import_module(name))\n"
        "    except ImportError: print('not there')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["not there"] * len(NOT_INSTALLED)
