"""implicit_gemm's gradient of the weight: columns of x (K, pixels) · g' (pixels, OC), a sum over all pixels of all images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scratch.compiled import memory
from scratch.compiled.blocks import KC
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import MR, NR_VECTORS, micro_kernel
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import copy_vector, lanes, transpose
from scratch.convolution.geometry import Geometry
from scratch.convolution.packing import Grid, Layout, PaddedInput, new_copies, pad, plan_copies


class TapBuffers(NamedTuple):
    """A thread's buffers for a range of grad_weight's panels of taps."""

    columns: np.ndarray  # (MR, KC): the columns of MR taps for a block of pixels
    g: np.ndarray  # (OC/G / NR, KC, NR): the block of grad_out, transposed
    sums: np.ndarray  # (panels of taps, MR, OC/G in whole panels): the sums so far


def grad_weight_of(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
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

    g (OC/G, KC) -> buffers.g (OC/G / NR, KC, NR), shared by all items of a group; padded input -> columns (MR, KC). ``g`` is
    (N,OC,P) flat. ``taps`` has offsets from a window's first cell, ``channels`` offsets from a group's first channel in g; both
    fill whole panels.
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
