"""Everything at once, for seconds; for a minute under ``--profile=deep``."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.posix
def test_threads_signals_forks_and_changing_numbers_of_threads(request):
    seconds = 60 if request.config.getoption("--profile") == "deep" else 4
    command = [sys.executable, "-m", "parity_tests.stress", str(seconds)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "2"}  # forks wait for its threads
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + 900)
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
