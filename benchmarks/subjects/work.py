"""How much work a pass really is: the multiplications that its rung makes, and where its bytes come from.

Its definition's multiplications are in ``cases.py``. They make rates comparable between algorithms, but they limit nothing: an
algorithm that makes fewer of them may exceed the peak.
"""

from __future__ import annotations

import math

from benchmarks.subjects.cases import FLOAT, Case, Layer, Network, Update
from benchmarks.subjects.sides import copies
from scratch.convolution.winograd_tiles import Pieces


def made(case: Case, phase: str, rung: str, batch: int) -> float | None:
    """Multiplications and additions that the rung makes; for Winograd those of its products; None for a network of many rungs."""
    if isinstance(case, Network):
        return None
    if not isinstance(case, Layer) or rung != "winograd":
        return case.flops(phase, batch)
    assert case.weight is not None
    OC, C, KH, KW = case.weight
    products = int(Pieces.of(KH, KW).needed.sum()) * C * OC  # for one square of two by two outputs

    def squares(shape: tuple[int, ...]) -> int:
        return math.ceil(shape[1] / 2) * math.ceil(shape[2] / 2)

    count = squares(case.out)  # the output's squares; backward has as many for grad_weight, and for grad_x those of x
    if phase == "backward" and case.needs_grad_x:
        count += squares(case.shape)
    return 2.0 * batch * count * products


def stream(case: Case, batch: int, cache_bytes: int) -> str:
    """Which of the machine's streams (``measure/roof.py``) limits the bytes of a pass.

    An update in place reads the lines that it writes, a copy does not. Where all rotating buffers fit into the last-level cache
    together, the bytes never come from memory.
    """
    if isinstance(case, Update):
        return "update"
    if isinstance(case, Layer):
        moved = FLOAT * batch * (math.prod(case.shape) + math.prod(case.out))
        weight = 0 if case.weight is None else math.prod(case.weight)
        if copies(moved, cache_bytes) * moved + 2 * FLOAT * weight <= cache_bytes:
            return "cached"
    return "bytes"
