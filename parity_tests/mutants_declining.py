"""Mistakes that widen what a rung takes. The rung may even be right there: what it says it declines, it must decline.

Those that no draw reaches are in :mod:`parity_tests.mutants_core`.
"""

from __future__ import annotations

from parity_tests.mutants import Mutant, planting

WINDOWS = "KH not in SIZES or KW not in SIZES or"

MUTANTS: tuple[Mutant, ...] = (
    *planting(
        "conv2d",
        "implicit_gemm",
        ("empty arrays are taken", "x.size == 0 or not", "not"),
        ("NaN is taken in weights", "np.isfinite(weight).all()", "(np.isnan(weight) | np.isfinite(weight)).all()"),
        module="scratch.convolution.implicit_gemm",
    ),
    *planting(
        "conv2d",
        "winograd",
        ("windows of four rows are taken", WINDOWS, "KH not in (3, 4, 5, 6) or KW not in SIZES or"),
        ("windows of four columns are taken", WINDOWS, "KH not in SIZES or KW not in (3, 4, 5, 6) or"),
        ("windows of two columns are taken", WINDOWS, "KH not in SIZES or KW not in (2, 3, 5, 6) or"),
        ("empty arrays are taken", "x.size == 0", "False"),
        module="scratch.convolution.winograd",
    ),
    *planting(
        "conv2d",
        "winograd",
        ("taps are taken down to zero", "type(4 * np.finfo(filters.weight.dtype).tiny)", "type(0)"),
        module="scratch.convolution.winograd_filters",
    ),
)

# These let a kernel read or write outside its arrays.
UNSAFE: tuple[Mutant, ...] = (
    *planting(
        "conv2d",
        "winograd",
        ("any stride is taken", "geometry.stride != (1, 1) or ", ""),
        ("any dilation is taken", " or geometry.dilation != (1, 1)", ""),
        (
            "padding of a whole window is taken, above",
            "max(geometry.top, geometry.bottom) >= KH",
            "max(geometry.top, geometry.bottom) > KH",
        ),
        (
            "padding of a whole window is taken, on the left",
            "max(geometry.left, geometry.right) >= KW",
            "max(geometry.left, geometry.right) > KW",
        ),
        module="scratch.convolution.winograd",
    ),
    *planting(
        "linear",
        "numba",
        ("weights narrower than a tile are taken", "max(MR, NR_VECTORS * lanes(x)) > IN or MR > OUT", "MR > OUT"),
        ("weights narrower than a tile by one column are taken", "lanes(x)) > IN", "lanes(x)) > IN + 1"),
        ("weights lower than a tile are taken", " or MR > OUT", ""),
        ("weights lower than a tile by one row are taken", "MR > OUT", "MR > OUT + 1"),
    ),
)
