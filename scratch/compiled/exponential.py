"""exp for kernels, as a polynomial: LLVM vectorizes it. The C library's exp would be called for one number at a time.

With n the whole number nearest to x / ln 2, and r = x - n·ln 2 within ±0.35,

    exp(x) = 2^n · exp(r) ≈ 2^n · (1 + r + r²/2! + … + r^d/d!)

2^n is built from its bits: n goes into the exponent bits. n itself comes from bits, too. A float as large as 1.5·2^mantissa has
no bits for fractions, so adding that number rounds x / ln 2 and leaves n in the last bits of the sum. ln 2 is split into two
parts. The first part has so few bits that n times it is exact. Therefore r loses no digits.

The omitted terms are below a tenth of a unit in the last place. The error is below 1.3 units in the last place, in float32 and
float64, and below one unit if the processor has a fused multiply-add. Where exp would be subnormal, the result is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from scratch.compiled.vectors import multiply_add


def _exp_of(real: Any, whole: Any, ln2_high: float, ln2_low: float, terms: int) -> Callable[[Any], Any]:
    """The function exp for the float type ``real``, whose bits are read as the integer type ``whole``."""
    form = np.finfo(real)
    mantissa, bias = whole(form.nmant), whole(form.maxexp - 1)
    rounder, per_ln2 = real(1.5 * 2.0**form.nmant), real(1 / math.log(2))
    rounder_bits = rounder.view(whole)
    high, low = real(ln2_high), real(ln2_low)
    smallest, zero = real(math.log(form.tiny)), real(0)
    factors = tuple(real(1 / math.factorial(i)) for i in reversed(range(terms)))

    def exp(x: Any) -> Any:
        shifted = real(x * per_ln2 + rounder)
        n = shifted - rounder
        r = multiply_add(-n, low, multiply_add(-n, high, x))
        series = factors[0]
        for factor in factors[1:]:
            series = multiply_add(series, r, factor)
        power = whole((shifted.view(whole) - rounder_bits + bias) << mantissa).view(real)
        return zero if x < smallest else series * power

    return exp


_EXP = {
    "float32": _exp_of(np.float32, np.int32, 0.693359375, -2.1219444005469057e-4, 8),
    "float64": _exp_of(np.float64, np.int64, 0.6931471803691238, 1.9082149292705877e-10, 14),
}


def exp(x: Any) -> Any:
    """The exponential of x, a float32 or float64. x must be NaN or, up to rounding, at most 0."""
    return _EXP[type(x).__name__](x)


@overload(exp)
def _exp_when_compiled(x: Any) -> Any:
    return _EXP[str(x)]
