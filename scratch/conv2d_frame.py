"""The image in a frame of zeros, and how windows are read from it: what conv2d's rungs from implicit_gemm on share.

A window that reaches over the border reads zeros there, so no copy asks where the border is. The frame keeps columns that are
one stride apart next to each other: for every tap, neighbouring windows read neighbouring cells, and a vector reads many.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from scratch.core import memory
from scratch.core.jit import kernel
from scratch.core.ladder import NotTakenError
from scratch.core.microkernel import VECTORS
from scratch.core.threads import for_each
from scratch.core.vectors import lanes

if TYPE_CHECKING:
    from scratch.conv2d import Geometry


class Frame(NamedTuple):
    """A batch in its frame of zeros, a flat array (N, C, rows, stride, columns).

    The padded image's column w lies at [w % stride, w // stride].
    """

    top: int
    left: int
    stride: int
    columns: int
    row: int  # elements from one row to the next; likewise plane to plane, image to image
    plane: int
    image: int

    @staticmethod
    def around(shape: tuple[int, ...], top: int, bottom: int, left: int, right: int, stride: int) -> Frame:
        _, C, H, W = shape
        columns = math.ceil((left + W + right) / stride)
        plane = (top + H + bottom) * stride * columns
        return Frame(top, left, stride, columns, stride * columns, plane, C * plane)

    @staticmethod
    def around_x(shape: tuple[int, ...], geometry: Geometry) -> Frame:
        return Frame.around(shape, geometry.top, geometry.bottom, geometry.left, geometry.right, geometry.stride[1])

    def taps_of_x(self, C: int, KH: int, KW: int, geometry: Geometry) -> np.ndarray:
        """(C,KH,KW) -> flat: how far each tap lies from the window's first cell."""
        w = np.arange(KW) * geometry.dilation[1]
        return self.taps(C, (np.arange(KH) * geometry.dilation[0])[:, None], w % self.stride * self.columns + w // self.stride)

    def taps(self, C: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """(C, taps) -> flat, for the taps at these rows and columns."""
        taps: np.ndarray = np.arange(C)[:, None] * self.plane + (rows * self.row + columns).ravel()
        return taps.ravel()


def fill_frame(batch: np.ndarray, frame: Frame, limit: Any = None) -> np.ndarray:
    """(N,C,H,W) -> flat (N, C, rows, stride, columns).

    Raises:
        NotTakenError: there is a ``limit``, and a cell beyond ±limit, or NaN.
    """
    N, C, H, W = batch.shape
    # Copies move whole vectors, so they may read past the last cell.
    framed = memory.workspace(N * frame.image + VECTORS * lanes(batch), batch.dtype)
    within = np.empty(N * C, np.bool_)
    planes = batch.reshape(N * C, H, W)
    for_each(_frame_kernel, N * C, planes, frame, limit or batch.dtype.type(0), framed, within, values=frame.plane)
    if limit is not None and not within.all():
        raise NotTakenError(f"conv2d: this rung takes numbers within ±{limit:.3g} only")
    return framed


@kernel
def _frame_kernel(
    first: int, last: int, planes: np.ndarray, frame: Frame, limit: Any, framed: np.ndarray, within: np.ndarray
) -> None:
    _, H, W = planes.shape
    zero = planes.dtype.type(0)
    # Unsigned: an index that might be negative, and so count from the end, costs more than the copy.
    place, begin, row_step = np.empty(W, np.uint64), np.uint64(frame.top * frame.row), np.uint64(frame.row)
    for w in range(W):
        padded = frame.left + w
        place[w] = padded % frame.stride * frame.columns + padded // frame.stride
    for i in range(first, last):
        plane = framed[i * frame.plane : (i + 1) * frame.plane]
        for j in range(plane.size):
            plane[j] = zero
        at = begin
        for h in range(H):
            row = planes[i, h]
            for w in range(W):
                plane[at + place[w]] = row[w]
            at += row_step
        within[i] = limit == 0 or all_within(plane, limit, zero)  # 0: nobody asked


@kernel
def all_within(flat: np.ndarray, limit: Any, least: Any) -> bool:
    """Whether the size of every number but 0 is between ``least`` and ``limit``; NaN's is not."""
    within = True
    for i in range(flat.size):
        size = abs(flat[i])
        within &= (size <= limit) & ((size >= least) | (size == 0))  # no early end: without it LLVM makes vectors of the loop
    return within


class Grid(NamedTuple):
    """The pixels that a product computes: their windows in the frame, their cells in the result."""

    rows: int
    columns: int
    window_row: int  # elements of the frame from one row of windows to the next
    h: int  # the first pixel's cell, and the steps from cell to cell
    w: int
    step_h: int
    step_w: int


@kernel
def cut_runs(pixel: int, count: int, length: int, at: np.ndarray, pixels: np.ndarray, lengths: np.ndarray) -> int:
    """Cut ``count`` pixels from ``pixel`` on wherever a row of ``length`` pixels ends.

    Run i has lengths[i] pixels; the first of them is pixels[i] and stands at[i] after ``pixel``. Returns how many there are.
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
def cut_vectors(
    runs: int, width: int, at: np.ndarray, cells: np.ndarray, lengths: np.ndarray, to: np.ndarray, start: np.ndarray
) -> int:
    """Cut the runs into vectors: copying vector i from the cell start[i] to the place to[i], in order, copies them all."""
    vectors = 0
    for run in range(runs):
        for j in range(0, lengths[run], width):
            to[vectors] = at[run] + j
            start[vectors] = cells[run] + j
            vectors += 1
    return vectors


@kernel
def window_cell(pixel: int, frame: Frame, grid: Grid) -> int:
    """Where the window of that pixel, counted through all images, has its first cell in the frame."""
    n, p = divmod(pixel, grid.rows * grid.columns)
    row, column = divmod(p, grid.columns)
    return n * frame.image + row * grid.window_row + column
