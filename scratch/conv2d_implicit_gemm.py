"""conv2d's rung ``implicit_gemm``: im2col's matrix products, with a column matrix that is never written.

im2col's products want each number many times, so the matrix is worth its memory; but it is KH·KW times the image, and
writing it and reading it back is what im2col waits for. Here a panel of a few of its columns is copied from the image when
the product needs it, into a buffer that stays in the cache, and the register tile (``core/microkernel.py``) multiplies it:

    out          (OC, pixels) = weight (OC, K) · columns of x (K, pixels)           K = C/G·KH·KW taps, G the groups
    grad_x       (C, pixels)  = weight' (C, K') · columns of g (K', pixels)         K' = OC/G·KH·KW taps
    grad_weight' (K, OC)      = columns of x (K, pixels) · g' (pixels, OC)          a block of pixels at a time

where pixels run through all images, N·OH·OW or N·H·W. Forward and grad_x are one and the same kernel: what forward's
window reads at h + kh·dilation, grad_x's window reads at h - kh·dilation, in g instead of x and with the two channel axes
of the weight swapped. With a stride only every stride-th tap hits an output, which taps depends on h % stride: there grad_x
is one such product for each remainder (:func:`_grad_x`).

Three things make the copies cheap. The image is first put into a frame of zeros (``conv2d_frame.py``), so no copy asks where
the border is. The frame keeps columns that are one stride apart next to each other, so that for every tap neighbouring
windows read neighbouring cells. And a copy moves whole vectors: what it writes too much is overwritten by the next copy.

Each sum is taken in an order that does not depend on the threads: over taps in order, over pixels in blocks that the image's size
alone decides on.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from scratch.conv2d_frame import Frame, Grid, cut_runs, cut_vectors, fill_frame, window_cell
from scratch.core import memory
from scratch.core.jit import kernel
from scratch.core.ladder import NotTakenError
from scratch.core.microkernel import ROWS, VECTORS, multiply_tile
from scratch.core.threads import for_each
from scratch.core.vectors import copy_vector, lanes, transpose

if TYPE_CHECKING:
    from scratch.conv2d import Geometry, Gradients

PANELS = 3  # copied in one go: neighbouring panels read the same cells of the image, which leave the cache in between
PIXELS = 192  # in one block of grad_weight's sum: ROWS·PIXELS float32 of columns stay in the L1 cache while g's panels pass


def implicit_gemm_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """No column matrix: panels of it are copied from the image into the cache when the register tile needs them."""
    OC, C_group, KH, KW = weight.shape
    G = geometry.groups
    # grad_x's windows reach into the frame of zeros, and 0 · inf is NaN. A sum tells fast; it may overflow without an inf.
    if x.size == 0 or not (np.isfinite(weight.sum()) or np.isfinite(weight).all()):
        raise NotTakenError("conv2d: implicit_gemm takes neither empty arrays nor infinite weights")
    frame = Frame.around_x(x.shape, geometry)
    framed = fill_frame(x, frame)
    # (OC,C/G,KH,KW) -> (G, OC/G, C/G, KH·KW)
    matrix = weight.reshape(G, OC // G, C_group, KH * KW)
    biases = (np.zeros(OC, x.dtype) if bias is None else bias).reshape(G, OC // G)
    out = memory.empty((len(x), OC, geometry.OH, geometry.OW), x.dtype)
    grid = Grid(geometry.OH, geometry.OW, geometry.stride[0] * frame.row, 0, 0, 1, 1)
    _correlate(framed, frame, frame.taps_of_x(C_group, KH, KW, geometry), matrix, np.arange(KH * KW), biases, grid, out)
    return out, (x, weight, bias is not None, geometry)


def implicit_gemm_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    grad_x = _grad_x(grad_out, x, weight, geometry) if need_grad_x else None
    return grad_x, _grad_weight(grad_out, x, weight, geometry), grad_bias_of(grad_out) if has_bias else None


# --- forward, and grad_x ----------------------------------------------------------------------------------------------


def _correlate(
    framed: np.ndarray,
    frame: Frame,
    taps: np.ndarray,
    matrix: np.ndarray,
    which: np.ndarray,
    bias: np.ndarray,
    grid: Grid,
    out: np.ndarray,
) -> None:
    """Write out[n, m, cell] = bias[m] + Σ_{k, t} matrix[m, k, which[t]] · framed[window + taps[k, t]] for the grid's pixels.

    matrix is (G, M, channels, KH·KW), which the taps in use, taps (channels, len(which)) flat, bias (G, M).
    """
    N = len(out)
    G, M, _, _ = matrix.shape
    # The bias is the weight of one more tap, whose cell is always 1.
    K = len(taps) + 1
    weights = memory.workspace(G * math.ceil(M / ROWS) * K * ROWS, out.dtype)
    weight_panels = math.ceil(M / ROWS)
    for_each(_pack_kernel, G * weight_panels, matrix, which, bias, weights, values=K * ROWS)
    columns = VECTORS * lanes(out)

    def run(first: int, last: int) -> None:
        panels = memory.workspace(PANELS * (K + 1) * columns, out.dtype)
        tile = memory.workspace(ROWS * columns, out.dtype)
        _correlate_kernel(first, last, framed, frame, taps, weights, grid, panels, tile, out, G)

    for_each(run, G * math.ceil(N * grid.rows * grid.columns / columns), values=weight_panels * K * columns)


@kernel
def _pack_kernel(first: int, last: int, matrix: np.ndarray, which: np.ndarray, bias: np.ndarray, weights: np.ndarray) -> None:
    """(G, M, channels, KH·KW) -> (G·⌈M/ROWS⌉, K, ROWS): panels for the register tile, zero in the rows that are not there."""
    _, M, channels, _ = matrix.shape
    panels = (M + ROWS - 1) // ROWS
    K = channels * len(which) + 1
    zero = weights.dtype.type(0)
    for i in range(first, last):
        group, top = i // panels, i % panels * ROWS
        at = i * K * ROWS
        for channel in range(channels):
            for tap in which:
                for r in range(ROWS):
                    weights[at + r] = matrix[group, top + r, channel, tap] if top + r < M else zero
                at += ROWS
        for r in range(ROWS):
            weights[at + r] = bias[group, top + r] if top + r < M else zero


@kernel
def _correlate_kernel(
    first: int,
    last: int,
    framed: np.ndarray,
    frame: Frame,
    taps: np.ndarray,
    weights: np.ndarray,
    grid: Grid,
    panels: np.ndarray,
    tile: np.ndarray,
    out: np.ndarray,
    groups: int,
) -> None:
    """A piece is COLUMNS pixels of one group: copy their panel (K,COLUMNS), then multiply all the group's weights with it."""
    width = lanes(framed)
    columns = VECTORS * width
    K = len(taps) + 1
    size = (K + 1) * columns  # of a panel: what the last copy writes too much is one row more
    N, M_all, H, W = out.shape
    flat_out = out.reshape(N * M_all * H * W)
    P = grid.rows * grid.columns
    M = M_all // groups
    weight_panels = (M + ROWS - 1) // ROWS
    pixel_panels = (N * P + columns - 1) // columns
    at, pixels, lengths = np.empty(columns, np.intp), np.empty(columns, np.intp), np.empty(columns, np.intp)
    to, start = np.empty(PANELS * columns, np.intp), np.empty(PANELS * columns, np.intp)
    i = first
    while i < last:
        group = i // pixel_panels
        together = min(PANELS, last - i, (group + 1) * pixel_panels - i)
        vectors = 0
        for b in range(together):
            pixel = (i + b) % pixel_panels * columns
            runs = cut_runs(pixel, min(columns, N * P - pixel), grid.columns, at, pixels, lengths)
            for run in range(runs):
                at[run] += b * size
                pixels[run] = window_cell(pixels[run], frame, grid) + group * (frame.image // groups)
            vectors += cut_vectors(runs, width, at, pixels, lengths, to[vectors:], start[vectors:])
        for k in range(K - 1):
            for v in range(vectors):
                copy_vector(framed, start[v] + taps[k], panels, k * columns + to[v])
        for b in range(together):
            for j in range(columns):
                panels[b * size + (K - 1) * columns + j] = 1  # what the bias is the weight of
        for m in range(weight_panels):
            channel = group * M + m * ROWS
            rows = min(ROWS, M - m * ROWS)
            a_at = (group * weight_panels + m) * K * ROWS
            for b in range(together):
                pixel = (i + b) % pixel_panels * columns
                count = min(columns, N * P - pixel)
                n, p = divmod(pixel, P)
                # A tile goes straight to its place where its pixels are neighbours there, else through a buffer.
                neighbours = grid.step_h == 1 and grid.step_w == 1 and grid.columns == W and p + columns <= P
                if neighbours and rows == ROWS:
                    c_at = (n * M_all + channel) * H * W + p
                    multiply_tile(K, weights, a_at, ROWS, 1, panels, b * size, columns, flat_out, c_at, H * W, False)
                    continue
                multiply_tile(K, weights, a_at, ROWS, 1, panels, b * size, columns, tile, 0, columns, False)
                for j in range(count):
                    image, place = divmod(pixel + j, P)
                    row, column = divmod(place, grid.columns)
                    h, w = grid.h + row * grid.step_h, grid.w + column * grid.step_w
                    target = ((image * M_all + channel) * H + h) * W + w
                    for r in range(rows):
                        flat_out[target + r * H * W] = tile[r * columns + j]
        i += together


def _grad_x(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """One product for each pair of remainders of (top + h, left + w) by the stride: these cells are seen by the same taps.

    The tap kh of the output oh sees the cell h where top + h = oh·stride + kh·dilation; so the cells h = h0 + i·stride are
    seen by those kh for which stride divides top + h0 - kh·dilation =: stride·shift, from the outputs oh = i + shift.
    """
    H, W = x.shape[2:]
    OC, C_group, KH, KW = weight.shape
    G = geometry.groups
    grad_x = memory.empty_like(x)
    # The outermost shifts say how many rows and columns of zeros grad_out needs around it.
    (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
    top, left = (KH - 1) * dh // sh, (KW - 1) * dw // sw
    bottom = max(0, (geometry.top + H - 1) // sh - geometry.OH + 1)
    right = max(0, (geometry.left + W - 1) // sw - geometry.OW + 1)
    frame = Frame.around(grad_out.shape, top, bottom, left, right, 1)
    framed = fill_frame(grad_out, frame)
    # (OC,C/G,KH,KW) -> (G, C/G, OC/G, KH·KW)
    matrix = weight.reshape(G, OC // G, C_group, KH * KW).swapaxes(1, 2)
    nothing = np.zeros((G, C_group), x.dtype)
    for h0, w0 in np.ndindex(min(sh, H), min(sw, W)):
        shift_h, rest_h = np.divmod(geometry.top + h0 - np.arange(KH) * dh, sh)
        shift_w, rest_w = np.divmod(geometry.left + w0 - np.arange(KW) * dw, sw)
        kh, kw = np.flatnonzero(rest_h == 0), np.flatnonzero(rest_w == 0)
        taps = frame.taps(OC // G, (top + shift_h[kh])[:, None], left + shift_w[kw])
        which = (kh[:, None] * KW + kw).ravel()
        grid = Grid(math.ceil((H - h0) / sh), math.ceil((W - w0) / sw), frame.row, h0, w0, sh, sw)
        _correlate(framed, frame, taps, matrix, which, nothing, grid, grad_x)
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
    """(N,OC,P) -> (OC,). Images are added to each other first: P sums side by side, which the compiler turns into vectors."""
    N, _, P = g.shape
    for oc in range(first, last):
        total = np.zeros(P, g.dtype)
        for n in range(N):
            for p in range(P):
                total[p] += g[n, oc, p]
        grad_bias[oc] = 0
        for p in range(P):
            grad_bias[oc] += total[p]


def _grad_weight(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    OC, C_group, KH, KW = weight.shape
    frame = Frame.around_x(x.shape, geometry)
    framed = fill_frame(x, frame)
    grid = Grid(geometry.OH, geometry.OW, geometry.stride[0] * frame.row, 0, 0, 1, 1)
    K = C_group * KH * KW
    # Tables run to the end of their last panel; what stands there reads the first again, and nobody reads its sums.
    taps = _whole(frame.taps_of_x(C_group, KH, KW, geometry), ROWS)
    channels = _whole(np.arange(OC // geometry.groups) * (geometry.OH * geometry.OW), VECTORS * lanes(x))
    g, grad_weight = grad_out.ravel(), memory.empty_like(weight)
    matrix = grad_weight.reshape(OC, K)

    def run(first: int, last: int) -> None:
        columns = memory.workspace(ROWS * PIXELS + lanes(x), x.dtype)
        panels = memory.workspace(PIXELS * len(channels), x.dtype)
        tiles = memory.workspace((last - first) * ROWS * len(channels), x.dtype)
        _grad_weight_kernel(
            first, last, g, framed, frame, taps, channels, grid, len(x), geometry.groups, columns, panels, tiles, matrix
        )

    # Every range transposes g for itself; the price of so few is that all wait for the slowest thread.
    values = len(x) * grid.rows * grid.columns * len(channels)
    for_each(run, geometry.groups * (len(taps) // ROWS), ranges_per_thread=1, values=values)
    return grad_weight


def _whole(table: np.ndarray, panel: int) -> np.ndarray:
    """The table, and its first entry again and again until the last panel is full."""
    return np.concatenate([table, np.full(-len(table) % panel, table[0])])


@kernel
def _grad_weight_kernel(
    first: int,
    last: int,
    g: np.ndarray,
    framed: np.ndarray,
    frame: Frame,
    taps: np.ndarray,
    channels: np.ndarray,
    grid: Grid,
    images: int,
    groups: int,
    columns: np.ndarray,
    panels: np.ndarray,
    tiles: np.ndarray,
    grad_weight: np.ndarray,
) -> None:
    """A piece is ROWS taps of one group. For a block of an image's pixels: transpose g, copy the columns, multiply, add to tiles.

    g (OC,PIXELS) -> panels (OC/COLUMNS,PIXELS,COLUMNS), which all pieces of a group share; the image -> columns (ROWS,PIXELS)
    """
    width = lanes(framed)
    wide = VECTORS * width
    OC, K = grad_weight.shape
    OC_group = OC // groups
    P = grid.rows * grid.columns
    blocks = (P + PIXELS - 1) // PIXELS
    tap_panels = len(taps) // ROWS
    at, pixels, lengths = np.empty(PIXELS, np.intp), np.empty(PIXELS, np.intp), np.empty(PIXELS, np.intp)
    to, start = np.empty(PIXELS, np.intp), np.empty(PIXELS, np.intp)
    for j in range((last - first) * ROWS * len(channels)):
        tiles[j] = 0
    for block in range(images * blocks):
        n, p = block // blocks, block % blocks * P // blocks
        count = (block % blocks + 1) * P // blocks - p
        runs = cut_runs(n * P + p, count, grid.columns, at, pixels, lengths)
        for run in range(runs):
            pixels[run] = window_cell(pixels[run], frame, grid)
        vectors = cut_vectors(runs, width, at, pixels, lengths, to, start)
        for i in range(first, last):
            group, tap = i // tap_panels, i % tap_panels * ROWS
            if i == first or tap == 0:
                for channel in range(0, len(channels), wide):
                    at_g = (n * OC + group * OC_group) * P + p
                    transpose(g, at_g, channels[channel : channel + wide], count, panels, channel * PIXELS, wide)
            for r in range(ROWS):
                for v in range(vectors):
                    copy_vector(framed, start[v] + group * (frame.image // groups) + taps[tap + r], columns, r * PIXELS + to[v])
            for channel in range(0, len(channels), wide):
                tile = (i - first) * ROWS * len(channels) + channel
                multiply_tile(count, columns, 0, 1, PIXELS, panels, channel * PIXELS, wide, tiles, tile, len(channels), True)
    for i in range(first, last):
        group, tap = i // tap_panels, i % tap_panels * ROWS
        for r in range(min(ROWS, K - tap)):
            for oc in range(OC_group):
                grad_weight[group * OC_group + oc, tap + r] = tiles[((i - first) * ROWS + r) * len(channels) + oc]
