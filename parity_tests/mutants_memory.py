"""Mistakes that let a kernel read or write outside its arrays, or leave a result unwritten.

Such a mistake may end the process: :mod:`parity_tests.apart` plants each in a process of its own.
"""

from __future__ import annotations

from parity_tests.mutants import Mutant, planting

NUMBA = "# --- numba"

CONVOLUTION = (
    *planting(
        "conv2d",
        "implicit_gemm",
        ("there is no room for what the last vector of a row of columns writes too much", "MR * KC + lanes(x)", "MR * KC"),
        (
            "a panel's sums are as many as there are taps",
            "(last - first) * MR * len(channels), x",
            "(last - first) * len(channels), x",
        ),
        module="scratch.convolution.implicit_gemm_grad_weight",
    ),
    *planting(
        "conv2d",
        "implicit_gemm",
        (
            "the last taps are read in whole vectors",
            "source + tap + j + lanes(weight) <= weight.size",
            "source + tap + j <= weight.size",
        ),
        ("weights have no room for the bias", "weight_panels * _before(K + 1, 1)", "weight_panels * _before(K, 1)"),
        ("a row's last pixels are written as a whole vector", "target + j, length - j)", "target + j, L)"),
        module="scratch.convolution.implicit_gemm_correlate",
    ),
    *planting(
        "conv2d",
        "implicit_gemm",
        ("there is no room for the vector after the padded input", " + NR_VECTORS * lanes(batch)", ""),
        module="scratch.convolution.packing",
    ),
    *planting(
        "conv2d",
        "winograd",
        ("there is no room for the vector after the outputs", "4 * NR + lanes(x)", "4 * NR"),
        ("an odd output has a row below its last", "h + 1 < H", "h < H"),
        module="scratch.convolution.winograd_correlate",
    ),
    *planting(
        "conv2d",
        "winograd",
        (
            "filters have no room for what the last vector writes too much",
            "(filters.C * KH * KW + 1) * whole",
            "filters.C * KH * KW * whole",
        ),
        module="scratch.convolution.winograd_filters",
    ),
    *planting(
        "conv2d",
        "winograd",
        ("U has no row for what the last vector writes too much", "ELEMENTS * (M_whole + 1) * KC", "ELEMENTS * M_whole * KC"),
        ("channels end with the last one", "groups * C + NR)", "groups * C)"),
        module="scratch.convolution.winograd_grad_weight",
    ),
)

OTHERS = (
    *planting(
        "linear",
        "numba",
        ("the last tile of weight reads past the last row", "o = min(left + t * STRIPE, OUT - STRIPE)", "o = left + t * STRIPE"),
        ("the last panel of features reads past the last row", "left = min(panel * NR, K - NR)", "left = panel * NR"),
        ("the last rows of weight's gradient are written past its end", "o = min(i * MR, OUT - MR)", "o = i * MR"),
        ("the last columns of weight's gradient are written past its end", "j = min(panel * NR, IN - NR)", "j = panel * NR"),
        ("the batch's panels have room for whole panels only", "math.ceil(rows / NR) * K * NR", "rows // NR * K * NR"),
        after=NUMBA,
    ),
    *planting(
        "linear",
        "numba",
        ("the last rows of weight are read past the end", "o = min(i * WEIGHTS, OUT - WEIGHTS)", "o = i * WEIGHTS"),
        ("missing rows of x have no room", "groups * ROWS * IN, x.dtype", "rows * IN, x.dtype"),
        ("the vector that is moved back has no room", "columns = length - width", "columns = length"),
        ("the last vector of columns is not moved back", "o * IN + IN - width", "o * IN + left + whole"),
        ("an odd row of weight is added with one after the end", "length, end - o)", "length, PAIR)"),
        module="scratch.fully_connected.few_rows",
    ),
    *planting(
        "max_pool2d",
        "numba",
        ("spare lanes read planes that are not there", "plane_at[lane] = (count - 1) * size", "plane_at[lane] = lane * size"),
        ("spare lanes are written", "transpose(largest, 0, output_at, count", "transpose(largest, 0, output_at, L"),
        after=NUMBA,
    ),
    *planting(
        "relu",
        "numba",
        ("one more number is written", "for i in range(x.size):\n        out[i]", "for i in range(x.size + 1):\n        out[i]"),
        ("the first gradient is not written", "for i in range(out.size):", "for i in range(1, out.size):"),
        after=NUMBA,
    ),
    *planting("dropout", "numba", ("one more number is written", "range(x.size)", "range(x.size + 1)"), after=NUMBA),
    *planting(
        "softmax",
        "numba",
        ("a row has one more class", "for c in range(C):\n            out", "for c in range(C + 1):\n            out"),
        after=NUMBA,
    ),
    *planting(
        "cross_entropy",
        "numba",
        (
            "exps have one class too few",
            "memory.empty_like(logits), memory.empty((",
            "memory.empty_like(logits[:, 1:]), memory.empty((",
        ),
        after=NUMBA,
    ),
    *planting(
        "adaptive_avg_pool2d",
        "numba",
        ("the row after a window is read", "range(top[oh], bottom[oh])", "range(top[oh], bottom[oh] + 1)"),
        after=NUMBA,
    ),
)

MUTANTS: tuple[Mutant, ...] = (*CONVOLUTION, *OTHERS)
