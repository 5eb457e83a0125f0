"""All rungs, forward and backward, against the proof's reference: ``python -m tests.aarch64.compare ROWS CASES``.

It needs no torch, which takes too long on an emulator: the reference and its bounds are NumPy's. ROWS, 6 or 14, is the height of
the micro-kernel's tile: 14 is this processor's own, 6 is the one for processors with 16 registers.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

ROWS, CASES = map(int, sys.argv[1:])
numba.njit(lambda: 0)  # now Numba has asked for the true processor; below, only scratch gets another answer
triple = llvm.get_process_triple
if ROWS == 6:
    llvm.get_process_triple = lambda: "x86_64-unknown-linux-gnu"
import scratch  # noqa: E402

llvm.get_process_triple = triple
from alexnet_from_scratch.proof.bounds import Bounded, Rounding  # noqa: E402
from alexnet_from_scratch.proof.draws import FLOATS, values  # noqa: E402
from alexnet_from_scratch.proof.specs import RUNGS, Spec  # noqa: E402
from scratch.compiled.microkernel import MR  # noqa: E402


def compare(spec: Spec, rung: str, dtype: np.dtype[Any], draw: Callable[[Any], Any]) -> None:
    """Draw a call and compare every result of the rung with the reference's."""
    case = spec.call(draw, rung, dtype)
    with np.errstate(all="ignore"):
        expected, pull_back = spec.reference_of(rung)(Rounding(dtype), *case.arrays, **case.params)
        grad_out = draw(values(dtype, expected[0].value.shape, case.palette))
        expected += pull_back(grad_out)
    with scratch.use_rung(rung):
        out, cache = spec.scratch.forward(
            *(np.copy(array) if array is not None else None for array in case.arrays), **case.params
        )
        results = [*(out if isinstance(out, tuple) else (out,)), *spec.scratch.backward(grad_out, cache)]
    for number, (ours, theirs) in enumerate(zip(results, expected, strict=True)):
        if ours is None or not isinstance(theirs, Bounded):
            continue
        assert (ours.shape, ours.dtype) == (theirs.value.shape, dtype), f"result {number} of {case}"
        with np.errstate(all="ignore"):
            near = abs(ours.astype(theirs.value.dtype) - theirs.value) <= theirs.error
        near |= (ours == theirs.value) | (np.isnan(ours) & np.isnan(theirs.value)) | np.isposinf(theirs.error)
        assert near.all(), f"result {number} of {case}: {ours[~near][0]} for {theirs.value[~near][0]}"


def search(spec: Spec, rung: str, dtype: np.dtype[Any]) -> None:
    """Compare as many calls as the command asks for; a failure is not shrunk, since every call takes long here."""

    @settings(
        max_examples=CASES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(data=st.data())
    def searched(data: Any) -> None:
        compare(spec, rung, dtype, data.draw)

    searched()


if __name__ == "__main__":
    assert ROWS == MR, f"the tile must have {ROWS} rows, got {MR}"
    for spec, rung in RUNGS:
        for dtype in FLOATS:
            began = time.monotonic()
            search(spec, rung, dtype)
            print(f"{spec} {rung} {dtype}: {CASES} cases agree, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{platform.machine()}, tiles of {MR} rows: all {len(RUNGS)} rungs agree with the reference")
