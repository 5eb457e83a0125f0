"""conv2d's rung ``implicit_gemm``: im2col's matrix products, with a column matrix that is never written.

im2col's products want each number many times, so the matrix is worth its memory; but it is KH·KW times the image, and
writing it and reading it back is what im2col waits for. Here a panel of a few of its columns is copied from the image when
the product needs it, into a buffer that stays in the cache, and the register tile (``core/microkernel.py``) multiplies it:

    forward      out      (OC, pixels) = weight (OC, K) · columns (K, pixels)       a panel of columns at a time
    grad_weight           (OC, K)      = g (OC, pixels) · columnsᵀ (pixels, K)      a block of pixels at a time
    grad_x       columns' (K, pixels)  = weightᵀ (K, OC) · g (OC, pixels)           each tile added to the image at once

with K = C/G·KH·KW the taps of one output channel, G the groups, pixels = N·OH·OW, all images in a row.

Three things make the copies cheap. The image is first put into its frame of zeros (:class:`Frame`), so no copy asks where
the border is. The frame keeps columns that are one stride apart next to each other, so that for every tap neighbouring
windows read neighbouring cells. And a copy moves whole vectors: what it writes too much is overwritten by the next copy.

Each sum is taken in an order that does not depend on the threads: over K in order, over pixels in blocks of fixed size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scratch.core.jit import for_each, kernel
from scratch.core.ladder import NotTakenError
from scratch.core.microkernel import ROWS, VECTORS, copy_vector, lanes, multiply_tile, transpose_tile
from scratch.core.workspace import workspace

if TYPE_CHECKING:
    from scratch.conv2d import Geometry, Gradients

PIXELS = 192  # in one block of grad_weight's sum: its panel of columns, PIXELS·COLUMNS float32, stays in the L1 cache
SPAN = 512  # pixels at least in one piece of grad_x: enough that a last panel that is not full is a small part
CHANNELS = 64  # of x in one piece of grad_x


class Frame(NamedTuple):
    """Where things lie in the framed batch, a flat array (N, C, rows, stride, columns).

    The padded image's column w lies at [w % stride, w // stride].
    """

    row: int  # elements from one row to the next; the three others likewise
    plane: int
    image: int
    columns: int

    @staticmethod
    def of(C: int, H: int, W: int, geometry: Geometry) -> Frame:
        columns = math.ceil((geometry.left + W + geometry.right) / geometry.stride[1])
        row = geometry.stride[1] * columns
        plane = (geometry.top + H + geometry.bottom) * row
        return Frame(row, plane, C * plane, columns)

    def taps(self, C: int, KH: int, KW: int, geometry: Geometry) -> np.ndarray:
        """(C,KH,KW) -> flat: how far each tap lies from the window's first cell."""
        w = np.arange(KW) * geometry.dilation[1]
        across = w % geometry.stride[1] * self.columns + w // geometry.stride[1]
        down = np.arange(KH) * geometry.dilation[0] * self.row
        return (np.arange(C)[:, None, None] * self.plane + down[:, None] + across).ravel()


def implicit_gemm_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """No column matrix: panels of it are copied from the image into the cache when the register tile needs them."""
    N, C, H, W = x.shape
    OC, C_group, KH, KW = weight.shape
    if x.size == 0:
        raise NotTakenError("conv2d: implicit_gemm takes no empty arrays")
    frame = Frame.of(C, H, W, geometry)
    framed = _framed(x, frame, geometry)
    taps = frame.taps(C_group, KH, KW, geometry)
    weights = _packed(weight.reshape(geometry.groups, 1, OC // geometry.groups, -1), "weight panels")
    out = np.empty((N, OC, geometry.OH, geometry.OW), x.dtype)
    biases = np.zeros(OC, x.dtype) if bias is None else bias
    columns = VECTORS * lanes(x)
    pixels = N * geometry.OH * geometry.OW

    def run(first: int, last: int) -> None:
        panel = workspace("columns", len(taps) * columns + columns, x.dtype)
        tile = workspace("tile", ROWS * columns, x.dtype)
        _forward_kernel(first, last, framed, taps, frame, weights, biases, geometry, panel, tile, out)

    for_each(run, geometry.groups * math.ceil(pixels / columns))
    return out, (x, weight, bias is not None, geometry)


def implicit_gemm_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    grad_bias = None
    if has_bias:
        grad_bias = np.empty(len(weight), x.dtype)
        for_each(_grad_bias_kernel, len(weight), grad_out.reshape(*grad_out.shape[:2], -1), grad_bias)
    grad_x = _grad_x(grad_out, x, weight, geometry) if need_grad_x else None
    return grad_x, _grad_weight(grad_out, x, weight, geometry), grad_bias


def _framed(x: np.ndarray, frame: Frame, geometry: Geometry) -> np.ndarray:
    """(N,C,H,W) -> flat (N, C, rows, stride, columns): the batch in its frame of zeros, see :class:`Frame`."""
    N, C, H, W = x.shape
    framed = workspace("framed", N * frame.image + VECTORS * lanes(x), x.dtype)  # copies may read past the last cell
    for_each(_frame_kernel, N * C, x.reshape(N * C, H, W), frame, geometry, framed)
    return framed


@kernel
def _frame_kernel(first: int, last: int, planes: np.ndarray, frame: Frame, geometry: Geometry, framed: np.ndarray) -> None:
    _, H, W = planes.shape
    stride = geometry.stride[1]
    for i in range(first, last):
        framed[i * frame.plane : (i + 1) * frame.plane] = 0
        for h in range(H):
            row = i * frame.plane + (geometry.top + h) * frame.row
            if stride == 1:  # the same as below, which the compiler does not see
                framed[row + geometry.left : row + geometry.left + W] = planes[i, h]
            else:
                for w in range(W):
                    column = w + geometry.left
                    framed[row + column % stride * frame.columns + column // stride] = planes[i, h, w]


def _packed(matrices: np.ndarray, name: str) -> np.ndarray:
    """(A,B,M,K) -> flat (A·B, ⌈M/ROWS⌉, K, ROWS), with zeros for the rows that are not there: panels for the register tile."""
    A, B, M, K = matrices.shape
    panels = A * B * math.ceil(M / ROWS)
    packed = workspace(name, panels * K * ROWS, matrices.dtype)
    for_each(_pack_kernel, panels, matrices, packed)
    return packed


@kernel
def _pack_kernel(first: int, last: int, matrices: np.ndarray, packed: np.ndarray) -> None:
    _, B, M, K = matrices.shape
    panels = (M + ROWS - 1) // ROWS
    zero = packed.dtype.type(0)
    for i in range(first, last):
        matrix = matrices[i // panels // B, i // panels % B]
        top = i % panels * ROWS
        for r in range(ROWS):
            for k in range(K):
                packed[(i * K + k) * ROWS + r] = matrix[top + r, k] if top + r < M else zero


@kernel
def _runs(pixel: int, count: int, length: int, at: np.ndarray, pixels: np.ndarray, lengths: np.ndarray) -> int:
    """Cut ``count`` pixels from ``pixel`` on where a row of ``length`` pixels ends.

    Run i has lengths[i] pixels; its first is pixels[i] and stands at[i] after ``pixel``. Returns how many runs there are.
    """
    runs = done = 0
    while done < count:
        at[runs] = done
        pixels[runs] = pixel + done
        lengths[runs] = min(count - done, length - (pixel + done) % length)
        done += lengths[runs]
        runs += 1
    return runs


@kernel
def _cell(pixel: int, frame: Frame, geometry: Geometry) -> int:
    """Where the window of that pixel, counted through all images, has its first cell in the framed batch."""
    n, p = divmod(pixel, geometry.OH * geometry.OW)
    oh, ow = divmod(p, geometry.OW)
    return n * frame.image + oh * geometry.stride[0] * frame.row + ow  # type: ignore[no-any-return]


@kernel
def _forward_kernel(
    first: int,
    last: int,
    framed: np.ndarray,
    taps: np.ndarray,
    frame: Frame,
    weights: np.ndarray,
    bias: np.ndarray,
    geometry: Geometry,
    panel: np.ndarray,
    tile: np.ndarray,
    out: np.ndarray,
) -> None:
    """A piece is COLUMNS pixels of one group: copy their panel (K,COLUMNS), then multiply all the group's weights with it."""
    width = lanes(framed)
    columns = VECTORS * width
    K = len(taps)
    N, OC, OH, OW = out.shape
    P = OH * OW
    flat_out = out.reshape(N * OC * P)
    OC_group = OC // geometry.groups
    weight_panels = (OC_group + ROWS - 1) // ROWS
    pixel_panels = (N * P + columns - 1) // columns
    at, pixels, lengths = np.empty(columns, np.intp), np.empty(columns, np.intp), np.empty(columns, np.intp)
    for i in range(first, last):
        group, pixel = i // pixel_panels, i % pixel_panels * columns
        count = min(columns, N * P - pixel)
        runs = _runs(pixel, count, OW, at, pixels, lengths)
        for run in range(runs):
            pixels[run] = _cell(pixels[run], frame, geometry) + group * (frame.image // geometry.groups)
        for k in range(K):
            for run in range(runs):
                for j in range(0, lengths[run], width):
                    copy_vector(framed, pixels[run] + taps[k] + j, panel, k * columns + at[run] + j)
        runs = _runs(pixel, count, P, at, pixels, lengths)
        for m in range(weight_panels):
            multiply_tile(K, weights, (group * weight_panels + m) * K * ROWS, ROWS, panel, 0, columns, tile, 0, columns, False)
            # (ROWS, COLUMNS) -> out[n, oc, p …], image by image
            for r in range(min(ROWS, OC_group - m * ROWS)):
                oc = group * OC_group + m * ROWS + r
                for run in range(runs):
                    n, p = divmod(pixels[run], P)
                    target, source = (n * OC + oc) * P + p, r * columns + at[run]
                    for j in range(lengths[run]):
                        flat_out[target + j] = tile[source + j] + bias[oc]


# --- grad_bias and grad_weight ----------------------------------------------------------------------------------------


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
    _, C, H, W = x.shape
    OC, C_group, KH, KW = weight.shape
    OC_group = OC // geometry.groups
    frame = Frame.of(C, H, W, geometry)
    framed = _framed(x, frame, geometry)
    columns = VECTORS * lanes(x)
    # Tiles at the edge have taps and channels beyond the last: they read the first again, and nobody reads their sums.
    tap_panels, channel_panels = math.ceil(weight[0].size / columns), math.ceil(OC_group / ROWS)
    taps = np.zeros(tap_panels * columns, np.intp)
    taps[: weight[0].size] = frame.taps(C_group, KH, KW, geometry)
    channels = np.zeros((channel_panels * ROWS + lanes(x),), np.intp)
    channels[:OC_group] = np.arange(OC_group) * geometry.OH * geometry.OW
    grad_weight = np.empty_like(weight)

    def run(first: int, last: int) -> None:
        slack = lanes(x) * columns
        g_panels = workspace("g panels", channel_panels * PIXELS * ROWS + slack, x.dtype)
        panel = workspace("columns", PIXELS * columns + slack, x.dtype)
        tiles = workspace("tiles", (last - first) * channel_panels * ROWS * columns, x.dtype)
        _grad_weight_kernel(
            first, last, grad_out.ravel(), channels, framed, taps, frame, geometry, g_panels, panel, tiles,
            grad_weight.reshape(OC, -1),
        )  # fmt: skip

    for_each(run, geometry.groups * tap_panels, ranges_per_thread=1)  # every range packs g anew: so few, long ranges
    return grad_weight


@kernel
def _grad_weight_kernel(
    first: int,
    last: int,
    g: np.ndarray,
    channels: np.ndarray,
    framed: np.ndarray,
    taps: np.ndarray,
    frame: Frame,
    geometry: Geometry,
    g_panels: np.ndarray,
    panel: np.ndarray,
    tiles: np.ndarray,
    grad_weight: np.ndarray,
) -> None:
    """A piece is COLUMNS taps of one group. For each block of PIXELS: transpose g, then for each piece the columns, multiply.

    g (OC,PIXELS) -> panels (⌈OC/ROWS⌉, PIXELS, ROWS); columns (COLUMNS,PIXELS) -> panel (PIXELS,COLUMNS)
    """
    width = lanes(framed)
    columns = VECTORS * width
    OC, K = grad_weight.shape
    OC_group = OC // geometry.groups
    P = geometry.OH * geometry.OW
    pixels_in_all = len(g) // OC
    channel_panels = (OC_group + ROWS - 1) // ROWS
    tap_panels = len(taps) // columns
    g_at, g_pixels, g_lengths = np.empty(PIXELS, np.intp), np.empty(PIXELS, np.intp), np.empty(PIXELS, np.intp)
    at, pixels, lengths = np.empty(PIXELS, np.intp), np.empty(PIXELS, np.intp), np.empty(PIXELS, np.intp)
    tiles[: (last - first) * channel_panels * ROWS * columns] = 0
    for group in range(first // tap_panels, (last - 1) // tap_panels + 1):
        for pixel in range(0, pixels_in_all, PIXELS):
            count = min(PIXELS, pixels_in_all - pixel)
            g_runs = _runs(pixel, count, P, g_at, g_pixels, g_lengths)
            for m in range(channel_panels):
                for run in range(g_runs):
                    n, p = divmod(g_pixels[run], P)
                    source = (n * OC + group * OC_group) * P + p
                    for j in range(0, g_lengths[run], width):
                        target = (m * PIXELS + g_at[run] + j) * ROWS
                        # From the last block of rows to the first: a block writes over the start of the row after it.
                        for r in range((ROWS - 1) // width * width, -1, -width):
                            _transpose_or_copy(g, source + j, channels, m * ROWS + r, g_panels, target + r, ROWS, g_lengths[run] - j)
            runs = _runs(pixel, count, geometry.OW, at, pixels, lengths)
            for run in range(runs):
                pixels[run] = _cell(pixels[run], frame, geometry) + group * (frame.image // geometry.groups)
            for i in range(max(first, group * tap_panels), min(last, (group + 1) * tap_panels)):
                tap = (i - group * tap_panels) * columns
                for run in range(runs):
                    for j in range(0, lengths[run], width):
                        for v in range(0, columns, width):
                            transpose_tile(framed, pixels[run] + j, taps, tap + v, panel, (at[run] + j) * columns + v, columns)
                for m in range(channel_panels):
                    tile = ((i - first) * channel_panels + m) * ROWS * columns
                    multiply_tile(count, g_panels, m * PIXELS * ROWS, ROWS, panel, 0, columns, tiles, tile, columns, True)
    for i in range(first, last):
        group, tap = i // tap_panels, i % tap_panels * columns
        for row in range(OC_group):
            for j in range(min(columns, K - tap)):
                tile = ((i - first) * channel_panels + row // ROWS) * ROWS * columns
                grad_weight[group * OC_group + row, tap + j] = tiles[tile + row % ROWS * columns + j]


@kernel
def _transpose_or_copy(
    source: np.ndarray, at: int, rows: np.ndarray, row: int, target: np.ndarray, target_at: int, stride: int, count: int
) -> None:
    """:func:`transpose_tile`, or element by element where whole vectors would read past the end of ``source``."""
    width = lanes(source)
    if at + rows[row : row + width].max() + width <= len(source):
        transpose_tile(source, at, rows, row, target, target_at, stride)
    else:
        for j in range(min(count, width)):
            for r in range(width):
                target[target_at + j * stride + r] = source[at + rows[row + r] + j]


# --- grad_x -----------------------------------------------------------------------------------------------------------


def _grad_x(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    N, C, H, W = x.shape
    OC, C_group, KH, KW = weight.shape
    G, OC_group = geometry.groups, OC // geometry.groups
    images = math.ceil(SPAN / (geometry.OH * geometry.OW))  # in one piece
    channels = max(c for c in range(1, min(CHANNELS, C_group) + 1) if C_group % c == 0)  # likewise
    frame = Frame.of(channels, H, W, geometry)  # of one image of a piece
    taps = frame.taps(channels, KH, KW, geometry)
    chunks = C_group // channels
    # (G, OC/G, CHUNKS, TAPS) -> (G·CHUNKS, TAPS, OC/G)
    weights = _packed(weight.reshape(G, OC_group, chunks, len(taps)).transpose(0, 2, 3, 1), "weight panels")
    columns = VECTORS * lanes(x)
    grad_x = np.empty_like(x)

    def run(first: int, last: int) -> None:
        panel = workspace("columns", OC_group * columns + columns, x.dtype)
        tile = workspace("tile", ROWS * columns, x.dtype)
        framed = workspace("framed piece", images * frame.image, x.dtype)
        _grad_x_kernel(first, last, grad_out, weights, taps, frame, geometry, panel, tile, framed, images, grad_x)

    for_each(run, G * chunks * math.ceil(N / images))
    return grad_x


@kernel
def _grad_x_kernel(
    first: int,
    last: int,
    grad_out: np.ndarray,
    weights: np.ndarray,
    taps: np.ndarray,
    frame: Frame,
    geometry: Geometry,
    panel: np.ndarray,
    tile: np.ndarray,
    framed: np.ndarray,
    images: int,
    grad_x: np.ndarray,
) -> None:
    """A piece is some channels of some images: multiply ROWS taps of COLUMNS pixels at a time, add each tile to the frame."""
    width = lanes(framed)
    columns = VECTORS * width
    N, C, H, W = grad_x.shape
    _, OC, OH, OW = grad_out.shape
    P = OH * OW
    g = grad_out.reshape(N * OC * P)
    OC_group = OC // geometry.groups
    channels = frame.image // frame.plane
    chunks = C // channels  # of all groups
    tap_panels = (len(taps) + ROWS - 1) // ROWS
    stride = geometry.stride[1]
    at, pixels, lengths = np.empty(columns, np.intp), np.empty(columns, np.intp), np.empty(columns, np.intp)
    for i in range(first, last):
        n_first, chunk = i // chunks * images, i % chunks
        n_last = min(n_first + images, N)
        group = chunk // (chunks // geometry.groups)
        framed[: (n_last - n_first) * frame.image] = 0
        for pixel in range(0, (n_last - n_first) * P, columns):
            count = min(columns, (n_last - n_first) * P - pixel)
            runs = _runs(pixel, count, P, at, pixels, lengths)
            for oc in range(OC_group):
                for run in range(runs):
                    n, p = divmod(pixels[run], P)
                    source = ((n_first + n) * OC + group * OC_group + oc) * P + p
                    for j in range(0, lengths[run], width):
                        target = oc * columns + at[run] + j
                        if source + j + width <= len(g):
                            copy_vector(g, source + j, panel, target)
                        else:
                            panel[target : target + lengths[run] - j] = g[source + j : source + lengths[run]]
            runs = _runs(pixel, count, OW, at, pixels, lengths)
            for run in range(runs):
                pixels[run] = _cell(pixels[run], frame, geometry)
            for t in range(tap_panels):
                weights_at = (chunk * tap_panels + t) * OC_group * ROWS
                multiply_tile(OC_group, weights, weights_at, ROWS, panel, 0, columns, tile, 0, columns, False)
                for r in range(min(ROWS, len(taps) - t * ROWS)):
                    for run in range(runs):
                        cell, value = pixels[run] + taps[t * ROWS + r], r * columns + at[run]
                        for j in range(lengths[run]):
                            framed[cell + j] += tile[value + j]
        for n in range(n_first, n_last):
            for c in range(channels):
                for h in range(H):
                    row = (n - n_first) * frame.image + c * frame.plane + (geometry.top + h) * frame.row
                    for w in range(W):
                        column = w + geometry.left
                        grad_x[n, chunk * channels + c, h, w] = framed[row + column % stride * frame.columns + column // stride]
