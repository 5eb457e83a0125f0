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
taps these are (:func:`_grad_x`).

Three things make packing cheap. The image is first copied with zeros around it (``packing.py``), so no copy has to check for the
border. Columns that are one stride apart are neighbours there, so for every tap neighbouring windows read neighbouring cells. And
copies move whole vectors: if one writes too much, the next overwrites it.

Sums run in blocks of KC taps or pixels (``compiled/blocks.py`` says why, and how many panels share a block). So the bits of a
result depend neither on the threads nor on the caches.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from numba.extending import register_jitable

from scratch.compiled import memory
from scratch.compiled.blocks import KC, columns_in_l2
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import MR, NR_VECTORS, micro_kernel
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import copy_few, copy_vector, lanes, prefetch, stream, transpose
from scratch.convolution.geometry import Geometry, Gradients
from scratch.convolution.packing import Grid, Layout, PaddedInput, new_copies, pad, plan_copies
from scratch.core.ladder import NotTakenError


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
    out = memory.empty((len(x), OC, geometry.OH, geometry.OW), x.dtype)
    M, K = OC // G, C_group * KH * KW
    biases = (np.zeros(OC, x.dtype) if bias is None else bias).reshape(G, M)
    # (OC,C/G,KH,KW) is (G, M, C/G, KH·KW)
    rows = Rows(weight.ravel(), (M * K, K, KH * KW), np.arange(KH * KW)[None], biases, np.arange(M) * (geometry.OH * geometry.OW))
    grid = Grid(geometry.OH, geometry.OW, geometry.stride[0] * layout.row, 0, 0, 1, 1)
    _correlate(pad(x, layout), layout.taps_of_x(C_group, KH, KW, geometry), rows, grid, out)
    return out, (x, weight, bias is not None, geometry)


def implicit_gemm_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    grad_x = _grad_x(grad_out, x, weight, geometry) if need_grad_x else None
    return grad_x, _grad_weight(grad_out, x, weight, geometry), grad_bias_of(grad_out) if has_bias else None


# --- forward, and grad_x ----------------------------------------------------------------------------------------------


class Rows(NamedTuple):
    """The rows of a product: M channels of the result, for one member after the other. Forward has one member."""

    weight: np.ndarray  # (G, M, channels, KH·KW) with its axes in any order, flat
    steps: tuple[int, int, int]  # elements of weight from one group to the next, from m to m + 1, from channel to channel
    which: np.ndarray  # (members, taps): the taps that a member uses
    bias: np.ndarray  # (G, members·M)
    cells: np.ndarray  # (members·M,): where a row's cell is in the result, counted from the cell of row 0


class Buffers(NamedTuple):
    """A thread's buffers for a block of pixels."""

    columns: np.ndarray  # (panels, KC + 1, NR): packed panels
    tiles: np.ndarray  # (⌈rows/MR⌉, panels, MR, NR): the sums so far


def _correlate(padded: PaddedInput, taps: np.ndarray, rows: Rows, grid: Grid, out: np.ndarray) -> None:
    """For each row and each pixel of the grid, write Σ_{k,t} weight[m, k, which[member, t]] · padded[window + taps[k, t]] + bias[m].

    taps is (channels, taps of a member) flat.
    """
    groups, K = len(rows.bias), len(taps)
    weight_panels = math.ceil(len(rows.cells) / MR)
    NR = NR_VECTORS * lanes(out)
    # For each panel of pixels L2 holds its columns and tiles, and for all of them two panels of weights.
    most = columns_in_l2((KC + weight_panels * MR) * NR * out.itemsize, 2 * KC * MR * out.itemsize)
    weights = memory.workspace(groups * weight_panels * _before(K + 1, 1), out.dtype)

    def pack(first: int, last: int) -> None:
        _pack_kernel(first, last, rows, K, memory.workspace(MR * _pitch(KC) + lanes(out), out.dtype), weights)

    for_each(pack, groups * weight_panels, values=K * MR)

    def run(first: int, last: int) -> None:
        panels = min(most, last - first)
        buffers = Buffers(
            memory.workspace(panels * (KC + 1) * NR, out.dtype),
            memory.workspace(weight_panels * panels * MR * NR + lanes(out), out.dtype),
        )
        _correlate_kernel(first, last, padded, taps, weights, rows, grid, buffers, out)

    panels = groups * math.ceil(len(out) * grid.rows * grid.columns / NR)
    for_each(run, panels, values=weight_panels * (K + 1) * NR)


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
    """A work item is NR pixels of one group. Several together are a block: it stays in L2 while the weights stream past.

    padded -> columns (panels, KC, NR); weights · columns -> tiles (⌈rows/MR⌉, panels, MR, NR), for one block of K after the other
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
        runs = _runs_of(pixel, min(panels * NR, N * P - pixel), NR, grid, out.shape)
        for k in range(0, K + 1, KC):
            last_block = k + KC > K  # the bias is in the last block, which may have no taps: its cell is always 1
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
                a_at = (
                    group * _before(K + 1, weight_panels) + _before(k, weight_panels) + top * pitch
                )  # weights[group, block, top / MR]
                for b in range(panels):
                    # The next panel of weights begins where this one ends.
                    prefetch(weights, a_at + MR * pitch * (panels + b) // panels, MR * pitch // panels)
                    c_at = (top * panels + b * MR) * NR  # tiles[top / MR, b]
                    micro_kernel(
                        steps + last_block, weights, a_at, 1, pitch, columns, b * size, NR, tiles, c_at, NR, count - top, k > 0
                    )  # fmt: skip
                    if last_block:  # complete: stored while the next tile is computed
                        for run in range(runs.number[b]):
                            cell = group * (channels // groups) * H * W + runs.cell[b, run]
                            for r in range(min(MR, count - top)):
                                # tiles[top / MR, b, r, run's pixels] -> out
                                source, target = c_at + r * NR + runs.j[b, run], cell + rows.cells[top + r]
                                if grid.step_w == 1:
                                    for j in range(0, runs.length[b, run], width):
                                        copy_few(tiles, source + j, flat_out, target + j, runs.length[b, run] - j)
                                else:
                                    for j in range(runs.length[b, run]):
                                        flat_out[target + j * grid.step_w] = tiles[source + j]
        i += panels


@register_jitable
def _pitch(steps: int) -> int:
    """Elements from one row of a panel of weights to the next: room for a block's taps and the bias, in whole vectors."""
    return (steps + 16) // 16 * 16


@register_jitable
def _before(k: int, panels: int) -> int:
    """Elements of a group's packed weights before the block of tap k: all of them for k = K + 1."""
    return panels * MR * (k // KC * _pitch(KC) + (_pitch(k % KC - 1) if k % KC else 0))


@kernel
def _pack_kernel(first: int, last: int, rows: Rows, K: int, panel: np.ndarray, weights: np.ndarray) -> None:
    """(G, M, channels, KH·KW) -> (G, blocks of K, ⌈rows/MR⌉, MR, pitch), with the bias after the last tap.

    A work item is one packed panel of every block. Rows beyond the last repeat it; what they compute is not used.
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
                while done < steps:  # a run: taps of one channel, or of all channels if they follow each other
                    length = steps - done if channel_step == taps else min(steps - done, taps - tap)
                    source = group * group_step + m * row_step + channel * channel_step  # weight[group, m, channel]
                    target = r * pitch + done  # panel[r, done]
                    if in_order:
                        for j in range(0, length, lanes(weight)):
                            if source + tap + j + lanes(weight) <= weight.size:
                                copy_vector(weight, source + tap + j, panel, target + j)  # what is too much is overwritten
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
            stream(panel, 0, weights, at, MR * pitch)


class Runs(NamedTuple):
    """For each panel, the runs of pixels whose cells in the result are one step apart."""

    number: np.ndarray  # (panels,): how many runs a panel has
    j: np.ndarray  # (panels, NR): a run's first pixel
    cell: np.ndarray  # (panels, NR): its cell in the result's first channel
    length: np.ndarray  # (panels, NR)


@kernel
def _runs_of(pixel: int, count: int, NR: int, grid: Grid, shape: tuple[int, int, int, int]) -> Runs:
    """The runs of ``count`` pixels from ``pixel`` on, for a result of that shape."""
    _, C, H, W = shape
    P = grid.rows * grid.columns
    whole = grid.step_h == 1 and grid.step_w == 1 and grid.columns == W  # then rows follow each other, too
    each = ((count + NR - 1) // NR, NR)
    runs = Runs(np.zeros(each[0], np.intp), np.empty(each, np.intp), np.empty(each, np.intp), np.empty(each, np.intp))
    done = 0
    while done < count:
        panel, j = divmod(done, NR)
        n, p = divmod(pixel + done, P)
        row, column = divmod(p, grid.columns)
        i = runs.number[panel]
        runs.j[panel, i] = j
        runs.cell[panel, i] = (n * C * H + grid.h + row * grid.step_h) * W + grid.w + column * grid.step_w  # [n, 0, h, w]
        runs.length[panel, i] = min(count - done, NR - j, P - p if whole else grid.columns - column)
        done += runs.length[panel, i]
        runs.number[panel] += 1
    return runs


def _grad_x(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Cells that read grad_out through windows of the same shape share a product: the channels of all of them are its rows.

    Tap kh of output oh reads the cell h with top + h = oh·stride + kh·dilation. So the cells h = h0 + i·stride are read by
    those kh for which the stride divides top + h0 - kh·dilation =: stride·shift. The outputs that read them are oh = i + shift.
    With stride 4 and 11 taps (conv1), h0 = 2 and h0 = 3 have the shifts 1, 0 and -1, through other taps: one product for both.
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
            _correlate(padded, taps, rows, grid, grad_x)
    return grad_x


def _windows(
    size: int, begin: int, stride: int, taps: int, dilation: int
) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """Along one axis, the h0 that share a window: how many cells each has, the window's shifts, the h0, and each one's taps kh."""
    shared: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for h0 in range(min(stride, size)):
        shift, rest = np.divmod(begin + h0 - np.arange(taps) * dilation, stride)
        kh = np.flatnonzero(rest == 0)
        shared.setdefault((math.ceil((size - h0) / stride), *shift[kh].tolist()), []).append((h0, kh))
    return [
        (count, np.array(shifts, np.intp), np.array([h0 for h0, _ in members]), np.stack([kh for _, kh in members]))
        for (count, *shifts), members in shared.items()
    ]


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

    columns: np.ndarray  # (MR, KC): the columns of MR taps for a block of pixels
    g: np.ndarray  # (OC/G / NR, KC, NR): the block of grad_out, transposed
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
            memory.workspace(MR * KC + lanes(x), x.dtype),
            memory.workspace(KC * len(channels), x.dtype),
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

    g (OC/G, KC) -> buffers.g (OC/G / NR, KC, NR), shared by all items of a group; padded input -> columns (MR, KC)
    """
    cells, layout = padded
    columns, g_panels, sums = buffers
    width = lanes(cells)
    NR = NR_VECTORS * width
    OC, K = grad_weight.shape
    OC_group = OC // groups
    P = grid.rows * grid.columns
    blocks = (P + KC - 1) // KC  # of one image
    tap_panels = len(taps) // MR
    copies = new_copies(KC)
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
                for channel in range(0, len(channels), NR):  # channel * KC: g_panels[channel / NR]
                    transpose(g, g_at, channels[channel : channel + NR], count, g_panels, channel * KC, NR)
            for r in range(MR):
                tap_at = group * (layout.image // groups) + taps[tap + r]  # from a window's first cell to its tap
                for v in range(vectors):
                    copy_vector(cells, copies.source[v] + tap_at, columns, r * KC + copies.target[v])  # columns[r]
            for channel in range(0, len(channels), NR):
                c_at = (i - first) * MR * len(channels) + channel  # sums[i - first, :, channel]
                micro_kernel(count, columns, 0, 1, KC, g_panels, channel * KC, NR, sums, c_at, len(channels), MR, True)
    # sums (MR taps, OC/G) -> grad_weight (OC/G, MR taps) of each item
    for i in range(first, last):
        group, tap = i // tap_panels, i % tap_panels * MR
        for r in range(min(MR, K - tap)):
            for oc in range(OC_group):  # sums[i - first, r, oc]
                grad_weight[group * OC_group + oc, tap + r] = sums[((i - first) * MR + r) * len(channels) + oc]
