"""conv2d's rung ``implicit_gemm``: im2col's matrix products, but im2col's matrix is never written.

im2col's products use each number many times, so its matrix is worth its memory. But it is KH·KW times as large as the image, and
im2col spends its time writing it and reading it back. Here a panel, a few columns of that matrix, is packed straight from the
image when the product needs it, into a buffer that stays in the cache. The micro-kernel (``compiled/microkernel.py``) multiplies
it:

    out          (OC, pixels) = weight (OC, K) · columns of x (K, pixels)           K = C/G·KH·KW taps, G the groups
    grad_x       (C, pixels)  = weight' (C, K') · columns of g (K', pixels)         K' = OC/G·KH·KW taps
    grad_weight' (K, OC)      = columns of x (K, pixels) · g' (pixels, OC)          a block of pixels at a time

where "pixels" counts those of all images: N·OH·OW, or N·H·W for grad_x. Forward and grad_x share one kernel
(``implicit_gemm_correlate.py``); grad_weight has its own (``implicit_gemm_grad_weight.py``). grad_x is a transposed
convolution: a convolution of g with the window turned by 180° and its two channel axes exchanged. Forward's window reads x at
h + kh·dilation; grad_x's window reads g at h - kh·dilation. With a stride, only every stride-th tap meets an output, and
h % stride decides which taps these are (:func:`_grad_x`).

Three things make packing cheap. The image is first copied with zeros around it (``packing.py``), so no copy has to check for the
border. In this copy, columns of the image that are one stride apart lie next to each other. So, for every tap, windows side by
side read contiguous cells. And copies move whole vectors: what one copy writes beyond its end, the next one overwrites, and
after the last one there is spare room.

Sums run in blocks of KC taps, or of at most KC pixels (``compiled/blocks.py`` says why, and how many panels share a block). KC is
one number for all machines, so the bits depend neither on the threads nor on the caches.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.threads import for_each
from scratch.convolution.geometry import Geometry, Gradients
from scratch.convolution.implicit_gemm_correlate import Rows, correlate
from scratch.convolution.implicit_gemm_grad_weight import grad_weight_of
from scratch.convolution.packing import Grid, Layout, pad
from scratch.core.ladder import NotTakenError


def implicit_gemm_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Pack panels of im2col's matrix from the image into the cache as needed: the matrix is never written or read back."""
    OC, C_group, KH, KW = weight.shape
    G = geometry.groups
    # In backward, grad_x multiplies every weight with zeros around grad_out, and 0 · inf is NaN. Forward decides, since backward
    # runs on the same rung. If the sum of the weights is finite, so is every weight. But the sum of finite weights may
    # overflow, so then each weight is checked.
    if x.size == 0 or not (np.isfinite(weight.sum()) or np.isfinite(weight).all()):
        raise NotTakenError("conv2d: implicit_gemm takes neither empty arrays nor weights that are infinite or NaN")
    layout = Layout.around_x(x.shape, geometry)
    out = memory.empty((len(x), OC, geometry.OH, geometry.OW), x.dtype)
    M, K = OC // G, C_group * KH * KW
    biases = (np.zeros(OC, x.dtype) if bias is None else bias).reshape(G, M)
    # (OC,C/G,KH,KW) is (G, M, C/G, KH·KW)
    rows = Rows(weight.ravel(), (M * K, K, KH * KW), np.arange(KH * KW)[None], biases, np.arange(M) * (geometry.OH * geometry.OW))
    grid = Grid(geometry.OH, geometry.OW, geometry.stride[0] * layout.row, 0, 0, 1, 1)
    correlate(pad(x, layout), layout.taps_of_x(C_group, KH, KW, geometry), rows, grid, out)
    return out, (x, weight, bias is not None, geometry)


def implicit_gemm_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    grad_x = _grad_x(grad_out, x, weight, geometry) if need_grad_x else None
    return grad_x, grad_weight_of(grad_out, x, weight, geometry), grad_bias_of(grad_out) if has_bias else None


def _grad_x(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A cell of x gets its gradient from a window of grad_out. Cells whose windows have the same shifts share one product.

    The rows of that product are the channels of all these cells.

    Tap kh of output oh reads the cell h with top + h = oh·stride + kh·dilation. So the cells h = h0 + i·stride are read by
    those kh for which the stride divides top + h0 - kh·dilation =: stride·shift. The outputs that read them are oh = i + shift.
    With stride 4 and 11 taps (conv1), h0 = 2 and h0 = 3 have the shifts 1, 0 and -1, through different taps: one product serves
    both.
    """
    H, W = x.shape[2:]
    OC, C_group, KH, KW = weight.shape
    G = geometry.groups
    grad_x = memory.empty_like(x)
    # The largest shifts give the number of rows and columns of zeros around grad_out.
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    top, left = (KH - 1) * dh // sh, (KW - 1) * dw // sw
    bottom = max(0, (geometry.top + H - 1) // sh - geometry.OH + 1)
    right = max(0, (geometry.left + W - 1) // sw - geometry.OW + 1)
    layout = Layout.around(grad_out.shape, top, bottom, left, right, 1)
    padded = pad(grad_out, layout)
    # (OC,C/G,KH,KW) is (G, OC/G, C/G, KH·KW): the product's rows are C/G, and OC/G are its channels.
    steps = (OC // G * C_group * KH * KW, KH * KW, C_group * KH * KW)
    across = _windows(W, geometry.left, sw, KW, dw)
    for height, shift_h, h0, kh in _windows(H, geometry.top, sh, KH, dh):
        for width, shift_w, w0, kw in across:
            which = kh[:, None, :, None] * KW + kw[None, :, None, :]  # (members of h0, of w0, taps down, taps across)
            cells = (h0[:, None] - h0[0]) * W + (w0 - w0[0])
            rows = Rows(
                weight.ravel(),
                steps,
                which.reshape(cells.size, -1),
                np.zeros((G, cells.size * C_group), x.dtype),
                (cells.reshape(-1, 1) + np.arange(C_group) * (H * W)).ravel(),
            )
            taps = layout.taps(OC // G, (top + shift_h)[:, None], left + shift_w)
            grid = Grid(height, width, layout.row, int(h0[0]), int(w0[0]), sh, sw)
            correlate(padded, taps, rows, grid, grad_x)
    return grad_x


def _windows(
    size: int, begin: int, stride: int, taps: int, dilation: int
) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Along one axis, the h0 < stride in groups that have the same shifts and the same number of cells.

    For each group: how many cells each h0 has, the shifts, the h0, and for each h0 its taps kh.
    """
    shared: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for h0 in range(min(stride, size)):
        shift, rest = np.divmod(begin + h0 - np.arange(taps) * dilation, stride)
        kh = np.flatnonzero(rest == 0)
        shared.setdefault((math.ceil((size - h0) / stride), *shift[kh].tolist()), []).append((h0, kh))
    return [
        (count, np.array(shifts, np.intp), np.array([h0 for h0, _ in members]), np.stack([kh for _, kh in members]))
        for (count, *shifts), members in shared.items()
    ]


def grad_bias_of(grad_out: np.ndarray) -> np.ndarray:
    """(N,OC,OH,OW) -> (OC,)."""
    N, OC = grad_out.shape[:2]
    grad_bias = memory.empty((OC,), grad_out.dtype)
    g = grad_out.reshape(N, OC, -1)
    for_each(_grad_bias_kernel, OC, g, grad_bias, values=g[:, 0].size)
    return grad_bias


@kernel
def _grad_bias_kernel(first: int, last: int, g: np.ndarray, grad_bias: np.ndarray) -> None:
    """(N,OC,P) -> (OC,), P the pixels of an image. First add the images: P independent sums, which the compiler vectorizes."""
    N, _, P = g.shape
    for oc in range(first, last):
        total = np.zeros(P, g.dtype)
        for n in range(N):
            for p in range(P):
                total[p] += g[n, oc, p]
        grad_bias[oc] = 0
        for p in range(P):
            grad_bias[oc] += total[p]
