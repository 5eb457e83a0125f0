"""conv2d's rung ``winograd``: four outputs of a 3×3 window at stride 1 by 16 multiplications, where the definition has 36.

Of a 5×5 window they take 49, where it has 100.

Two neighbouring outputs of a 3-tap filter g share two of the four cells d they see, and four products are enough for both:

    m0 = (d0 - d2)·g0    m1 = (d1 + d2)·(g0 + g1 + g2)/2    m2 = (d2 - d1)·(g0 - g1 + g2)/2    m3 = (d1 - d3)·g2
    y0 = m0 + m1 + m2    y1 = m1 - m2 - m3

With three small matrices that is y = Aᵀ[(G g) ⊙ (Bᵀ d)], and down the image as well as across it

    Y (2,2) = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A           d (4,4), g (3,3), ⊙ elementwise

(Winograd 1980; Lavin and Gray 2015, "Fast algorithms for convolutional neural networks", section 4). The sum over channels may be
taken before the last step, so for each of the 16 places in the square it is a matrix product, for the register tile:

    products (OC, tiles) = U (OC, C) · V (C, tiles)     U = G g Gᵀ, V = Bᵀ d B, tiles N·⌈OH/2⌉·⌈OW/2⌉

The gradients are those of the same formula. Of x: the windows of grad_out with flipped filters, once more the same kernel. Of
the weight, with the roles changed:

    grad_weight = Gᵀ [ Σ_tiles (A grad_Y Aᵀ) ⊙ (Bᵀ d B) ] G      (OC, tiles) · (tiles, C) in the middle, at each place

A larger window is cut into pieces of 3×3, filled up with zeros below and on the right. A piece whose first tap is (kh,kw) is a
filter of its own, over the patch d that begins kh rows and kw columns later; all are added up before Aᵀ·A, so to the product
they are more channels, K = pieces·C of them instead of C. A piece only two taps wide has g2 = 0, hence no m3: of a 5×5 window's
pieces one has products at 16 places, two at 12, and the last, 2×2, at 9.

The price is rounding: V is a difference of cells, so an output errs in proportion to cells beside its own window, too. The bound
of this rung (``parity_tests/reference_winograd.py``) counts them. Halves and sums are exact for small integers. And what cancels
in the end may be too large for a float on the way: :func:`_limit` says up to which numbers that cannot be.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scratch.conv2d_frame import Frame, Grid, all_within, cut_runs, cut_vectors, fill_frame, window_cell
from scratch.conv2d_implicit_gemm import grad_bias_of, implicit_gemm_backward
from scratch.core import memory
from scratch.core.jit import kernel
from scratch.core.ladder import NotTakenError
from scratch.core.microkernel import ROWS, VECTORS, multiply_tile
from scratch.core.threads import for_each
from scratch.core.vectors import lanes, sandwich, transpose, weave

if TYPE_CHECKING:
    from scratch.conv2d import Geometry, Gradients

BT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
AT = ((1, 1, 1, 0), (0, 1, -1, -1))
G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
A, GT = (tuple(zip(*matrix, strict=True)) for matrix in (AT, G))

input_transform = sandwich(BT)
weight_transform = sandwich(G)
output_transform = sandwich(AT)
grad_transform = sandwich(A)
grad_weight_transform = sandwich(GT)

SIDES = (3, 5, 6)  # of a window; one of 4 = 3 + 1 taps saves nothing to speak of
SQUARE = tuple(itertools.product(range(4), range(4)))  # which is multiplied elementwise
PLACES = len(SQUARE)
TILES = 128  # of grad_weight's sum in one go: A g Aᵀ and Bᵀ d B of so many stay in the cache


def winograd_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Fewer multiplications: two by two outputs share 16 products for which their windows take 36."""
    OC, _, KH, KW = weight.shape
    if KH not in SIDES or KW not in SIDES or geometry.stride != (1, 1) or geometry.dilation != (1, 1):
        raise NotTakenError("conv2d: winograd takes windows with sides of 3, 5 or 6 at stride 1 without dilation")
    if max(geometry.top, geometry.bottom) >= KH or max(geometry.left, geometry.right) >= KW:
        raise NotTakenError("conv2d: winograd takes no window that lies beside x altogether")
    if x.size == 0:
        raise NotTakenError("conv2d: winograd takes no empty arrays")
    biases = np.zeros(OC, x.dtype) if bias is None else bias
    if not np.all(np.abs(biases) <= np.finfo(x.dtype).max / 2):
        raise NotTakenError("conv2d: winograd takes a bias of at most half the largest number")
    out = memory.empty((len(x), OC, geometry.OH, geometry.OW), x.dtype)
    filters = Filters.of(weight, geometry.groups)
    _correlate(x, geometry.top, geometry.left, filters, biases, out, _limit(x, weight, geometry))
    return out, (x, weight, bias is not None, geometry)


def winograd_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    with contextlib.suppress(NotTakenError):
        grad_x = _grad_x(grad_out, x, weight, geometry) if need_grad_x else None
        return grad_x, _grad_weight(grad_out, x, weight, geometry), grad_bias_of(grad_out) if has_bias else None
    return implicit_gemm_backward(grad_out, x, weight, has_bias, geometry, need_grad_x=need_grad_x)


def _grad_x(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The output oh sees the cell h through the tap kh = h + top - oh: from h, that is the window of grad_out that begins at
    h + top - (KH-1), its taps in reverse.
    """
    _, _, KH, KW = weight.shape
    grad_x = memory.empty_like(x)
    flipped = Filters.of(weight, geometry.groups, flipped=True)
    nothing = np.zeros(x.shape[1], x.dtype)
    limit = _limit(x, weight, geometry)
    _correlate(grad_out, KH - 1 - geometry.top, KW - 1 - geometry.left, flipped, nothing, grad_x, limit)
    return grad_x


def _limit(x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> Any:
    """The largest size of numbers in x, weight and grad_out, none of whose sums on the way can overflow, forward or backward.

    An output takes its products from three places of a line, (0, 1, 2) or (1, 2, 3). There V is at most 2, 2, 2, 2 times the
    largest cell, and U at most 1, 3/2, 3/2, 1 times the largest tap: together 2·1 + 2·3/2 + 2·3/2 = 8, and 8·8 = 64 for lines
    down and across. A gradient of the weight has |Gᵀ| · |A| · |Bᵀ|, 1·1·2 + 1/2·2·2 + 1/2·2·2 = 6, so 36. So a sum of ``terms``
    channels or tiles comes to 64 · terms · limit² at most, where the definition's has 9 · terms · limit² in a 3×3 window.

    Kept below half of the largest number, it leaves the other half to what rounding adds, and to the bias.
    """
    OC, C, KH, KW = weight.shape
    channels = len(Pieces.of(KH, KW).taps) * max(C, OC // geometry.groups)  # summed forward, or for grad_x
    tiles = len(x) * math.ceil(geometry.OH / 2) * math.ceil(geometry.OW / 2)  # summed for grad_weight
    return x.dtype.type(math.sqrt(np.finfo(x.dtype).max / 2 / 64 / max(channels, tiles)))


class Filters(NamedTuple):
    """A weight seen as (G,M,C) filters: M channels of a result, each a sum over C channels. Flipped it is the gradient's."""

    weight: np.ndarray  # flat
    groups: int
    M: int
    C: int
    steps: tuple[int, int, int]  # elements from one group to the next, from m to m + 1, from c to c + 1
    order: np.ndarray  # (KH,KW): which of a filter's elements is the tap (kh,kw)

    @staticmethod
    def of(weight: np.ndarray, groups: int, flipped: bool = False) -> Filters:
        OC, C, KH, KW = weight.shape
        M, taps = OC // groups, KH * KW
        order = np.arange(taps).reshape(KH, KW)
        if flipped:  # (OC,C/G,KH,KW) -> (G, C/G, OC/G, KH, KW)
            return Filters(weight.ravel(), groups, C, M, (M * C * taps, taps, C * taps), order[::-1, ::-1])
        return Filters(weight.ravel(), groups, M, C, (M * C * taps, C * taps, taps), order)


class Pieces(NamedTuple):
    """What a window of KH×KW is cut into. For each place of the square, the pieces with products there stand side by side."""

    taps: np.ndarray  # (pieces, 2): the first tap (kh,kw) of each
    needed: np.ndarray  # (pieces, PLACES): whether it has products there
    reach: tuple[int, int]  # cells from the first one of all patches to the last one, down and across

    @staticmethod
    def of(KH: int, KW: int) -> Pieces:
        def low(kh: int) -> bool:  # its g2 lies below the window: no products in the square's last row
            return kh + 2 >= KH

        def narrow(kw: int) -> bool:  # its g2 lies beside the window: none in the square's last column
            return kw + 2 >= KW

        # First those that are narrow, then those that are neither, low, both. So the first two sorts have products in the last
        # row, the middle two in the last column, the second in the corner, and all of them elsewhere.
        corners = itertools.product(range(0, KH, 3), range(0, KW, 3))
        taps = sorted(corners, key=lambda tap: (low(tap[0]), low(tap[0]) == narrow(tap[1])))
        needed = [[(row < 3 or not low(kh)) and (column < 3 or not narrow(kw)) for row, column in SQUARE] for kh, kw in taps]
        return Pieces(np.array(taps), np.array(needed), (max(taps)[0] + 3, max(taps)[1] + 3))


def _frame(shape: tuple[int, ...], top: int, left: int, height: int, width: int) -> Frame:
    """The frame of that size in which neighbouring patches lie two cells apart."""
    _, _, H, W = shape
    return Frame.around(shape, top, height - top - H, left, width - left - W, 2)


def _patch(frame: Frame, size: int, kh: int = 0, kw: int = 0) -> np.ndarray:
    """(size·size,): how far the cells of the patch that begins at (kh,kw) lie from a tile's first one."""
    h, w = kh + np.arange(size), kw + np.arange(size)
    return frame.taps(1, h[:, None], w % 2 * frame.columns + w // 2)


def _correlate(x: np.ndarray, top: int, left: int, filters: Filters, bias: np.ndarray, out: np.ndarray, limit: Any) -> None:
    """Write out[n,m,h,w] = bias[m] + Σ_{c,kh,kw} filter[g,m,c,kh,kw] · x[n, c, h + kh - top, w + kw - left], 0 beyond x.

    Raises:
        NotTakenError: a cell of x or a tap is beyond ``limit`` or NaN, or a tap so small that its half is not exact.
    """
    N, _, H, W = out.shape
    rows, columns = math.ceil(H / 2), math.ceil(W / 2)
    pieces = Pieces.of(*filters.order.shape)
    frame = _frame(x.shape, top, left, 2 * rows - 1 + pieces.reach[0], 2 * columns - 1 + pieces.reach[1])
    framed = fill_frame(x, frame, limit)
    patches = np.stack([_patch(frame, 4, kh, kw) for kh, kw in pieces.taps])
    # (PLACES, 2): of the K channels of all pieces the first one with products at the place, and how many there are from it on.
    spans = filters.C * np.stack([pieces.needed.argmax(0), pieces.needed.sum(0)], 1)
    K = len(pieces.taps) * filters.C
    U = _transformed(filters, pieces.taps, limit)
    panels = math.ceil(filters.M / ROWS)
    width = VECTORS * lanes(x)
    grid = Grid(rows, columns, 2 * frame.row, 0, 0, 2, 2)

    def run(first: int, last: int) -> None:
        V = memory.workspace(PLACES * (K + 1) * width, x.dtype)
        products = memory.workspace(PLACES * panels * ROWS * width, x.dtype)
        squares = memory.workspace(4 * width + lanes(x), x.dtype)
        _correlate_kernel(first, last, framed, frame, patches, spans, U, bias, grid, V, products, squares, out, filters.groups)

    for_each(run, filters.groups * math.ceil(N * rows * columns / width), values=panels * PLACES * K * width)


def _transformed(filters: Filters, corners: np.ndarray, limit: Any) -> np.ndarray:
    """U = G g Gᵀ of each piece g that begins at one of these corners, as :func:`_weight_kernel` writes it.

    Raises:
        NotTakenError: a tap is beyond ``limit`` or NaN, or so small that half of its half is not exact.
    """
    KH, KW = filters.order.shape
    # (pieces, 9): which of a filter's elements are a piece's taps; -1 beyond the window, where zeros are taken.
    order = np.pad(filters.order, [(0, 2), (0, 2)], constant_values=-1)
    taps = np.stack([order[kh : kh + 3, kw : kw + 3].ravel() for kh, kw in corners])
    side = lanes(filters.weight)
    whole = math.ceil(ROWS / side) * side
    panels = filters.groups * math.ceil(filters.M / ROWS)
    U = memory.workspace(panels * PLACES * (len(corners) * filters.C + 1) * ROWS, filters.weight.dtype)

    # Down to here a number is a whole multiple of four times the smallest, and so are sums of such.
    least = filters.weight.dtype.type(4 * np.finfo(filters.weight.dtype).tiny)
    within = np.empty(panels, np.bool_)

    def run(first: int, last: int) -> None:
        cells = memory.workspace((filters.C * KH * KW + 1) * whole, filters.weight.dtype)
        _weight_kernel(
            first, last, filters.weight, filters.M, filters.C, filters.steps, KH * KW, taps, limit, least, cells, U, within
        )

    for_each(run, panels, values=PLACES * len(corners) * filters.C * ROWS)
    if not within.all():
        raise NotTakenError(f"conv2d: winograd takes weights from ±{least:.3g} to ±{limit:.3g} and 0 only")
    return U


@kernel
def _weight_kernel(
    first: int,
    last: int,
    weight: np.ndarray,
    M: int,
    C: int,
    steps: tuple[int, int, int],
    size: int,
    taps: np.ndarray,
    limit: Any,
    least: Any,
    cells: np.ndarray,
    U: np.ndarray,
    within: np.ndarray,
) -> None:
    """A piece of work is ROWS channels of the result, one panel for the register tile. A vector holds one tap of several filters.

    ``steps`` tells how far apart groups, rows and channels of weight lie, ``size`` how many taps a filter has.

    weight -> cells (C·KH·KW, whole vectors of ROWS) -> U (G·⌈M/ROWS⌉, PLACES, pieces·C + 1, ROWS)
    """
    group_step, row_step, channel_step = steps
    side = lanes(weight)
    whole = (ROWS + side - 1) // side * side  # ROWS, rounded up to whole vectors
    offsets, places = np.empty(whole, np.intp), np.empty(taps.shape[1], np.intp)
    zeros = C * size * whole
    cells[zeros : zeros + whole] = 0
    together = C if channel_step == size else 1  # channels whose filters are neighbours
    panels = (M + ROWS - 1) // ROWS
    step = (len(taps) * C + 1) * ROWS  # a row is written in whole vectors, the last one into a spare row
    for i in range(first, last):
        group, top = i // panels, i % panels * ROWS
        for r in range(whole):
            offsets[r] = min(top + r, M - 1) * row_step  # rows that are not there go along with the last one
        for c in range(0, C, together):
            at = group * group_step + c * channel_step
            transpose(weight, at, offsets, together * size, cells, c * size * whole, whole)
        within[i] = all_within(cells[:zeros], limit, least)
        for k in range(len(taps) * C):
            piece, c = divmod(k, C)
            for j in range(len(places)):
                tap = taps[piece, j]
                places[j] = (c * size + tap) * whole if tap >= 0 else zeros
            for r in range(0, whole, side):
                weight_transform(cells, r, places, U, i * PLACES * step + k * ROWS + r, step)


@kernel
def _correlate_kernel(
    first: int,
    last: int,
    framed: np.ndarray,
    frame: Frame,
    patches: np.ndarray,
    spans: np.ndarray,
    U: np.ndarray,
    bias: np.ndarray,
    grid: Grid,
    V: np.ndarray,
    products: np.ndarray,
    squares: np.ndarray,
    out: np.ndarray,
    groups: int,
) -> None:
    """A piece of work is COLUMNS tiles of one group.

    framed -> V (PLACES, K+1, COLUMNS); U · V -> products (PLACES, ⌈M/ROWS⌉·ROWS, COLUMNS) -> squares (2·2, COLUMNS) -> out
    """
    width = lanes(framed)
    columns = VECTORS * width
    N, M_all, H, W = out.shape
    flat_out = out.reshape(N * M_all * H * W)
    M, C = M_all // groups, frame.image // frame.plane // groups
    K = len(patches) * C
    tiles = N * grid.rows * grid.columns
    panels, tile_panels = (M + ROWS - 1) // ROWS, (tiles + columns - 1) // columns
    V_step = (K + 1) * columns  # what the last vector writes too much is one row more
    products_step = panels * ROWS * columns
    places = np.arange(PLACES) * products_step
    at, tile, lengths = np.empty(columns, np.intp), np.empty(columns, np.intp), np.empty(columns, np.intp)
    to, start, cells = np.empty(columns, np.intp), np.empty(columns, np.intp), np.empty(columns, np.intp)
    across, below = np.empty(columns, np.intp), np.empty(columns, np.bool_)
    for i in range(first, last):
        group, t = i // tile_panels, i % tile_panels * columns
        count = min(columns, tiles - t)
        runs = cut_runs(t, count, grid.columns, at, tile, lengths)
        for run in range(runs):
            tile[run] = window_cell(tile[run], frame, grid) + group * C * frame.plane
        vectors = cut_vectors(runs, width, at, tile, lengths, to, start)
        for k in range(K):
            patch, c = patches[k // C], k % C
            for v in range(vectors):
                input_transform(framed, start[v] + c * frame.plane, patch, V, k * columns + to[v], V_step)
        for place in range(PLACES):
            k, count_k = spans[place]
            b_at = place * V_step + k * columns
            for m in range(panels):
                a_at = (((group * panels + m) * PLACES + place) * (K + 1) + k) * ROWS
                c_at = place * products_step + m * ROWS * columns
                multiply_tile(count_k, U, a_at, ROWS, 1, V, b_at, columns, products, c_at, columns, False)
        for v in range(vectors):
            n, p = divmod(t + to[v], grid.rows * grid.columns)
            h, w = p // grid.columns * 2, p % grid.columns * 2
            end = to[v + 1] if v + 1 < vectors else count
            cells[v], across[v], below[v] = ((n * M_all + group * M) * H + h) * W + w, min(2 * (end - to[v]), W - w), h + 1 < H
        for m in range(M):
            for j in range(0, columns, width):
                output_transform(products, m * columns + j, places, squares, j, columns)
            b = bias[group * M + m]
            for v in range(vectors):
                cell = cells[v] + m * H * W
                weave(squares, to[v], columns + to[v], b, flat_out, cell, across[v])
                if below[v]:
                    weave(squares, 2 * columns + to[v], 3 * columns + to[v], b, flat_out, cell + W, across[v])


def _grad_weight(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    OC, C, KH, KW = weight.shape
    M, N, groups = OC // geometry.groups, len(x), geometry.groups
    rows, columns = math.ceil(geometry.OH / 2), math.ceil(geometry.OW / 2)
    pieces = Pieces.of(KH, KW)
    grid = Grid(rows, columns, 0, 0, 0, 2, 2)
    width = VECTORS * lanes(x)
    # The product wants channels side by side, so x is framed with its channels last; the last panel may read past them.
    pixels = (N, 2 * rows - 1 + pieces.reach[0], 2 * columns - 1 + pieces.reach[1])
    depth = groups * C + width
    x_framed = memory.workspace(math.prod(pixels) * depth, x.dtype)
    by_pixel = x_framed.reshape(-1, *pixels[1:], depth)
    for_each(_channels_last_kernel, N * pixels[1], x, geometry.top, geometry.left, by_pixel, values=pixels[2] * depth)
    g_frame = _frame(grad_out.shape, 0, 0, 2 * rows, 2 * columns)
    g_framed = fill_frame(grad_out, g_frame, _limit(x, weight, geometry))
    square = ((np.arange(4)[:, None] * pixels[2] + np.arange(4)) * depth).ravel()
    patches = square + (pieces.taps @ (pixels[2], 1) * depth)[:, None]
    # A panel's columns are VECTORS vectors of channels, one piece's behind the other's: each with its piece and first channel.
    per_piece = math.ceil(C / lanes(x))
    panels = math.ceil(len(pieces.taps) * per_piece / VECTORS)
    vector = np.arange(panels * VECTORS).reshape(panels, VECTORS)
    piece = np.minimum(vector // per_piece, len(pieces.taps) - 1)
    channel = (vector - piece * per_piece) * lanes(x)
    needed = pieces.needed[piece].any(1)
    sums_size = PLACES * math.ceil(M / ROWS) * ROWS * width
    grad_weight = memory.empty_like(weight)

    def run(first: int, last: int) -> None:
        U = memory.workspace(PLACES * (math.ceil(M / ROWS) * ROWS + 1) * TILES, x.dtype)
        V = memory.workspace((last - first) * PLACES * TILES * width, x.dtype)
        sums = memory.workspace((last - first) * sums_size, x.dtype)
        sums[:] = 0
        _grad_weight_kernel(
            first, last, g_framed, g_frame, _patch(g_frame, 2), x_framed, pixels, depth, patches, pieces.taps,
            piece, channel, needed, grid, U, V, sums, grad_weight, groups,
        )  # fmt: skip

    # Pieces have different prices, so there are more ranges with them.
    values = math.ceil(M / ROWS) * PLACES * N * rows * columns * width
    for_each(run, groups * panels, ranges_per_thread=min(2, len(pieces.taps)), values=values)
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
    patches: np.ndarray,
    taps: np.ndarray,
    piece: np.ndarray,
    channel: np.ndarray,
    needed: np.ndarray,
    grid: Grid,
    U: np.ndarray,
    V: np.ndarray,
    sums: np.ndarray,
    grad_weight: np.ndarray,
    groups: int,
) -> None:
    """A piece of work is COLUMNS channels of one group. For TILES tiles at a time: transform both, multiply, add to sums.

    A g Aᵀ -> U (PLACES, M, TILES); Bᵀ d B -> V (PLACES, TILES, COLUMNS); U · V -> sums (PLACES, ⌈M/ROWS⌉·ROWS, COLUMNS)
    """
    width = lanes(x_framed)
    columns = VECTORS * width
    N, rows, row = pixels
    OC, C, KH, KW = grad_weight.shape
    M = OC // groups
    panels, channel_panels = (M + ROWS - 1) // ROWS, len(piece)
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
                    for v in range(VECTORS):
                        patch = patches[piece[i % channel_panels, v]]
                        V_at = (i - first) * PLACES * V_step + j * columns + v * width
                        input_transform(x_framed, cell + channel[i % channel_panels, v], patch, V, V_at, V_step)
            for place in range(PLACES):
                for i in range(begin, end):
                    if not needed[i % channel_panels, place]:
                        continue
                    b_at = ((i - first) * PLACES + place) * V_step
                    for m in range(panels):
                        a_at = place * U_step + m * ROWS * TILES
                        c_at = ((i - first) * PLACES + place) * sums_step + m * ROWS * columns
                        multiply_tile(count, U, a_at, 1, TILES, V, b_at, columns, sums, c_at, columns, True)
        begin = end
    # sums -> Gᵀ S G of COLUMNS channels: taps (3·3, COLUMNS) -> the weight's gradient
    places, tap_values = np.arange(PLACES) * sums_step, np.empty(9 * columns, x_framed.dtype)
    for i in range(first, last):
        group, panel = i // channel_panels, i % channel_panels
        for m in range(M):
            for v in range(VECTORS):
                at = (i - first) * PLACES * sums_step + m * columns + v * width
                grad_weight_transform(sums, at, places, tap_values, v * width, columns)
                kh, kw = taps[piece[panel, v]]
                for lane in range(min(width, C - channel[panel, v])):
                    grad = grad_weight[group * M + m, channel[panel, v] + lane]
                    for row in range(min(3, KH - kh)):
                        for column in range(min(3, KW - kw)):
                            grad[kh + row, kw + column] = tap_values[(3 * row + column) * columns + v * width + lane]
