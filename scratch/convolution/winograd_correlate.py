"""Winograd's product for forward and grad_x: transform the filters and the tiles, multiply, transform back."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from scratch.compiled import memory
from scratch.compiled.blocks import KC, panels_in_l2
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import MR, NR_VECTORS, micro_kernel
from scratch.compiled.threads import for_each, get_num_threads
from scratch.compiled.vectors import lanes
from scratch.convolution.packing import Copies, Grid, PaddedInput, new_copies, pad, plan_copies
from scratch.convolution.winograd_filters import TransformedFilters, transformed
from scratch.convolution.winograd_tiles import Filters, Pieces, patch_of, tile_layout
from scratch.convolution.winograd_transforms import ELEMENTS, input_transform, interleave, output_transform

SHARE = 7  # panels of MR channels in a work item: with only 7, their products stay in L2 until they are transformed back
FEW = 4  # with this many panels of tiles per thread or more, ranges of different lengths pay


class Tiles(NamedTuple):
    """The tiles of the padded input, and for each element the one contiguous range of channels that its product runs over."""

    grid: Grid  # of tiles
    patches: np.ndarray  # (pieces, ELEMENTS): offsets of a piece's patch from a tile's first cell
    spans: np.ndarray  # (ELEMENTS, 2): of K = pieces·C channels, the first with products for it, and how many have


class TileBuffers(NamedTuple):
    """A thread's buffers for a few panels of NR tiles."""

    V: np.ndarray  # (panels, ELEMENTS, K + 1, NR): Bᵀ d B; the last vector may write into the last row
    products: np.ndarray  # (panels, ELEMENTS, SHARE·MR, NR): U · V
    outputs: np.ndarray  # (2·2, NR): Aᵀ · A of the products of one channel


def correlate(x: np.ndarray, top: int, left: int, filters: Filters, bias: np.ndarray, out: np.ndarray, limit: Any) -> None:
    """Write out[n,m,h,w] = bias[m] + Σ_{c,kh,kw} filter[g,m,c,kh,kw] · x[n, c, h + kh - top, w + kw - left], 0 beyond x.

    Raises:
        NotTakenError: a cell of x or a tap is beyond ``limit`` or NaN, or a tap is so small that a quarter of it is not exact.
    """
    N, _, H, W = out.shape
    rows, columns = math.ceil(H / 2), math.ceil(W / 2)
    pieces = Pieces.of(*filters.order.shape)
    layout = tile_layout(x.shape, top, left, 2 * rows - 1 + pieces.reach[0], 2 * columns - 1 + pieces.reach[1])
    padded = pad(x, layout, limit)
    tiles = Tiles(
        Grid(rows, columns, 2 * layout.row, 0, 0, 2, 2),
        np.stack([patch_of(layout, 4, kh, kw) for kh, kw in pieces.taps]),
        filters.C * np.stack([pieces.needed.argmax(0), pieces.needed.sum(0)], 1),
    )
    K = len(pieces.taps) * filters.C
    transformed_filters = transformed(filters, pieces.taps, bias, limit)
    NR = NR_VECTORS * lanes(x)
    # The number of panels whose V and products fit into L2 together: U is read once for all of them.
    panels = panels_in_l2(ELEMENTS * (K + SHARE * MR) * NR * x.itemsize, 0)

    def run(first: int, last: int) -> None:
        buffers = TileBuffers(
            memory.workspace(panels * ELEMENTS * (K + 1) * NR, x.dtype),
            memory.workspace(panels * ELEMENTS * SHARE * MR * NR, x.dtype),
            memory.workspace(4 * NR + lanes(x), x.dtype),
        )
        _correlate_kernel(first, last, padded, tiles, transformed_filters, buffers, out, filters.groups)

    shares, tile_panels = math.ceil(math.ceil(filters.M / MR) / SHARE), filters.groups * math.ceil(N * rows * columns / NR)
    # Every range transforms its tiles. So if there are only a few panels of them, as for one image, each thread gets one range.
    once = 1 if tile_panels < FEW * get_num_threads() else None
    for_each(run, tile_panels * shares, ranges_per_thread=once, values=SHARE * ELEMENTS * K * NR)


@kernel
def _correlate_kernel(
    first: int,
    last: int,
    padded: PaddedInput,
    tiles: Tiles,
    filters: TransformedFilters,
    buffers: TileBuffers,
    out: np.ndarray,
    groups: int,
) -> None:
    """A work item is NR tiles of one group and a share of its channels: transform the tiles, multiply, transform back.

    padded -> V (panels, ELEMENTS, K+1, NR), once for all shares; U · V -> products (panels, ELEMENTS, SHARE·MR, NR) -> out. The
    size of the buffers says how many panels of tiles share a pass over U. ``groups`` is the convolution's.
    """
    width = lanes(padded.cells)
    NR = NR_VECTORS * width
    N, M_all, _, _ = out.shape
    M, C = M_all // groups, padded.layout.image // padded.layout.plane // groups
    K = len(tiles.patches) * C
    count = N * tiles.grid.rows * tiles.grid.columns
    shares, tile_panels = ((M + MR - 1) // MR + SHARE - 1) // SHARE, (count + NR - 1) // NR
    size = ELEMENTS * (K + 1) * NR  # of V for one panel of tiles
    copies = new_copies(NR)
    most = buffers.V.size // size
    i = first
    while i < last:
        # Take all shares of a few panels of tiles if the range has all, else those shares of one panel that the range has.
        panel, share = divmod(i, shares)
        group = panel // tile_panels
        panels, end = 1, min(shares, share + last - i)
        if share == 0 and last - i >= shares:
            panels = min(most, (last - i) // shares, (group + 1) * tile_panels - panel)
        for b in range(panels):
            t = (panel + b) % tile_panels * NR
            _transform_tiles(
                t, min(NR, count - t), group * C * padded.layout.plane, padded, tiles, C, b * size, copies, buffers.V
            )
        for begin in range(share * SHARE, end * SHARE, SHARE):
            channel, channels = begin * MR, min(M - begin * MR, SHARE * MR)
            _multiply(group * ((M + MR - 1) // MR) + begin, channels, panels, K, tiles.spans, filters, buffers)
            for b in range(panels):
                t = (panel + b) % tile_panels * NR
                _write_outputs(t, min(NR, count - t), group * M + channel, channels, tiles.grid, filters.bias, b, buffers, out)
        i += panels * (end - share)


@kernel
def _transform_tiles(
    t: int, count: int, channel_at: int, padded: PaddedInput, tiles: Tiles, C: int, target: int, copies: Copies, V: np.ndarray
) -> None:
    """Bᵀ d B of ``count`` tiles from tile ``t`` on, C channels from ``channel_at`` on -> V (ELEMENTS, K+1, NR) at ``target``."""
    cells, layout = padded
    NR = NR_VECTORS * lanes(cells)
    K = len(tiles.patches) * C
    vectors = plan_copies(t, count, tiles.grid, layout, lanes(cells), channel_at, target, copies, 0)
    for k in range(K):
        patch, c = tiles.patches[k // C], k % C
        for v in range(vectors):
            source = copies.source[v] + c * layout.plane
            input_transform(cells, source, patch, V, k * NR + copies.target[v], (K + 1) * NR)  # V[:, k, v]


@kernel
def _multiply(
    first: int, rows: int, panels: int, K: int, spans: np.ndarray, filters: TransformedFilters, buffers: TileBuffers
) -> None:
    """Products of ``rows`` channels, from panel ``first`` of U on, with a few panels of tiles, in blocks of KC channels."""
    NR = NR_VECTORS * lanes(filters.U)
    for element in range(ELEMENTS):
        begin, count = spans[element]
        for m in range((rows + MR - 1) // MR):
            for k in range(begin, begin + count, KC):
                a_at = (first + m) * filters.panel + (element * (K + 1) + k) * MR  # U[first + m, element, k]
                for b in range(panels):
                    b_at = ((b * ELEMENTS + element) * (K + 1) + k) * NR  # V[b, element, k]
                    c_at = ((b * ELEMENTS + element) * SHARE + m) * MR * NR  # products[b, element, m]
                    micro_kernel(
                        min(KC, begin + count - k), filters.U, a_at, MR, 1, buffers.V, b_at, NR,
                        buffers.products, c_at, NR, rows - m * MR, k > begin,
                    )  # fmt: skip


@kernel
def _write_outputs(
    t: int, count: int, channel: int, channels: int, grid: Grid, bias: np.ndarray, b: int, buffers: TileBuffers, out: np.ndarray
) -> None:
    """The products of ``count`` tiles from tile ``t`` on -> ``channels`` channels of out from ``channel`` on, 2×2 outputs a tile.

    ``b`` is their panel in the buffers. The four outputs of a vector of tiles are in four vectors. Two of these, the left and
    the right outputs of a row, are interleaved into a row of the image. No number is written beyond the outputs.
    """
    _, products, outputs = buffers
    width = lanes(products)
    NR = NR_VECTORS * width
    N, M_all, H, W = out.shape
    flat_out = out.reshape(N * M_all * H * W)
    elements = np.empty(ELEMENTS, np.intp)
    for element in range(ELEMENTS):
        elements[element] = (b * ELEMENTS + element) * (SHARE * MR * NR)  # products[b, element]
    # For each stretch of tiles in a row of the image, one vector at most: the first tile, its cell in out, the number of
    # outputs across, and whether there are outputs in the row below.
    first, cells, across, below = np.empty(NR, np.intp), np.empty(NR, np.intp), np.empty(NR, np.intp), np.empty(NR, np.bool_)
    stretches = tile = 0
    while tile < count:
        n, p = divmod(t + tile, grid.rows * grid.columns)
        h, w = p // grid.columns * 2, p % grid.columns * 2
        length = min(width, count - tile, grid.columns - p % grid.columns)
        first[stretches], cells[stretches] = tile, ((n * M_all + channel) * H + h) * W + w  # out[n, channel, h, w]
        across[stretches], below[stretches] = min(2 * length, W - w), h + 1 < H
        tile += length
        stretches += 1
    for m in range(channels):
        for j in range(0, NR, width):
            output_transform(products, m * NR + j, elements, outputs, j, NR)  # products[b, :, m, j] -> outputs[:, j]
        addend = bias[channel + m]
        for v in range(stretches):
            # outputs[0, tile] and outputs[1, tile] -> out[n, channel + m, h, w]
            cell, left, right = cells[v] + m * H * W, first[v], NR + first[v]
            interleave(outputs, left, right, addend, flat_out, cell, across[v])
            if below[v]:  # outputs[2, tile] and outputs[3, tile] -> out[n, channel + m, h + 1, w]
                interleave(outputs, 2 * NR + left, 2 * NR + right, addend, flat_out, cell + W, across[v])
