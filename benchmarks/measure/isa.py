"""Run both sides as on an older machine: environment variables tell each library what the processor lacks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

ISAS = {
    "avx2": {
        # scratch: what Numba compiles for, and the width of its vectors.
        "NUMBA_CPU_NAME": "haswell",
        "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+bmi,+bmi2,+lzcnt,+popcnt,+f16c,+sse4.2",
        "SCRATCH_VECTOR_BITS": "256",
        # NumPy's BLAS; then torch's own kernels, its convolutions and its matrix products.
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
}


@contextmanager
def pretended(isa: str | None) -> Iterator[None]:
    """Processes that start within the block take the processor for one that has no more than ``isa``; None changes nothing."""
    before = dict(os.environ)
    os.environ.update(ISAS[isa] if isa else {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def current() -> str:
    """The instruction set that the processor pretends to have; "" if it pretends nothing."""
    return next((isa for isa, variables in ISAS.items() if variables.items() <= os.environ.items()), "")
