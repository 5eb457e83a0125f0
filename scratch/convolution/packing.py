"""The padded input, and how panels are packed from it: conv2d's rungs share this, from implicit_gemm on.

The image is copied once, with zeros around it. A window that reaches over the border reads zeros there, so no copy has to check
for the border. Columns of the image that are one stride apart lie next to each other in the padded input. So, for every tap,
windows side by side read contiguous cells, and one vector load serves many windows.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import NR_VECTORS
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import lanes
from scratch.convolution.geometry import Geometry
from scratch.core.ladder import NotTakenError


class Layout(NamedTuple):
    """Where each cell is in a padded input, which is a flat array (N, C, rows, stride, columns).

    Column w of the padded image is at [w % stride, w // stride].
    """

    top: int  # zeros above the image
    left: int
    stride: int  # from window to window along a row
    columns: int  # how many have the same remainder w % stride
    row: int  # elements from one row to the next
    plane: int  # from one channel to the next
    image: int  # from one image to the next

    @staticmethod
    def around(shape: tuple[int, ...], top: int, bottom: int, left: int, right: int, stride: int) -> Layout:
        _, C, H, W = shape
        columns = math.ceil((left + W + right) / stride)
        plane = (top + H + bottom) * stride * columns
        return Layout(top, left, stride, columns, stride * columns, plane, C * plane)

    @staticmethod
    def around_x(shape: tuple[int, ...], geometry: Geometry) -> Layout:
        return Layout.around(shape, geometry.top, geometry.bottom, geometry.left, geometry.right, geometry.stride[1])

    def taps_of_x(self, C: int, KH: int, KW: int, geometry: Geometry) -> np.ndarray:
        """(C,KH,KW) -> flat: the offset of each tap from the window's first cell."""
        w = np.arange(KW) * geometry.dilation[1]
        return self.taps(C, (np.arange(KH) * geometry.dilation[0])[:, None], w % self.stride * self.columns + w // self.stride)

    def taps(self, C: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Flat (C, taps): the offsets of the taps at these rows and columns of a window."""
        taps: np.ndarray = np.arange(C)[:, None] * self.plane + (rows * self.row + columns).ravel()
        return taps.ravel()


class PaddedInput(NamedTuple):
    """A batch with zeros around its images: the flat cells, and their layout."""

    cells: np.ndarray
    layout: Layout


def pad(batch: np.ndarray, layout: Layout, limit: Any = None) -> PaddedInput:
    """(N,C,H,W) -> flat (N, C, rows, stride, columns).

    Raises:
        NotTakenError: there is a ``limit``, and a cell is beyond ±limit or NaN.
    """
    N, C, H, W = batch.shape
    # Panels are packed in whole vectors, so the last copy may read past the last cell.
    cells = memory.workspace(N * layout.image + NR_VECTORS * lanes(batch), batch.dtype)
    within = memory.empty((N * C,), np.dtype(np.bool_))
    planes = batch.reshape(N * C, H, W)
    for_each(_pad_kernel, N * C, planes, layout, limit or batch.dtype.type(0), cells, within, values=layout.plane)
    if limit is not None and not within.all():
        raise NotTakenError(f"conv2d: this rung takes numbers within ±{limit:.3g} only")
    return PaddedInput(cells, layout)


@kernel
def _pad_kernel(
    first: int, last: int, planes: np.ndarray, layout: Layout, limit: Any, cells: np.ndarray, within: np.ndarray
) -> None:
    """(N·C, H, W) -> (N·C, rows, stride, columns): a work item is one plane.

    ``cells`` gets the padded input, as ``layout`` says. ``within`` (N·C,) gets True for each plane whose cells are all numbers
    within ±limit. A limit of 0 means that there is no limit, since compiled code takes no None.
    """
    count, H, W = planes.shape
    flat = planes.reshape(count * H * W)
    stride, zero = layout.stride, planes.dtype.type(0)
    for i in range(first, last):
        # Unsigned indices: if an index may be negative and count from the end, the check for that costs more than the copy.
        begin, size = np.uint64(i * layout.plane), np.uint64(layout.plane)  # cells[n, c]
        for j in range(size):
            cells[begin + j] = zero
        for w in range(min(stride, W)):  # every stride-th cell of a row: they are contiguous in the padded input
            padded_w, steps = layout.left + w, np.uint64((W - w + stride - 1) // stride)
            column = padded_w % stride * layout.columns + padded_w // stride
            for h in range(H):
                source = np.uint64((i * H + h) * W + w)  # planes[i, h, w]
                target = begin + np.uint64(
                    (layout.top + h) * layout.row + column
                )  # [top + h, padded_w % stride, padded_w // stride]
                if stride == 1:  # the same loop with 1 as a constant: only this one is vectorized
                    for q in range(steps):
                        cells[target + q] = flat[source + q]
                else:
                    for q in range(steps):
                        cells[target + q] = flat[source + q * np.uint64(stride)]
        within[i] = limit == 0 or all_within(cells[begin : begin + size], limit, zero)


@kernel
def all_within(flat: np.ndarray, limit: Any, least: Any) -> bool:
    """Whether every number is 0 or has an absolute value from ``least`` to ``limit``; False if one is NaN."""
    within = True
    for i in range(flat.size):
        size = abs(flat[i])
        within &= (size <= limit) & ((size >= least) | (size == 0))  # no early exit, so LLVM vectorizes the loop
    return within


class Grid(NamedTuple):
    """The pixels that a product computes: where their windows are in the padded input, and their cells in the result."""

    rows: int
    columns: int
    window_row: int  # elements of the padded input from one row of windows to the next
    h: int  # the first pixel's cell in the result; below, the steps from cell to cell
    w: int
    step_h: int
    step_w: int


class Copies(NamedTuple):
    """A plan: copy vector i from source[i] in the padded input, plus a tap's offset, to target[i] in a panel."""

    source: np.ndarray
    target: np.ndarray


@kernel
def new_copies(most: int) -> Copies:
    """Room for ``most`` vectors."""
    return Copies(np.empty(most, np.intp), np.empty(most, np.intp))


@kernel
def plan_copies(
    pixel: int, count: int, grid: Grid, layout: Layout, width: int, offset: int, target: int, copies: Copies, planned: int
) -> int:
    """Plan the copies of ``count`` pixels, from ``pixel`` on, into a panel, by vectors of ``width`` elements.

    The windows of one row of pixels lie next to each other in the padded input, so each row of pixels is one stretch of
    vectors. The last vector of a stretch may write beyond the stretch; the next stretch overwrites that. ``grid`` has the
    pixels, ``layout`` the cells that they read. ``offset`` is added to every source; the first pixel goes to position
    ``target`` of the panels. ``planned`` vectors are in the plan already; returns how many are in it now.
    """
    done = 0
    while done < count:
        length = min(count - done, grid.columns - (pixel + done) % grid.columns)  # pixels left in this row
        cell = offset + window_cell(pixel + done, layout, grid)
        for j in range(0, length, width):
            copies.source[planned] = cell + j  # padded[n, c, row·stride, 0, column + j]
            copies.target[planned] = target + done + j
            planned += 1
        done += length
    return planned


@kernel
def window_cell(pixel: int, layout: Layout, grid: Grid) -> int:
    """The first cell of a pixel's window; pixels are counted through all images."""
    n, p = divmod(pixel, grid.rows * grid.columns)
    row, column = divmod(p, grid.columns)
    return n * layout.image + row * grid.window_row + column  # padded[n, 0, row·stride, 0, column]
