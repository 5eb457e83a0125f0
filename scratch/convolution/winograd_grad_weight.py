"""Winograd's gradient of the weight: Gᵀ [ Σ_tiles (A g Aᵀ) ⊙ (Bᵀ d B) ] G, a sum over all tiles of all images."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from scratch.compiled import memory
from scratch.compiled.blocks import KC
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import MR, NR_VECTORS, micro_kernel
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import lanes
from scratch.convolution.geometry import Geometry
from scratch.convolution.packing import Copies, Grid, PaddedInput, new_copies, pad, plan_copies
from scratch.convolution.winograd_tiles import Pieces, limit_of, patch_of, tile_layout
from scratch.convolution.winograd_transforms import ELEMENTS, grad_transform, grad_weight_transform, input_transform


class ChannelsLast(NamedTuple):
    """The padded x with its channels last, (N, rows, columns, depth) flat: channels are the product's columns."""

    cells: np.ndarray
    rows: int
    columns: int
    depth: int  # all channels, and some more, since the last panel may read past them


class GradTiles(NamedTuple):
    """The padded grad_out, and its 2×2 tiles."""

    padded: PaddedInput
    grid: Grid
    patch: np.ndarray  # (2·2,): the cells of a tile


class ChannelPanels(NamedTuple):
    """The columns of each panel: NR_VECTORS vectors of channels, each vector from one piece."""

    patches: np.ndarray  # (panels, NR_VECTORS, ELEMENTS): offsets of the patch from a tile's first cell and channel
    taps: np.ndarray  # (panels, NR_VECTORS, 2): the piece's first tap (kh,kw)
    channel: np.ndarray  # (panels, NR_VECTORS): the vector's first channel
    needed: np.ndarray  # (panels, ELEMENTS): whether the panel has products for the element


class SumBuffers(NamedTuple):
    """A thread's buffers for a range of panels."""

    U: np.ndarray  # (ELEMENTS, ⌈M/MR⌉·MR + 1, KC): A g Aᵀ; the last vector may write into the last row
    V: np.ndarray  # (panels of the range, ELEMENTS, KC, NR): Bᵀ d B
    sums: np.ndarray  # (panels of the range, ELEMENTS, ⌈M/MR⌉·MR, NR): Σ over the tiles so far


def grad_weight_of(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(OC,C/G,KH,KW), the gradient of the weight.

    Raises:
        NotTakenError: sums of grad_out's cells might overflow.
    """
    OC, C, KH, KW = weight.shape
    M, groups = OC // geometry.groups, geometry.groups
    rows, columns = math.ceil(geometry.OH / 2), math.ceil(geometry.OW / 2)
    pieces = Pieces.of(KH, KW)
    layout = tile_layout(grad_out.shape, 0, 0, 2 * rows, 2 * columns)
    padded = pad(grad_out, layout, limit_of(x, weight, geometry))
    g_tiles = GradTiles(padded, Grid(rows, columns, 2 * layout.row, 0, 0, 2, 2), patch_of(layout, 2))
    NR = NR_VECTORS * lanes(x)
    x_last = _channels_last(x, geometry, 2 * rows - 1 + pieces.reach[0], 2 * columns - 1 + pieces.reach[1], groups * C + NR)
    panels = _channel_panels(pieces, C, lanes(x), x_last)
    M_whole = math.ceil(M / MR) * MR
    grad_weight = memory.empty_like(weight)

    def run(first: int, last: int) -> None:
        count = last - first
        buffers = SumBuffers(
            memory.workspace(ELEMENTS * (M_whole + 1) * KC, x.dtype),
            memory.workspace(count * ELEMENTS * KC * NR, x.dtype),
            memory.workspace(count * ELEMENTS * M_whole * NR, x.dtype),
        )
        buffers.sums[:] = 0
        _grad_weight_kernel(first, last, g_tiles, x_last, panels, buffers, groups, grad_weight)

    # Pieces take different times. So if there is more than one piece, each thread gets two ranges.
    values = M_whole // MR * ELEMENTS * len(x) * rows * columns * NR
    for_each(run, groups * len(panels.channel), ranges_per_thread=min(2, len(pieces.taps)), values=values)
    return grad_weight


def _channels_last(x: np.ndarray, geometry: Geometry, rows: int, columns: int, depth: int) -> ChannelsLast:
    size = len(x) * rows * columns * depth
    cells = memory.workspace(size, x.dtype)
    shaped = cells.reshape(len(x), rows, columns, depth)
    for_each(_channels_last_kernel, len(x) * rows, x, geometry.top, geometry.left, shaped, values=columns * depth)
    return ChannelsLast(cells, rows, columns, depth)


@kernel
def _channels_last_kernel(first: int, last: int, x: np.ndarray, top: int, left: int, padded: np.ndarray) -> None:
    """(N,C,H,W) -> (N, rows, columns, depth), with zeros around the image: a work item is one row."""
    _, C, H, W = x.shape
    _, rows, columns, _ = padded.shape
    for i in range(first, last):
        n, row = divmod(i, rows)
        padded[n, row] = 0
        if 0 <= row - top < H:
            for w in range(min(W, columns - left)):
                for c in range(C):
                    padded[n, row, left + w, c] = x[n, c, row - top, w]


def _channel_panels(pieces: Pieces, C: int, width: int, x_last: ChannelsLast) -> ChannelPanels:
    """The pieces' vectors of channels one after the other, NR_VECTORS to a panel; the last panel may repeat a piece."""
    per_piece = math.ceil(C / width)
    panels = math.ceil(len(pieces.taps) * per_piece / NR_VECTORS)
    vector = np.arange(panels * NR_VECTORS).reshape(panels, NR_VECTORS)
    piece = np.minimum(vector // per_piece, len(pieces.taps) - 1)
    channel = (vector - piece * per_piece) * width
    # (4,4) -> (ELEMENTS,): x_last[n, h + i, w + j]
    patch = ((np.arange(4)[:, None] * x_last.columns + np.arange(4)) * x_last.depth).ravel()
    first_tap = pieces.taps @ (x_last.columns, 1) * x_last.depth
    return ChannelPanels(
        patch + (first_tap[piece] + channel)[..., None], pieces.taps[piece], channel, np.asarray(pieces.needed[piece].any(1))
    )


@kernel
def _grad_weight_kernel(
    first: int,
    last: int,
    g_tiles: GradTiles,
    x_last: ChannelsLast,
    panels: ChannelPanels,
    buffers: SumBuffers,
    groups: int,
    grad_weight: np.ndarray,
) -> None:
    """A work item is a panel of channels of one group. KC tiles at a time: transform g and x, multiply, add to the sums."""
    M = len(grad_weight) // groups
    N = x_last.cells.size // (x_last.rows * x_last.columns * x_last.depth)
    tiles = N * g_tiles.grid.rows * g_tiles.grid.columns
    copies = new_copies(KC)
    begin = first
    while begin < last:  # group by group: the items of a group share U
        group = begin // len(panels.channel)
        end = min(last, (group + 1) * len(panels.channel))
        for t in range(0, tiles, KC):
            count = min(KC, tiles - t)
            _transform_grad(t, count, group * M, M, g_tiles, copies, buffers.U)
            for i in range(begin, end):
                _transform_x(t, count, group, i % len(panels.channel), i - first, g_tiles.grid, x_last, panels, groups, buffers.V)
            for element in range(ELEMENTS):
                for i in range(begin, end):
                    if panels.needed[i % len(panels.channel), element]:
                        _multiply(count, element, i - first, M, buffers)
        begin = end
    for i in range(first, last):
        _write_grad(i // len(panels.channel) * M, M, i % len(panels.channel), i - first, panels, buffers.sums, grad_weight)


@kernel
def _transform_grad(t: int, count: int, channel: int, M: int, g_tiles: GradTiles, copies: Copies, U: np.ndarray) -> None:
    """A g Aᵀ of ``count`` tiles from tile ``t`` on, M channels from ``channel`` on -> U (ELEMENTS, ⌈M/MR⌉·MR + 1, KC)."""
    cells, layout = g_tiles.padded
    vectors = plan_copies(t, count, g_tiles.grid, layout, lanes(cells), channel * layout.plane, 0, copies, 0)
    step = ((M + MR - 1) // MR * MR + 1) * KC  # from U[element] to U[element + 1]
    for m in range(M):
        for v in range(vectors):
            source = copies.source[v] + m * layout.plane
            grad_transform(cells, source, g_tiles.patch, U, m * KC + copies.target[v], step)  # U[:, m, v]


@kernel
def _transform_x(
    t: int,
    count: int,
    group: int,
    panel: int,
    item: int,
    grid: Grid,
    x_last: ChannelsLast,
    panels: ChannelPanels,
    groups: int,
    V: np.ndarray,
) -> None:
    """Bᵀ d B of ``count`` tiles from tile ``t`` on -> V[item] (ELEMENTS, KC, NR).

    ``panel`` counts the group's panels of channels, ``item`` the panels of the thread's range.
    """
    width = lanes(x_last.cells)
    NR = NR_VECTORS * width
    C = (x_last.depth - NR) // groups
    for j in range(count):
        n, p = divmod(t + j, grid.rows * grid.columns)
        h, w = p // grid.columns * 2, p % grid.columns * 2
        cell = ((n * x_last.rows + h) * x_last.columns + w) * x_last.depth + group * C  # x_last[n, h, w, the group's first]
        for v in range(NR_VECTORS):
            target = (item * ELEMENTS * KC + j) * NR + v * width  # V[item, :, j, v]
            input_transform(x_last.cells, cell, panels.patches[panel, v], V, target, KC * NR)


@kernel
def _multiply(count: int, element: int, item: int, M: int, buffers: SumBuffers) -> None:
    """sums[item, element] += U[element] (M, count) · V[item, element] (count, NR)."""
    U, V, sums = buffers
    NR = NR_VECTORS * lanes(U)
    M_panels = (M + MR - 1) // MR
    b_at = (item * ELEMENTS + element) * KC * NR  # V[item, element]
    for m in range(M_panels):
        a_at = (element * (M_panels * MR + 1) + m * MR) * KC  # U[element, m·MR]
        c_at = ((item * ELEMENTS + element) * M_panels + m) * MR * NR  # sums[item, element, m·MR]
        micro_kernel(count, U, a_at, 1, KC, V, b_at, NR, sums, c_at, NR, M - m * MR, True)


@kernel
def _write_grad(
    channel: int, M: int, panel: int, item: int, panels: ChannelPanels, sums: np.ndarray, grad_weight: np.ndarray
) -> None:
    """Gᵀ S G of one panel's sums: S (ELEMENTS, M, NR) -> taps (3·3, NR) -> grad_weight[channel : channel + M].

    ``panel`` counts the group's panels of channels; ``item`` is where the panel is in sums.
    """
    width = lanes(sums)
    NR = NR_VECTORS * width
    _, C, KH, KW = grad_weight.shape
    step = (M + MR - 1) // MR * MR * NR  # from sums[item, element] to sums[item, element + 1]
    elements, taps = np.empty(ELEMENTS, np.intp), np.empty(9 * NR, sums.dtype)
    for element in range(ELEMENTS):
        elements[element] = element * step
    for m in range(M):
        for v in range(NR_VECTORS):
            source = item * ELEMENTS * step + m * NR + v * width  # sums[item, :, m, v]
            grad_weight_transform(sums, source, elements, taps, v * width, NR)  # taps[:, v]
            kh, kw = panels.taps[panel, v]
            for lane in range(min(width, C - panels.channel[panel, v])):
                grad = grad_weight[channel + m, panels.channel[panel, v] + lane]
                for row in range(min(3, KH - kh)):  # from taps[3·row + column, v, lane]
                    for column in range(min(3, KW - kw)):
                        grad[kh + row, kw + column] = taps[(3 * row + column) * NR + v * width + lane]
