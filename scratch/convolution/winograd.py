"""conv2d's rung ``winograd``: four outputs of a 3×3 window at stride 1 take 16 multiplications instead of the definition's 36.

For a 5×5 window they take 49 instead of 100.

Two neighbouring outputs of a 3-tap filter g read four cells d and share two of them. Four products are enough for both:

    m0 = (d0 - d2)·g0    m1 = (d1 + d2)·(g0 + g1 + g2)/2    m2 = (d2 - d1)·(g0 - g1 + g2)/2    m3 = (d1 - d3)·g2
    y0 = m0 + m1 + m2    y1 = m1 - m2 - m3

With three small matrices this is y = Aᵀ[(G g) ⊙ (Bᵀ d)]. Applied both down and across the image, the formula becomes

    Y (2,2) = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A           d (4,4), g (3,3), ⊙ elementwise

(Winograd 1980; Lavin and Gray 2015, "Fast algorithms for convolutional neural networks", section 4). The sum over channels may be
taken before the last step. So each of the 16 elements of the square has a matrix product for the micro-kernel:

    products (OC, tiles) = U (OC, C) · V (C, tiles)     U = G g Gᵀ, V = Bᵀ d B, tiles N·⌈OH/2⌉·⌈OW/2⌉

The gradients come from the same formula. grad_x runs the same kernel over windows of grad_out, with flipped filters. grad_weight
exchanges the roles:

    grad_weight = Gᵀ [ Σ_tiles (A grad_Y Aᵀ) ⊙ (Bᵀ d B) ] G      in the middle (OC, tiles) · (tiles, C), for each element

A larger window is cut into 3×3 pieces, filled up with zeros at the bottom and on the right. A piece whose first tap is (kh,kw) is
a separate filter, over the patch d that begins kh rows and kw columns later. All pieces are added up before Aᵀ·A, so the product
sees them as more channels: K = pieces·C instead of C. A piece that is only two taps wide has g2 = 0, and therefore no m3. So of
a 5×5 window's four pieces, one has products for 16 elements, two for 12, and the last, 2×2, for 9.

The price is rounding. V holds differences of cells, so an output's rounding error also depends on cells outside its window; the
bound of this rung (``alexnet_from_scratch/proof/reference_winograd.py``) counts them. Halves and sums are exact for small
integers. Terms that cancel in the end may overflow on the way: ``winograd_tiles.limit_of`` says which numbers are safe.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from scratch.compiled import memory
from scratch.convolution.geometry import Geometry, Gradients
from scratch.convolution.implicit_gemm import grad_bias_of, implicit_gemm_backward
from scratch.convolution.winograd_correlate import correlate
from scratch.convolution.winograd_grad_weight import grad_weight_of
from scratch.convolution.winograd_tiles import Filters, limit_of
from scratch.core.ladder import NotTakenError

SIZES = (3, 5, 6)  # of a window's sides; 4 = 3 + 1 taps would save next to nothing


def winograd_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Multiply less: a 2×2 block of outputs takes 16 multiplications for a 3×3 window, where the definition takes 36."""
    OC, _, KH, KW = weight.shape
    if KH not in SIZES or KW not in SIZES or geometry.stride != (1, 1) or geometry.dilation != (1, 1):
        raise NotTakenError("conv2d: winograd takes windows 3, 5 or 6 high and wide, at stride 1 without dilation")
    if max(geometry.top, geometry.bottom) >= KH or max(geometry.left, geometry.right) >= KW:
        raise NotTakenError("conv2d: winograd does not take windows entirely outside x")
    if x.size == 0:
        raise NotTakenError("conv2d: winograd does not take empty arrays")
    biases = np.zeros(OC, x.dtype) if bias is None else bias
    if not np.all(np.abs(biases) <= np.finfo(x.dtype).max / 2):
        raise NotTakenError("conv2d: winograd takes a bias of at most half the largest number")
    out = memory.empty((len(x), OC, geometry.OH, geometry.OW), x.dtype)
    filters = Filters.of(weight, geometry.groups)
    correlate(x, geometry.top, geometry.left, filters, biases, out, limit_of(x, weight, geometry))
    return out, (x, weight, bias is not None, geometry)


def winograd_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    with contextlib.suppress(NotTakenError):
        grad_x = _grad_x(grad_out, x, weight, geometry) if need_grad_x else None
        return grad_x, grad_weight_of(grad_out, x, weight, geometry), grad_bias_of(grad_out) if has_bias else None
    return implicit_gemm_backward(grad_out, x, weight, has_bias, geometry, need_grad_x=need_grad_x)


def _grad_x(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The transposed convolution: a correlation of grad_out with the kernel rotated by 180° and its channel axes exchanged.

    Output oh reads cell h through the tap kh = h + top - oh. So cell h gets its gradient from the window of grad_out that begins
    at h + top - (KH-1), with the taps in reverse.
    """
    _, _, KH, KW = weight.shape
    grad_x = memory.empty_like(x)
    flipped = Filters.of(weight, geometry.groups, flipped=True)
    no_bias = np.zeros(x.shape[1], x.dtype)
    limit = limit_of(x, weight, geometry)
    correlate(grad_out, KH - 1 - geometry.top, KW - 1 - geometry.left, flipped, no_bias, grad_x, limit)
    return grad_x
