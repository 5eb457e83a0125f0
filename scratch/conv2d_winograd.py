"""conv2d's rung ``winograd``: 3×3 windows at stride 1 with 16 multiplications where the definition has 36.

Two neighbouring outputs of a 3-tap filter g share two of the four cells d they see, and four products are enough for both:

    m0 = (d0 - d2)·g0    m1 = (d1 + d2)·(g0 + g1 + g2)/2    m2 = (d2 - d1)·(g0 - g1 + g2)/2    m3 = (d1 - d3)·g2
    y0 = m0 + m1 + m2    y1 = m1 - m2 - m3

With three small matrices that is y = Aᵀ[(G g) ⊙ (Bᵀ d)], and down the image as well as across it

    Y (2,2) = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A           d (4,4), g (3,3), ⊙ elementwise

(Winograd 1980; Lavin and Gray 2015, "Fast algorithms for convolutional neural networks", section 4). The sum over channels may be
taken before the last step, so for each of the 16 places in the square it is a matrix product, for the register tile:

    products (OC, tiles) = U (OC, C) · V (C, tiles)     U = G g Gᵀ, V = Bᵀ d B, tiles N·⌈OH/2⌉·⌈OW/2⌉

The gradients are those of the same formula. Of x: the windows of g with flipped filters, once more the same kernel. Of the
weight, for Y's gradient g, with the roles changed:

    grad_weight = Gᵀ [ Σ_tiles (A g Aᵀ) ⊙ (Bᵀ d B) ] G      U' (OC, tiles) · V'(tiles, C) in the middle

The price is rounding: V is a difference of cells, so an output errs in proportion to cells beside its own window, too. The bound
of this rung (``parity_tests/reference_winograd.py``) counts them. Halves and sums are exact for small integers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from scratch.conv2d_frame import Frame, Grid, cut_runs, cut_vectors, fill_frame, window_cell
from scratch.conv2d_implicit_gemm import grad_bias_of, implicit_gemm_backward
from scratch.core import memory
from scratch.core.jit import for_each, kernel
from scratch.core.ladder import NotTakenError
from scratch.core.microkernel import ROWS, VECTORS, lanes, multiply_tile, sandwich

if TYPE_CHECKING:
    from scratch.conv2d import Geometry, Gradients

BT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
AT = ((1, 1, 1, 0), (0, 1, -1, -1))
A = tuple(zip(*AT, strict=True))

input_transform = sandwich(BT)
output_transform = sandwich(AT)
grad_transform = sandwich(A)

PIECE = 1 << 14  # numbers that are looked at in one go
PLACES = 16  # in the square that is multiplied elementwise
TILES = 128  # of grad_weight's sum in one go: A g Aᵀ and Bᵀ d B of so many stay in the cache


def winograd_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Fewer multiplications: two by two outputs share 16 products for which their windows take 36."""
    padding = (geometry.top, geometry.bottom, geometry.left, geometry.right)
    if weight.shape[2:] != (3, 3) or geometry.stride != (1, 1) or geometry.dilation != (1, 1) or max(padding) > 2:
        raise NotTakenError("conv2d: winograd takes windows of 3×3 at stride 1 without dilation, and at most 2 zeros around x")
    if x.size == 0 or not _tame(x) or not _tame(weight):
        raise NotTakenError("conv2d: winograd takes neither empty arrays nor numbers whose sums may be infinite")
    OC, C_group, _, _ = weight.shape
    G = geometry.groups
    out = memory.empty((len(x), OC, geometry.OH, geometry.OW), x.dtype)
    biases = np.zeros(OC, x.dtype) if bias is None else bias
    _correlate(x, geometry.top, geometry.left, weight.reshape(G, OC // G, C_group, 3, 3), biases, out)
    return out, (x, weight, bias is not None, geometry)


def winograd_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    if not _tame(grad_out):
        return implicit_gemm_backward(grad_out, x, weight, has_bias, geometry, need_grad_x=need_grad_x)
    OC, C_group, _, _ = weight.shape
    G = geometry.groups
    grad_x = None
    if need_grad_x:
        # The output oh sees the cell h through the tap kh = h + top - oh: from h, that is the window of grad_out that begins at
        # h + top - 2, its taps in reverse. (OC,C/G,3,3) -> (G, C/G, OC/G, 3, 3)
        flipped = weight.reshape(G, OC // G, C_group, 3, 3).swapaxes(1, 2)[..., ::-1, ::-1]
        grad_x = memory.empty_like(x)
        _correlate(grad_out, 2 - geometry.top, 2 - geometry.left, flipped, np.zeros(x.shape[1], x.dtype), grad_x)
    return grad_x, _grad_weight(grad_out, x, weight, geometry), grad_bias_of(grad_out) if has_bias else None


def _tame(array: np.ndarray) -> bool:
    """Whether every sum of a square's cells is finite: one that is not would be NaN for outputs that do not see its cell."""
    flat = array.reshape(-1)
    pieces = math.ceil(flat.size / PIECE)
    tame = np.empty(pieces, np.bool_)
    for_each(_tame_kernel, pieces, flat, np.finfo(array.dtype).max / PLACES, tame)
    return bool(tame.all())


@kernel
def _tame_kernel(first: int, last: int, flat: np.ndarray, limit: float, tame: np.ndarray) -> None:
    for i in range(first, last):
        wild = 0
        for value in flat[i * PIECE : (i + 1) * PIECE]:
            wild += not abs(value) <= limit  # NaN is wild
        tame[i] = wild == 0


def _frame(shape: tuple[int, ...], top: int, left: int, rows: int, columns: int) -> Frame:
    """The frame in which windows of 4×4 lie two cells apart, ``rows`` × ``columns`` of them."""
    _, _, H, W = shape
    return Frame.around(shape, top, 2 * rows + 2 - top - H, left, 2 * columns + 2 - left - W, 2)


def _patch(frame: Frame, size: int) -> np.ndarray:
    """(size·size,): how far each cell of a tile's patch lies from its first one."""
    w = np.arange(size)
    return frame.taps(1, w[:, None], w % 2 * frame.columns + w // 2)


def _correlate(x: np.ndarray, top: int, left: int, weight: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """Write out[n,m,h,w] = bias[m] + Σ_{c,kh,kw} weight[g,m,c,kh,kw] · x[n, c, h + kh - top, w + kw - left], 0 beyond x."""
    G, M, C, _, _ = weight.shape
    N, _, H, W = out.shape
    rows, columns = math.ceil(H / 2), math.ceil(W / 2)
    frame = _frame(x.shape, top, left, rows, columns)
    framed = fill_frame(x, frame)
    panels = math.ceil(M / ROWS)
    U = memory.workspace("weights", G * panels * PLACES * C * ROWS, x.dtype)
    for_each(_weight_kernel, G * panels, weight, U)
    width = VECTORS * lanes(x)
    grid = Grid(rows, columns, 2 * frame.row, 0, 0, 2, 2)

    def run(first: int, last: int) -> None:
        V = memory.workspace("columns", PLACES * (C + 1) * width, x.dtype)
        products = memory.workspace("tiles", PLACES * panels * ROWS * width, x.dtype)
        squares = memory.workspace("squares", 4 * width, x.dtype)
        _correlate_kernel(first, last, framed, frame, _patch(frame, 4), U, bias, grid, V, products, squares, out, G)

    for_each(run, G * math.ceil(N * rows * columns / width))


@kernel
def _weight_kernel(first: int, last: int, weight: np.ndarray, U: np.ndarray) -> None:
    """(G,M,C,3,3) -> G g Gᵀ: (G·⌈M/ROWS⌉, PLACES, C, ROWS), panels for the register tile, zero in the rows that are not there."""
    _, M, C, _, _ = weight.shape
    panels = (M + ROWS - 1) // ROWS
    half = weight.dtype.type(0.5)
    down = np.empty((4, 3), weight.dtype)  # G g
    for i in range(first, last):
        group, top = i // panels, i % panels * ROWS
        for c in range(C):
            for r in range(ROWS):
                at = (i * PLACES * C + c) * ROWS + r
                if top + r >= M:
                    for place in range(PLACES):
                        U[at + place * C * ROWS] = 0
                    continue
                g = weight[group, top + r, c]
                for kw in range(3):
                    down[0, kw] = g[0, kw]
                    down[1, kw] = (g[0, kw] + g[2, kw] + g[1, kw]) * half
                    down[2, kw] = (g[0, kw] + g[2, kw] - g[1, kw]) * half
                    down[3, kw] = g[2, kw]
                for row in range(4):
                    d = down[row]
                    U[at + (4 * row) * C * ROWS] = d[0]
                    U[at + (4 * row + 1) * C * ROWS] = (d[0] + d[2] + d[1]) * half
                    U[at + (4 * row + 2) * C * ROWS] = (d[0] + d[2] - d[1]) * half
                    U[at + (4 * row + 3) * C * ROWS] = d[2]


@kernel
def _correlate_kernel(
    first: int,
    last: int,
    framed: np.ndarray,
    frame: Frame,
    patch: np.ndarray,
    U: np.ndarray,
    bias: np.ndarray,
    grid: Grid,
    V: np.ndarray,
    products: np.ndarray,
    squares: np.ndarray,
    out: np.ndarray,
    groups: int,
) -> None:
    """A piece is COLUMNS tiles of one group.

    framed -> V (PLACES, C+1, COLUMNS); U · V -> products (PLACES, ⌈M/ROWS⌉·ROWS, COLUMNS) -> squares (2·2, COLUMNS) -> out
    """
    width = lanes(framed)
    columns = VECTORS * width
    N, M_all, H, W = out.shape
    flat_out = out.reshape(N * M_all * H * W)
    M, C = M_all // groups, frame.image // frame.plane // groups
    tiles = N * grid.rows * grid.columns
    panels, tile_panels = (M + ROWS - 1) // ROWS, (tiles + columns - 1) // columns
    V_step = (C + 1) * columns  # what the last vector writes too much is one row more
    products_step = panels * ROWS * columns
    places = np.arange(PLACES) * products_step
    at, tile, lengths = np.empty(columns, np.intp), np.empty(columns, np.intp), np.empty(columns, np.intp)
    to, start, cells = np.empty(columns, np.intp), np.empty(columns, np.intp), np.empty(columns, np.intp)
    below, beside = np.empty(columns, np.bool_), np.empty(columns, np.bool_)
    for i in range(first, last):
        group, t = i // tile_panels, i % tile_panels * columns
        count = min(columns, tiles - t)
        runs = cut_runs(t, count, grid.columns, at, tile, lengths)
        for run in range(runs):
            tile[run] = window_cell(tile[run], frame, grid) + group * C * frame.plane
        vectors = cut_vectors(runs, width, at, tile, lengths, to, start)
        for c in range(C):
            for v in range(vectors):
                input_transform(framed, start[v] + c * frame.plane, patch, V, c * columns + to[v], V_step)
        for place in range(PLACES):
            for m in range(panels):
                a_at = ((group * panels + m) * PLACES + place) * C * ROWS
                c_at = place * products_step + m * ROWS * columns
                multiply_tile(C, U, a_at, ROWS, 1, V, place * V_step, columns, products, c_at, columns, False)
        for j in range(count):
            n, p = divmod(t + j, grid.rows * grid.columns)
            h, w = p // grid.columns * 2, p % grid.columns * 2
            cells[j] = ((n * M_all + group * M) * H + h) * W + w
            below[j], beside[j] = h + 1 < H, w + 1 < W
        for m in range(M):
            for j in range(0, columns, width):
                output_transform(products, m * columns + j, places, squares, j, columns)
            b = bias[group * M + m]
            for j in range(count):
                cell = cells[j] + m * H * W
                flat_out[cell] = squares[j] + b
                if beside[j]:
                    flat_out[cell + 1] = squares[columns + j] + b
                if below[j]:
                    flat_out[cell + W] = squares[2 * columns + j] + b
                    if beside[j]:
                        flat_out[cell + W + 1] = squares[3 * columns + j] + b


def _grad_weight(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    OC, C, _, _ = weight.shape
    M, N, G = OC // geometry.groups, len(x), geometry.groups
    rows, columns = math.ceil(geometry.OH / 2), math.ceil(geometry.OW / 2)
    grid = Grid(rows, columns, 0, 0, 0, 2, 2)
    width = VECTORS * lanes(x)
    # The product wants channels side by side, so x is framed with its channels last; the last panel may read past them.
    pixels = (N, 2 * rows + 2, 2 * columns + 2)
    depth = G * C + width
    x_framed = memory.workspace("framed channels last", math.prod(pixels) * depth, x.dtype)[: math.prod(pixels) * depth]
    for_each(_channels_last_kernel, N * pixels[1], x, geometry.top, geometry.left, x_framed.reshape(-1, *pixels[1:], depth))
    g_frame = _frame(grad_out.shape, 0, 0, rows, columns)
    g_framed = fill_frame(grad_out, g_frame)
    sums_size = PLACES * math.ceil(M / ROWS) * ROWS * width
    grad_weight = memory.empty_like(weight)
    patch = ((np.arange(4)[:, None] * pixels[2] + np.arange(4)) * depth).ravel()

    def run(first: int, last: int) -> None:
        U = memory.workspace("weights", PLACES * (math.ceil(M / ROWS) * ROWS + 1) * TILES, x.dtype)
        V = memory.workspace("columns", (last - first) * PLACES * TILES * width, x.dtype)
        sums = memory.workspace("tiles", (last - first) * sums_size, x.dtype)
        sums[: (last - first) * sums_size] = 0
        _grad_weight_kernel(
            first, last, g_framed, g_frame, _patch(g_frame, 2), x_framed, pixels, depth, patch, grid, U, V, sums, grad_weight, G
        )

    for_each(run, G * math.ceil(C / width), ranges_per_thread=1)
    return grad_weight


@kernel
def _channels_last_kernel(first: int, last: int, x: np.ndarray, top: int, left: int, framed: np.ndarray) -> None:
    """(N,C,H,W) -> (N, rows, columns, depth): a piece is one row, framed by zeros."""
    _, C, H, W = x.shape
    _, rows, columns, _ = framed.shape
    for i in range(first, last):
        n, row = divmod(i, rows)
        framed[n, row] = 0
        if 0 <= row - top < H:
            for w in range(min(W, columns - left)):
                for c in range(C):
                    framed[n, row, left + w, c] = x[n, c, row - top, w]


@kernel
def _grad_weight_kernel(
    first: int,
    last: int,
    g_framed: np.ndarray,
    g_frame: Frame,
    g_patch: np.ndarray,
    x_framed: np.ndarray,
    pixels: tuple[int, int, int],
    depth: int,
    x_patch: np.ndarray,
    grid: Grid,
    U: np.ndarray,
    V: np.ndarray,
    sums: np.ndarray,
    grad_weight: np.ndarray,
    groups: int,
) -> None:
    """A piece is COLUMNS channels of one group. For TILES tiles at a time: transform both, multiply, add to sums.

    A g Aᵀ -> U (PLACES, M, TILES); Bᵀ d B -> V (PLACES, TILES, COLUMNS); U · V -> sums (PLACES, ⌈M/ROWS⌉·ROWS, COLUMNS)
    """
    width = lanes(x_framed)
    columns = VECTORS * width
    N, rows, row = pixels
    OC, C, _, _ = grad_weight.shape
    M = OC // groups
    panels, channel_panels = (M + ROWS - 1) // ROWS, (C + columns - 1) // columns
    U_step = (panels * ROWS + 1) * TILES  # what the last vector writes too much is one row more
    sums_step = panels * ROWS * columns
    at, tile, lengths = np.empty(TILES, np.intp), np.empty(TILES, np.intp), np.empty(TILES, np.intp)
    to, start = np.empty(TILES, np.intp), np.empty(TILES, np.intp)
    tiles = N * grid.rows * grid.columns
    g_grid = Grid(grid.rows, grid.columns, 2 * g_frame.row, 0, 0, 2, 2)
    V_step = TILES * columns
    begin = first
    while begin < last:
        group = begin // channel_panels
        end = min(last, (group + 1) * channel_panels)
        for t in range(0, tiles, TILES):
            count = min(TILES, tiles - t)
            runs = cut_runs(t, count, grid.columns, at, tile, lengths)
            for run in range(runs):
                tile[run] = window_cell(tile[run], g_frame, g_grid)
            vectors = cut_vectors(runs, width, at, tile, lengths, to, start)
            for m in range(M):
                for v in range(vectors):
                    cell = start[v] + (group * M + m) * g_frame.plane
                    grad_transform(g_framed, cell, g_patch, U, m * TILES + to[v], U_step)
            for j in range(count):
                n, p = divmod(t + j, grid.rows * grid.columns)
                h, w = p // grid.columns * 2, p % grid.columns * 2
                cell = ((n * rows + h) * row + w) * depth + group * C
                for i in range(begin, end):
                    for part in range(0, columns, width):
                        channel = i % channel_panels * columns + part
                        V_at = (i - first) * PLACES * V_step + j * columns + part
                        input_transform(x_framed, cell + channel, x_patch, V, V_at, V_step)
            for place in range(PLACES):
                for i in range(begin, end):
                    b_at = ((i - first) * PLACES + place) * V_step
                    for m in range(panels):
                        a_at = place * U_step + m * ROWS * TILES
                        c_at = ((i - first) * PLACES + place) * sums_step + m * ROWS * columns
                        multiply_tile(count, U, a_at, 1, TILES, V, b_at, columns, sums, c_at, columns, True)
        begin = end
    half = x_framed.dtype.type(0.5)
    down = np.empty((3, 4), x_framed.dtype)  # Gᵀ S
    for i in range(first, last):
        group, channel = i // channel_panels, i % channel_panels * columns
        for m in range(M):
            for c in range(min(columns, C - channel)):
                s = (i - first) * PLACES * sums_step + m * columns + c
                for j in range(4):
                    a, b = sums[s + (4 + j) * sums_step] * half, sums[s + (8 + j) * sums_step] * half
                    down[0, j] = sums[s + j * sums_step] + (a + b)
                    down[1, j] = a - b
                    down[2, j] = (a + b) + sums[s + (12 + j) * sums_step]
                for kh in range(3):
                    a, b = down[kh, 1] * half, down[kh, 2] * half
                    grad = grad_weight[group * M + m, channel + c, kh]
                    grad[0] = down[kh, 0] + (a + b)
                    grad[1] = a - b
                    grad[2] = (a + b) + down[kh, 3]
