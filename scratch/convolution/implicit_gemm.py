"""conv2d's rung ``implicit_gemm``: im2col's matrix products, but im2col's matrix is never written.

im2col's products use each number many times, so its matrix is worth its memory. But it is KH·KW times as large as the image, and
im2col spends its time writing it and reading it back. Here a panel, a few columns of that matrix, is packed straight from the
image when the product needs it, into a buffer that stays in the cache. The micro-kernel (``compiled/microkernel.py``) multiplies
it:

    out          (OC, pixels) = weight (OC, K) · columns of x (K, pixels)           K = C/G·KH·KW taps, G the groups
    grad_x       (C, pixels)  = weight' (C, K') · columns of g (K', pixels)         K' = OC/G·KH·KW taps
    grad_weight' (K, OC)      = columns of x (K, pixels) · g' (pixels, OC)          a block of pixels at a time

where pixels run through all images, N·OH·OW or N·H·W. Forward and grad_x share one kernel. grad_x is a transposed convolution: a
convolution of g with the kernel rotated by 180° and its two channel axes exchanged. Forward's window reads x at h + kh·dilation;
grad_x's window reads g at h - kh·dilation. With a stride, only every stride-th tap meets an output, and h % stride decides which
taps these are. grad_x is then one such product for each remainder (:func:`_grad_x`).

Three things make packing cheap. The image is first copied with zeros around it (``packing.py``), so no copy has to check for the
border. Columns that are one stride apart are neighbours there, so for every tap neighbouring windows read neighbouring cells. And
copies move whole vectors: if one writes too much, the next overwrites it.

The order of each sum does not depend on the threads. A sum over taps runs in order; a sum over pixels runs in blocks that depend
only on the image's size.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import MR, NR_VECTORS, micro_kernel
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import copy_vector, lanes, transpose
from scratch.convolution.geometry import Geometry, Gradients
from scratch.convolution.packing import Grid, Layout, PaddedInput, new_copies, pad, plan_copies
from scratch.core.ladder import NotTakenError

PANELS = 3  # packed together: neighbouring panels read the same cells of the image, before these leave the cache
PIXELS = 192  # in one block of grad_weight's sum: MR·PIXELS float32 of columns stay in L1 while g's panels stream past


def implicit_gemm_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Pack panels of im2col's matrix from the image into the cache as needed: the matrix is never written or read back."""
    OC, C_group, KH, KW = weight.shape
    G = geometry.groups
    # grad_x's windows reach into the padding, and 0 · inf is NaN. A finite sum rules inf out fast; it may overflow without one.
    if x.size == 0 or not (np.isfinite(weight.sum()) or np.isfinite(weight).all()):
        raise NotTakenError("conv2d: implicit_gemm takes neither empty arrays nor infinite weights")
    layout = Layout.around_x(x.shape, geometry)
    padded = pad(x, layout)
    # (OC,C/G,KH,KW) -> (G, OC/G, C/G, KH·KW)
    matrix = weight.reshape(G, OC // G, C_group, KH * KW)
    biases = (np.zeros(OC, x.dtype) if bias is None else bias).reshape(G, OC // G)
    out = memory.empty((len(x), OC, geometry.OH, geometry.OW), x.dtype)
    grid = Grid(geometry.OH, geometry.OW, geometry.stride[0] * layout.row, 0, 0, 1, 1)
    _correlate(padded, layout.taps_of_x(C_group, KH, KW, geometry), matrix, np.arange(KH * KW), biases, grid, out)
    return out, (x, weight, bias is not None, geometry)


def implicit_gemm_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    grad_x = _grad_x(grad_out, x, weight, geometry) if need_grad_x else None
    return grad_x, _grad_weight(grad_out, x, weight, geometry), grad_bias_of(grad_out) if has_bias else None


# --- forward, and grad_x ----------------------------------------------------------------------------------------------


class PixelBuffers(NamedTuple):
    """A thread's buffers for a few panels of pixels."""

    columns: np.ndarray  # (PANELS, K + 1, NR): the panels; the last row takes what the last copy writes too much
    tile: np.ndarray  # (MR, NR): a tile whose pixels are not contiguous in the result


def _correlate(
    padded: PaddedInput, taps: np.ndarray, matrix: np.ndarray, which: np.ndarray, bias: np.ndarray, grid: Grid, out: np.ndarray
) -> None:
    """Write out[n, m, cell] = bias[m] + Σ_{k, t} matrix[m, k, which[t]] · padded[window + taps[k, t]] for the grid's pixels.

    matrix is (G, M, channels, KH·KW); which lists the taps in use; taps is (channels, len(which)) flat; bias is (G, M).
    """
    N = len(out)
    G, M, _, _ = matrix.shape
    # The bias is one more tap's weight; the cell of that tap is always 1.
    K = len(taps) + 1
    weights = memory.workspace(G * math.ceil(M / MR) * K * MR, out.dtype)
    weight_panels = math.ceil(M / MR)
    for_each(_pack_kernel, G * weight_panels, matrix, which, bias, weights, values=K * MR)
    NR = NR_VECTORS * lanes(out)

    def run(first: int, last: int) -> None:
        columns = memory.workspace(PANELS * (K + 1) * NR, out.dtype)
        buffers = PixelBuffers(columns, memory.workspace(MR * NR, out.dtype))
        _correlate_kernel(first, last, padded, taps, weights, grid, buffers, out, G)

    for_each(run, G * math.ceil(N * grid.rows * grid.columns / NR), values=weight_panels * K * NR)


@kernel
def _pack_kernel(first: int, last: int, matrix: np.ndarray, which: np.ndarray, bias: np.ndarray, weights: np.ndarray) -> None:
    """(G, M, channels, KH·KW) -> (G·⌈M/MR⌉, K, MR): packed panels for the micro-kernel, zeros in the rows beyond M."""
    _, M, channels, _ = matrix.shape
    panels = (M + MR - 1) // MR
    K = channels * len(which) + 1
    zero = weights.dtype.type(0)
    for i in range(first, last):
        group, top = i // panels, i % panels * MR
        at = i * K * MR  # weights[i], then weights[i, k] for one tap k after the other
        for channel in range(channels):
            for tap in which:
                for r in range(MR):
                    weights[at + r] = matrix[group, top + r, channel, tap] if top + r < M else zero
                at += MR
        for r in range(MR):
            weights[at + r] = bias[group, top + r] if top + r < M else zero


@kernel
def _correlate_kernel(
    first: int,
    last: int,
    padded: PaddedInput,
    taps: np.ndarray,
    weights: np.ndarray,
    grid: Grid,
    buffers: PixelBuffers,
    out: np.ndarray,
    groups: int,
) -> None:
    """A work item is NR pixels of one group: pack their panel (K,NR), then multiply all the group's weights with it."""
    cells, layout = padded
    columns, tile = buffers
    width = lanes(cells)
    NR = NR_VECTORS * width
    K = len(taps) + 1
    size = (K + 1) * NR  # of a panel: columns is (PANELS, K + 1, NR)
    N, M_all, H, W = out.shape
    flat_out = out.reshape(N * M_all * H * W)
    P = grid.rows * grid.columns
    M = M_all // groups
    weight_panels = (M + MR - 1) // MR
    pixel_panels = (N * P + NR - 1) // NR
    copies = new_copies(PANELS * NR)
    i = first
    while i < last:
        group = i // pixel_panels
        together = min(PANELS, last - i, (group + 1) * pixel_panels - i)
        vectors = 0
        for b in range(together):
            pixel = (i + b) % pixel_panels * NR
            channel_at = group * (layout.image // groups)  # padded[0, the group's first channel]
            vectors = plan_copies(pixel, min(NR, N * P - pixel), grid, layout, width, channel_at, b * size, copies, vectors)
        # One tap of the padded input -> row k of each panel, columns[b, k, :].
        for k in range(K - 1):
            for v in range(vectors):
                copy_vector(cells, copies.source[v] + taps[k], columns, k * NR + copies.target[v])
        for b in range(together):
            for j in range(NR):
                columns[b * size + (K - 1) * NR + j] = 1  # columns[b, K - 1, j], the bias's tap
        for m in range(weight_panels):
            channel = group * M + m * MR
            rows = min(MR, M - m * MR)
            a_at = (group * weight_panels + m) * K * MR  # weights[group, m]
            for b in range(together):
                pixel = (i + b) % pixel_panels * NR
                n, p = divmod(pixel, P)
                # A tile is written straight to the result if its pixels are contiguous there, else to a buffer first.
                neighbours = grid.step_h == 1 and grid.step_w == 1 and grid.columns == W and p + NR <= P
                if neighbours and rows == MR:
                    c_at = (n * M_all + channel) * H * W + p  # out[n, channel, p]
                    micro_kernel(K, weights, a_at, MR, 1, columns, b * size, NR, flat_out, c_at, H * W, False)  # columns[b]
                    continue
                micro_kernel(K, weights, a_at, MR, 1, columns, b * size, NR, tile, 0, NR, False)  # columns[b]
                for j in range(min(NR, N * P - pixel)):
                    n, p = divmod(pixel + j, P)
                    row, column = divmod(p, grid.columns)
                    h, w = grid.h + row * grid.step_h, grid.w + column * grid.step_w
                    target = ((n * M_all + channel) * H + h) * W + w  # out[n, channel, h, w]
                    for r in range(rows):
                        flat_out[target + r * H * W] = tile[r * NR + j]  # out[n, channel + r, h, w] = tile[r, j]
        i += together


def _grad_x(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """One product for each pair of remainders of (top + h, left + w) by the stride: cells that share it have the same taps.

    Tap kh of output oh reads the cell h with top + h = oh·stride + kh·dilation. So the cells h = h0 + i·stride are read by
    those kh for which the stride divides top + h0 - kh·dilation =: stride·shift. The outputs that read them are oh = i + shift.
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
    # (OC,C/G,KH,KW) -> (G, C/G, OC/G, KH·KW)
    matrix = weight.reshape(G, OC // G, C_group, KH * KW).swapaxes(1, 2)
    nothing = np.zeros((G, C_group), x.dtype)
    for h0, w0 in np.ndindex(min(sh, H), min(sw, W)):
        shift_h, rest_h = np.divmod(geometry.top + h0 - np.arange(KH) * dh, sh)
        shift_w, rest_w = np.divmod(geometry.left + w0 - np.arange(KW) * dw, sw)
        kh, kw = np.flatnonzero(rest_h == 0), np.flatnonzero(rest_w == 0)
        taps = layout.taps(OC // G, (top + shift_h[kh])[:, None], left + shift_w[kw])
        which = (kh[:, None] * KW + kw).ravel()
        grid = Grid(math.ceil((H - h0) / sh), math.ceil((W - w0) / sw), layout.row, h0, w0, sh, sw)
        _correlate(padded, taps, matrix, which, nothing, grid, grad_x)
    return grad_x


# --- grad_bias and grad_weight ----------------------------------------------------------------------------------------


def grad_bias_of(grad_out: np.ndarray) -> np.ndarray:
    """(N,OC,OH,OW) -> (OC,)."""
    N, OC = grad_out.shape[:2]
    grad_bias = np.empty(OC, grad_out.dtype)
    g = grad_out.reshape(N, OC, -1)
    for_each(_grad_bias_kernel, OC, g, grad_bias, values=g[:, 0].size)
    return grad_bias


@kernel
def _grad_bias_kernel(first: int, last: int, g: np.ndarray, grad_bias: np.ndarray) -> None:
    """(N,OC,P) -> (OC,). First add the images to each other: that is P independent sums, which the compiler vectorizes."""
    N, _, P = g.shape
    for oc in range(first, last):
        total = np.zeros(P, g.dtype)
        for n in range(N):
            for p in range(P):
                total[p] += g[n, oc, p]
        grad_bias[oc] = 0
        for p in range(P):
            grad_bias[oc] += total[p]


class TapBuffers(NamedTuple):
    """A thread's buffers for a range of grad_weight's panels of taps."""

    columns: np.ndarray  # (MR, PIXELS): the columns of MR taps for a block of pixels
    g: np.ndarray  # (OC/G / NR, PIXELS, NR): the block of grad_out, transposed
    sums: np.ndarray  # (panels of taps, MR, OC/G in whole panels): the sums so far


def _grad_weight(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    OC, C_group, KH, KW = weight.shape
    layout = Layout.around_x(x.shape, geometry)
    padded = pad(x, layout)
    grid = Grid(geometry.OH, geometry.OW, geometry.stride[0] * layout.row, 0, 0, 1, 1)
    K = C_group * KH * KW
    # Both tables are filled up to whole panels. The extra entries repeat the first one, and their sums are not used.
    taps = _whole(layout.taps_of_x(C_group, KH, KW, geometry), MR)
    channels = _whole(np.arange(OC // geometry.groups) * (geometry.OH * geometry.OW), NR_VECTORS * lanes(x))
    g, grad_weight = grad_out.ravel(), memory.empty_like(weight)
    matrix = grad_weight.reshape(OC, K)

    def run(first: int, last: int) -> None:
        buffers = TapBuffers(
            memory.workspace(MR * PIXELS + lanes(x), x.dtype),
            memory.workspace(PIXELS * len(channels), x.dtype),
            memory.workspace((last - first) * MR * len(channels), x.dtype),
        )
        _grad_weight_kernel(first, last, g, padded, taps, channels, grid, geometry.groups, buffers, matrix)

    # Every range transposes g for itself, so each thread gets one range. The price: all wait for the slowest thread.
    values = len(x) * grid.rows * grid.columns * len(channels)
    for_each(run, geometry.groups * (len(taps) // MR), ranges_per_thread=1, values=values)
    return grad_weight


def _whole(table: np.ndarray, panel: int) -> np.ndarray:
    """The table, with its first entry repeated until the last panel is full."""
    return np.concatenate([table, np.full(-len(table) % panel, table[0])])


@kernel
def _grad_weight_kernel(
    first: int,
    last: int,
    g: np.ndarray,
    padded: PaddedInput,
    taps: np.ndarray,
    channels: np.ndarray,
    grid: Grid,
    groups: int,
    buffers: TapBuffers,
    grad_weight: np.ndarray,
) -> None:
    """A work item is MR taps of one group. For each block of pixels: transpose g, pack the columns, multiply, add to the sums.

    g (OC/G, PIXELS) -> buffers.g (OC/G / NR, PIXELS, NR), shared by all items of a group; padded input -> columns (MR, PIXELS)
    """
    cells, layout = padded
    columns, g_panels, sums = buffers
    width = lanes(cells)
    NR = NR_VECTORS * width
    OC, K = grad_weight.shape
    OC_group = OC // groups
    P = grid.rows * grid.columns
    blocks = (P + PIXELS - 1) // PIXELS  # of one image
    tap_panels = len(taps) // MR
    copies = new_copies(PIXELS)
    for j in range((last - first) * MR * len(channels)):
        sums[j] = 0
    for block in range(g.size // (OC * P) * blocks):
        n, p = block // blocks, block % blocks * P // blocks
        count = (block % blocks + 1) * P // blocks - p
        vectors = plan_copies(n * P + p, count, grid, layout, width, 0, 0, copies, 0)
        for i in range(first, last):
            group, tap = i // tap_panels, i % tap_panels * MR
            if i == first or tap == 0:
                g_at = (n * OC + group * OC_group) * P + p  # g[n, the group's first channel, p]
                for channel in range(0, len(channels), NR):  # channel * PIXELS: g_panels[channel / NR]
                    transpose(g, g_at, channels[channel : channel + NR], count, g_panels, channel * PIXELS, NR)
            for r in range(MR):
                tap_at = group * (layout.image // groups) + taps[tap + r]  # from a window's first cell to its tap
                for v in range(vectors):
                    copy_vector(cells, copies.source[v] + tap_at, columns, r * PIXELS + copies.target[v])  # columns[r]
            for channel in range(0, len(channels), NR):
                c_at = (i - first) * MR * len(channels) + channel  # sums[i - first, :, channel]
                micro_kernel(count, columns, 0, 1, PIXELS, g_panels, channel * PIXELS, NR, sums, c_at, len(channels), True)
    # sums (MR taps, OC/G) -> grad_weight (OC/G, MR taps) of each item
    for i in range(first, last):
        group, tap = i // tap_panels, i % tap_panels * MR
        for r in range(min(MR, K - tap)):
            for oc in range(OC_group):  # sums[i - first, r, oc]
                grad_weight[group * OC_group + oc, tap + r] = sums[((i - first) * MR + r) * len(channels) + oc]
