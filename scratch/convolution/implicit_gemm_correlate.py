"""implicit_gemm's product for forward and grad_x: weights · columns of the image, and where each sum goes in the result.

padded input -> columns (panels, KC, NR)                     packed panels, a block of taps at a time
weights (⌈rows/MR⌉, MR, KC) · columns -> tiles               (⌈rows/MR⌉, panels, MR, NR) in L2, where the blocks add up
tiles -> out                                                 once, when the sum over all blocks is complete
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from scratch.compiled import memory
from scratch.compiled.blocks import KC, panels_in_l2
from scratch.compiled.handover import fill
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import MR, NR_VECTORS, micro_kernel
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import copy_few, copy_vector, lanes, prefetch, stream
from scratch.convolution.packing import Grid, PaddedInput, new_copies, plan_copies


class Rows(NamedTuple):
    """The rows of a product. In forward, row m is channel m of the result, and there is one *member*: each pixel's own cell.

    With a stride, grad_x computes several cells (h0,w0) of each stride × stride square in one product, and each is a member. Row
    member·M + m is channel m of that member's cell.
    """

    weight: np.ndarray  # (G, M, channels, KH·KW), flat; `steps` says where each axis is in it
    steps: tuple[int, int, int]  # elements of weight from one group to the next, from m to m + 1, from channel to channel
    which: np.ndarray  # (members, taps): for each member, the index in weight (0 … KH·KW - 1) of each tap that it uses
    bias: np.ndarray  # (G, members·M)
    cells: np.ndarray  # (members·M,): where a row's cell is in the result, counted from the cell of row 0


class Buffers(NamedTuple):
    """A thread's buffers for a block of pixels."""

    columns: np.ndarray  # (panels, KC + 1, NR): packed panels; a copy into row KC - 1 may run over its end, into the last row
    tiles: np.ndarray  # (⌈rows/MR⌉, panels, MR, NR): the sums so far


def correlate(padded: PaddedInput, taps: np.ndarray, rows: Rows, grid: Grid, out: np.ndarray) -> None:
    """For each row and pixel: out = bias[g, row] + Σ_{c,t} weight[g, m, c, which[member, t]] · padded[window + taps[c, t]].

    g is the group, row is member·M + m. ``padded`` holds (N, G·channels, H, W) and its zeros. ``taps`` is (channels, taps of a
    member), flat, and K is its size. ``grid`` says which pixels there are, and where their cells are in ``out`` (N, G·M, H, W).
    """
    groups, K = len(rows.bias), len(taps)
    weight_panels = math.ceil(len(rows.cells) / MR)
    NR = NR_VECTORS * lanes(out)
    # L2 holds the columns and tiles of each panel of pixels, and two panels of weights for all of them together.
    most = panels_in_l2((KC + weight_panels * MR) * NR * out.itemsize, 2 * KC * MR * out.itemsize)
    weights = memory.workspace(groups * weight_panels * _before(K + 1, 1), out.dtype)

    def pack(first: int, last: int, past: bool) -> None:
        _pack_kernel(first, last, rows, K, memory.workspace(MR * _pitch(KC) + lanes(out), out.dtype), weights, past)

    fill(pack, groups * weight_panels, weights, values=K * MR)

    def run(first: int, last: int) -> None:
        panels = min(most, last - first)
        buffers = Buffers(
            memory.workspace(panels * (KC + 1) * NR, out.dtype),
            memory.workspace(weight_panels * panels * MR * NR + lanes(out), out.dtype),
        )
        _correlate_kernel(first, last, padded, taps, weights, rows, grid, buffers, out)

    panels = groups * math.ceil(len(out) * grid.rows * grid.columns / NR)
    for_each(run, panels, values=weight_panels * (K + 1) * NR)  # multiply-adds / MR: about as long as so many simple steps


@kernel
def _correlate_kernel(
    first: int,
    last: int,
    padded: PaddedInput,
    taps: np.ndarray,
    weights: np.ndarray,
    rows: Rows,
    grid: Grid,
    buffers: Buffers,
    out: np.ndarray,
) -> None:
    """A work item is one panel: NR pixels of one group. Several make a block, whose tiles stay in L2 until all taps are done.

    Block by block of K: padded -> columns (panels, KC + 1, NR); weights · columns -> tiles (⌈rows/MR⌉, panels, MR, NR). The
    columns stay in L2 too, while all weights of their taps stream past. ``taps`` has the K offsets from a window's first cell;
    ``weights`` is packed as :func:`_pack_kernel` does it. The other arguments are those of :func:`correlate`.
    """
    cells, layout = padded
    columns, tiles = buffers
    width = lanes(cells)
    NR = NR_VECTORS * width
    size = (KC + 1) * NR  # of a panel
    most = columns.size // size
    N, channels, H, W = out.shape
    flat_out = out.reshape(out.size)
    groups, count = rows.bias.shape
    K, P = len(taps), grid.rows * grid.columns
    weight_panels = (count + MR - 1) // MR
    pixel_panels = (N * P + NR - 1) // NR
    copies = new_copies(most * NR)
    i = first
    while i < last:
        group, pixel = i // pixel_panels, i % pixel_panels * NR
        left = min(last, (group + 1) * pixel_panels) - i
        blocks = (left + most - 1) // most
        panels = (left + blocks - 1) // blocks  # so that blocks are about equal
        vectors = 0
        for b in range(panels):
            begin = pixel + b * NR
            channel_at = group * (layout.image // groups)  # padded[0, the group's first channel]
            vectors = plan_copies(begin, min(NR, N * P - begin), grid, layout, width, channel_at, b * size, copies, vectors)
        group_at = group * (channels // groups) * H * W  # out[0, the group's first channel]
        stretches = _stretches_of(pixel, min(panels * NR, N * P - pixel), NR, grid, out.shape)
        for k in range(0, K + 1, KC):
            last_block = k + KC > K  # the bias is the last block's last tap, at times its only one; its cell is 1
            steps = min(KC, K - k)
            # One tap of the padded input -> row j of each panel, columns[b, j, :].
            for j in range(steps):
                for v in range(vectors):
                    copy_vector(cells, copies.source[v] + taps[k + j], columns, j * NR + copies.target[v])
            if last_block:
                for b in range(panels):
                    columns[b * size + steps * NR : b * size + (steps + 1) * NR] = 1  # columns[b, steps, :]
            pitch = _pitch(steps)
            for top in range(0, count, MR):
                a_at = group * _before(K + 1, weight_panels) + _before(k, weight_panels) + top * pitch  # weights[group, k, top]
                for b in range(panels):
                    # The next panel of weights begins where this one ends.
                    prefetch(weights, a_at + MR * pitch * (panels + b) // panels, MR * pitch // panels)
                    c_at = (top * panels + b * MR) * NR  # tiles[top / MR, b]
                    micro_kernel(
                        steps + last_block, weights, a_at, 1, pitch, columns, b * size, NR, tiles, c_at, NR, count - top, k > 0
                    )  # fmt: skip
                    if last_block:  # complete: written while it is in L1; the stores overlap with the next tile's products
                        _store_tile(tiles, c_at, stretches, b, rows.cells[top : top + MR], grid.step_w, flat_out, group_at)
        i += panels


@kernel
def _store_tile(
    tiles: np.ndarray, tile: int, stretches: Stretches, b: int, row_cells: np.ndarray, step: int, out: np.ndarray, group_at: int
) -> None:
    """One tile (MR,NR), at ``tile``, of panel b -> the cells of its rows and pixels in out.

    ``stretches`` says where panel b's pixels are in out, ``row_cells`` is rows.cells of these rows, ``step`` leads from pixel to
    pixel in out, and ``group_at`` is out[0, the group's first channel].
    """
    L = lanes(tiles)
    for i in range(stretches.number[b]):
        length = stretches.length[b, i]
        for r in range(len(row_cells)):
            source, target = tile + r * NR_VECTORS * L + stretches.j[b, i], group_at + stretches.cell[b, i] + row_cells[r]
            if step == 1:
                for j in range(0, length, L):
                    copy_few(tiles, source + j, out, target + j, length - j)
            else:
                for j in range(length):
                    out[target + j * step] = tiles[source + j]


@register_jitable
def _pitch(steps: int) -> int:
    """Elements from one row of a panel of weights to the next: a block's taps and the bias, rounded up to 16.

    The widest vector holds 16 float32.
    """
    return (steps + 16) // 16 * 16


@register_jitable
def _before(k: int, panels: int) -> int:
    """Elements of a group's packed weights before the block that begins at tap k. The bias counts as one more tap, K.

    So k = K + 1 gives the size of all of a group's packed weights, or a little more.
    """
    return panels * MR * (k // KC * _pitch(KC) + (_pitch(k % KC - 1) if k % KC else 0))


@kernel
def _pack_kernel(first: int, last: int, rows: Rows, K: int, panel: np.ndarray, weights: np.ndarray, past: bool) -> None:
    """(G, M, channels, KH·KW) -> (G, blocks of K, ⌈rows/MR⌉, MR, pitch), with the bias after each block's last tap.

    Every block has the bias, so that all are packed alike; only the last block's is used. A work item is MR rows of one group:
    one panel in each block of K. ``panel`` has room for one panel, (MR, pitch), and a vector. Rows beyond the last one repeat
    it; their results are not used. ``past`` says whether to write past the caches.
    """
    weight, (group_step, row_step, channel_step), which, bias, _ = rows
    count, taps = bias.shape[1], which.shape[1]
    M, panels = count // len(which), (count + MR - 1) // MR
    in_order = len(which) == 1
    for tap in range(taps):
        in_order &= which[0, tap] == tap
    for i in range(first, last):
        group, top = i // panels, i % panels * MR
        for k in range(0, K + 1, KC):
            steps = min(KC, K - k)
            pitch = _pitch(steps)
            for r in range(MR):
                row = min(top + r, count - 1)
                member, m = divmod(row, M)
                channel, tap = divmod(k, taps) if taps else (0, 0)
                done = 0
                while done < steps:  # a stretch: taps of one channel, or of all channels if they follow each other
                    length = steps - done if in_order and channel_step == taps else min(steps - done, taps - tap)
                    source = group * group_step + m * row_step + channel * channel_step  # weight[group, m, channel]
                    target = r * pitch + done  # panel[r, done]
                    if in_order:
                        for j in range(0, length, lanes(weight)):
                            if source + tap + j + lanes(weight) <= weight.size:
                                copy_vector(weight, source + tap + j, panel, target + j)  # the next overwrites the rest
                            else:
                                for q in range(j, length):
                                    panel[target + q] = weight[source + tap + q]
                    else:
                        for q in range(length):
                            panel[target + q] = weight[source + which[member, tap + q]]
                    done += length
                    channel, tap = channel + 1, 0
                panel[r * pitch + steps] = bias[group, row]
            at = group * _before(K + 1, panels) + _before(k, panels) + top * pitch  # weights[group, block, top / MR]
            if past:
                stream(panel, 0, weights, at, MR * pitch)
            else:
                for j in range(0, MR * pitch, lanes(weight)):
                    copy_vector(panel, j, weights, at + j)


class Stretches(NamedTuple):
    """For each panel, the stretches of pixels whose cells in the result are one step apart."""

    number: np.ndarray  # (panels,): how many stretches a panel has
    j: np.ndarray  # (panels, NR): a stretch's first pixel
    cell: np.ndarray  # (panels, NR): that pixel's cell in the result's first channel
    length: np.ndarray  # (panels, NR)


@kernel
def _stretches_of(pixel: int, count: int, NR: int, grid: Grid, shape: tuple[int, int, int, int]) -> Stretches:
    """The stretches of ``count`` pixels from ``pixel`` on, in panels of NR, for a result (N,C,H,W) of that shape.

    Pixels are counted through all images; the grid says how many an image has, and where their cells are.
    """
    _, C, H, W = shape
    P = grid.rows * grid.columns
    whole = grid.step_h == 1 and grid.step_w == 1 and grid.columns == W  # then rows follow without a gap, too
    each = ((count + NR - 1) // NR, NR)
    stretches = Stretches(np.zeros(each[0], np.intp), np.empty(each, np.intp), np.empty(each, np.intp), np.empty(each, np.intp))
    done = 0
    while done < count:
        panel, j = divmod(done, NR)
        n, p = divmod(pixel + done, P)
        row, column = divmod(p, grid.columns)
        i = stretches.number[panel]
        stretches.j[panel, i] = j
        stretches.cell[panel, i] = (n * C * H + grid.h + row * grid.step_h) * W + grid.w + column * grid.step_w  # [n, 0, h, w]
        stretches.length[panel, i] = min(count - done, NR - j, P - p if whole else grid.columns - column)
        done += stretches.length[panel, i]
        stretches.number[panel] += 1
    return stretches
