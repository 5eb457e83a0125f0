"""The vector kernels with vectors of other widths than this machine's: other tiles, other remainders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scratch.compiled.emission import VECTOR_BITS
from scratch.compiled.jit import JIT_OFF

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(JIT_OFF, reason="the width of a vector then only cuts the same loops elsewhere, and plain Python is slow")
@pytest.mark.parametrize("bits", [bits for bits in (128, 256, 512) if bits != VECTOR_BITS])
def test_kernels_are_right_on_vectors_of_another_width(bits, request):
    """In its own process: the width is fixed when scratch is imported. LLVM makes two narrow vectors of one that is too wide."""
    # Wider ones are emulated, which takes minutes to compile and run: too long for the default profile's ten.
    if bits > VECTOR_BITS and request.config.getoption("--profile") != "deep":
        pytest.skip(f"this processor has no vectors of {bits} bits; PROFILE=deep runs the kernels for them all the same")
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--profile=quick"]
    run = subprocess.run(
        [*suite, "parity_tests/test_operations.py", "-k", "numba or implicit_gemm or winograd"],
        cwd=ROOT, env=os.environ | {"SCRATCH_VECTOR_BITS": str(bits)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, f"{run.returncode}: {run.stdout}{run.stderr}"  # a process that was killed prints nothing
    assert " passed" in run.stdout
