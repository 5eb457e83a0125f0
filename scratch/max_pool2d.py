"""2-D max pooling: the largest cell under a window that slides over every channel.

    out[n,c,oh,ow] = max_{kh,kw} x[n, c, oh·stride + kh·dilation - padding, ow·stride + kw·dilation - padding]

over the cells that exist; padding adds none. If several cells are equal, the first in row-major order is the maximum. NaN is
larger than any number, and the last of several NaNs is the maximum. Backward: each output's gradient goes, undivided, to the
cell that was the maximum,

    grad_x[n,c,h,w] = Σ grad_out[n,c,oh,ow]   over the windows with their maximum at (h,w)

so backward only needs that cell's index h·W + w: a few bytes for each output, and x need not be kept.

Shapes: x (N,C,H,W), out and indices (N,C,OH,OW), a window has KH·KW taps. Same as ``torch.nn.functional.max_pool2d``.
Paper: Krizhevsky, Sutskever, Hinton 2012, section 3.4 (windows of 3 at stride 2, which overlap).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import lanes, prefetch, total, transpose
from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, Rung
from scratch.pooling.window_maximum import window_maximum, window_maximum_of_numbers

__all__ = ["RUNGS", "backward", "forward"]

AHEAD = 1 << 18  # bytes of the next work item to prefetch while this one is computed: a fraction of L2


class Geometry(NamedTuple):
    """Where the window goes: everything the loops need to know apart from the shape of x. Pairs are (vertical, horizontal)."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    OH: int
    OW: int


def forward(
    x: np.ndarray,
    *,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Any, Cache]:
    """Take the maximum under every window.

    Args:
        x: (N,C,H,W) or (C,H,W), float32 or float64; no axis except N may be 0.
        kernel_size: the window; an int or a pair (vertical, horizontal), as are stride, padding and dilation.
        stride: step of the window, at least 1; None means kernel_size.
        padding: how far the window may start outside the image, at most half of kernel_size.
        dilation: distance between the window's taps, at least 1.
        ceil_mode: also use a last window that extends beyond the image, if it starts inside the image or the padding before it.
        return_indices: also return the index h·W + w of every maximum.

    Returns:
        ``out`` (N,C,OH,OW), or (C,OH,OW) for unbatched x, and the cache for :func:`backward`. With ``return_indices``, ``out``
        is a pair with int64 indices of the same shape. With dilation and padding, all taps of a window may miss the image. Such
        a window gives -inf, the index H·W and no gradient.

    Raises:
        TypeError: ``x`` is not a float32 or float64 array, or a parameter has the wrong type.
        ValueError: ``x`` has another number of axes, an axis except N is 0, or a parameter is out of its range.
    """
    batch, unbatched = checks.image("max_pool2d", "x", x)
    geometry = geometry_of(x.shape, kernel_size, stride, padding, dilation, checks.flag("max_pool2d", "ceil_mode", ceil_mode))
    with_indices = checks.flag("max_pool2d", "return_indices", return_indices)
    out, cache = RUNGS.forward(batch, geometry, unbatched=unbatched)
    if not with_indices:
        return out, cache
    indices, _ = cache.saved
    return (out, indices.astype(np.int64).reshape(out.shape)), cache


def backward(grad_out: np.ndarray, cache: Cache) -> tuple[np.ndarray]:
    """The gradient with respect to ``x``.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype; the indices have none.
        cache: what :func:`forward` returned.

    Returns:
        ``(grad_x,)``.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not max_pool2d's.
        ValueError: ``grad_out`` has another shape.
    """
    return RUNGS.backward(grad_out, cache)


def geometry_of(
    x_shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Geometry:
    """Check every parameter against x's shape as the caller gave it, and work out the output's size. Nothing else does this."""
    kernel_size = checks.pair("max_pool2d", "kernel_size", kernel_size, low=1)
    stride = kernel_size if stride is None else checks.pair("max_pool2d", "stride", stride, low=1)
    padding = checks.pair("max_pool2d", "padding", padding, low=0)
    dilation = checks.pair("max_pool2d", "dilation", dilation, low=1)
    if 0 in x_shape[-3:]:
        raise ValueError(f"max_pool2d: x must not be empty, except along N, got {x_shape}")
    if any(pad > size // 2 for pad, size in zip(padding, kernel_size, strict=True)):
        raise ValueError(f"max_pool2d: padding must be at most half of kernel_size {kernel_size}, got {padding}")
    outputs, taps, margins = [], [], []
    for cells, size, step, pad, gap in zip(x_shape[-2:], kernel_size, stride, padding, dilation, strict=True):
        room = cells + 2 * pad - gap * (size - 1) - 1  # from the first window's position to the last possible one
        count = (room + step - 1 if ceil_mode else room) // step + 1
        if ceil_mode and (count - 1) * step >= cells + pad:
            count -= 1  # the last window would start after the image
        # Leave out taps that miss the image in every window: after it even in the first window, or before it even in the last.
        in_front = max(0, (pad - (count - 1) * step) // gap)
        outputs.append(count)
        taps.append(min(size, (cells + pad - 1) // gap + 1) - in_front)
        margins.append(pad - in_front * gap)
    if min(outputs) < 1:
        raise ValueError(
            f"max_pool2d: kernel_size must fit into the padded image, got {kernel_size} with padding {padding}, "
            f"dilation {dilation} and x {x_shape}"
        )
    return Geometry((taps[0], taps[1]), stride, (margins[0], margins[1]), dilation, outputs[0], outputs[1])


def _index_type(H: int, W: int) -> np.dtype[Any]:
    """The smallest type from uint16 on for the indices 0 … H·W. Small planes need only uint8, but that needs more kernels."""
    return np.result_type(np.uint16, np.min_scalar_type(H * W))


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(x: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, tuple[Any, ...]]:
    """One window after the other: the specification."""
    N, C, H, W = x.shape
    out = np.empty((N, C, geometry.OH, geometry.OW), x.dtype)
    indices = np.empty(out.shape, _index_type(H, W))
    for n, c, oh, ow in np.ndindex(out.shape):
        largest, index = -np.inf, H * W
        for kh, kw in np.ndindex(geometry.kernel_size):
            h = oh * geometry.stride[0] + kh * geometry.dilation[0] - geometry.padding[0]
            w = ow * geometry.stride[1] + kw * geometry.dilation[1] - geometry.padding[1]
            if 0 <= h < H and 0 <= w < W:
                value = x[n, c, h, w]
                if index == H * W or value > largest or np.isnan(value):  # only another NaN is larger than a NaN
                    largest, index = value, h * W + w
        out[n, c, oh, ow], indices[n, c, oh, ow] = largest, index
    return out, (indices, x.shape)


def naive_backward(grad_out: np.ndarray, indices: np.ndarray, x_shape: tuple[int, ...]) -> tuple[np.ndarray]:
    _, _, H, W = x_shape
    grad_x = np.zeros(x_shape, grad_out.dtype)
    for n, c, oh, ow in np.ndindex(grad_out.shape):
        h, w = divmod(int(indices[n, c, oh, ow]), W)
        if h < H:
            grad_x[n, c, h, w] += grad_out[n, c, oh, ow]
    return (grad_x,)


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_forward(x: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Compare all windows at once, tap by tap: the cells they read through one tap are a slice of x, and its loop runs in C."""
    N, C, H, W = x.shape
    out = np.full((N, C, geometry.OH, geometry.OW), -np.inf, x.dtype)
    indices = np.full(out.shape, H * W, _index_type(H, W))
    index_of = np.arange(H * W, dtype=indices.dtype).reshape(H, W)
    for rows, h in _taps(geometry, 0, H):
        for columns, w in _taps(geometry, 1, W):
            value, largest, index = x[:, :, h, w], out[:, :, rows, columns], indices[:, :, rows, columns]
            wins = (value > largest) | np.isnan(value) | (index == H * W)
            np.copyto(largest, value, where=wins)
            np.copyto(index, index_of[h, w], where=wins)
    return out, (indices, x.shape)


def numpy_backward(grad_out: np.ndarray, indices: np.ndarray, x_shape: tuple[int, ...]) -> tuple[np.ndarray]:
    N, C, H, W = x_shape
    # (N,C,OH,OW) -> (N·C, OH·OW), added to (N·C, H·W + 1); the last column is for windows without a cell
    by_plane = (N * C, grad_out.shape[2] * grad_out.shape[3])
    grad_planes = np.zeros((N * C, H * W + 1), grad_out.dtype)
    np.add.at(grad_planes, (np.arange(N * C)[:, np.newaxis], indices.reshape(by_plane)), grad_out.reshape(by_plane))
    return (np.ascontiguousarray(grad_planes[:, :-1]).reshape(x_shape),)


def _taps(geometry: Geometry, axis: int, cells: int) -> Iterator[tuple[slice, slice]]:
    """For each tap along ``axis``: the windows that have a cell under the tap, and these cells."""
    stride = geometry.stride[axis]
    for k in range(geometry.kernel_size[axis]):
        start = k * geometry.dilation[axis] - geometry.padding[axis]  # position of the first window's tap
        first = max(0, -(start // stride))
        last = min((geometry.OH, geometry.OW)[axis] - 1, (cells - 1 - start) // stride)
        if first <= last:
            yield slice(first, last + 1), slice(start + first * stride, start + last * stride + 1, stride)


# --- numba ------------------------------------------------------------------------------------------------------------


def numba_forward(x: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Put one cell of many planes into a vector: all lanes run the same instructions, whichever tap is the largest in each."""
    N, C, H, W = x.shape
    out = memory.empty((N, C, geometry.OH, geometry.OW), x.dtype)
    indices = memory.empty(out.shape, np.dtype(_index_type(H, W)))
    L, outputs = lanes(x), geometry.OH * geometry.OW
    number = np.dtype(f"i{x.itemsize}")  # the type of a cell's index, as wide as a value

    def run(first: int, last: int) -> None:
        cells, largest = (memory.workspace(size * L, x.dtype) for size in (H * W, outputs))
        index, turned = (memory.workspace(outputs * L, number) for _ in range(2))
        _forward_kernel(first, last, _planes(x), geometry, W, cells, largest, index, turned, _planes(out), _planes(indices))

    for_each(run, math.ceil(N * C / L), values=H * W * L)
    return out, (indices, x.shape)


def numba_backward(grad_out: np.ndarray, indices: np.ndarray, x_shape: tuple[int, ...]) -> tuple[np.ndarray]:
    N, C, H, W = x_shape
    grad_x = memory.empty(x_shape, grad_out.dtype)
    for_each(_backward_kernel, N * C, _planes(grad_out), _planes(indices), _planes(grad_x), values=H * W)
    return (grad_x,)


def _planes(x: np.ndarray) -> np.ndarray:
    """(N,C,H,W) -> (N·C, H·W)."""
    N, C, H, W = x.shape
    return x.reshape(N * C, H * W)


@kernel
def _forward_kernel(
    first: int,
    last: int,
    x: np.ndarray,
    geometry: Geometry,
    W: int,
    cells: np.ndarray,
    largest: np.ndarray,
    index: np.ndarray,
    turned: np.ndarray,
    out: np.ndarray,
    indices: np.ndarray,
) -> None:
    """A work item is a vector of L planes, one in each lane: x (planes,H·W) -> cells (H·W,L) -> largest (OH·OW,L) -> out."""
    (KH, KW), (SH, SW), (PH, PW), (DH, DW), OH, OW = geometry
    planes, size = x.shape
    L, outputs = lanes(x), OH * OW
    top, rows = _taps_inside(OH, SH, PH, DH, KH, size // W)
    left, columns = _taps_inside(OW, SW, PW, DW, KW, W)
    plane_at, output_at = np.empty(L, np.intp), np.empty(outputs, np.intp)
    for lane in range(L):
        plane_at[lane] = lane * size  # x[plane + lane]
    for output in range(outputs):
        output_at[output] = output * L  # largest[output]
    flat, ahead = x.ravel(), min(L * size, AHEAD // x.itemsize) // OH  # elements for each row of outputs
    flat_out, flat_indices = out.ravel(), indices.ravel()
    for piece in range(first, last):
        plane = piece * L
        count = min(L, planes - plane)
        for lane in range(count, L):  # spare lanes repeat the last plane
            plane_at[lane] = (count - 1) * size
        transpose(flat, plane * size, plane_at, size, cells, 0, L)  # x[plane] and on -> cells
        # If a cell is NaN, the sum is not finite. Without a NaN the sum may overflow, too; that only costs time.
        without_nan = math.isfinite(total(cells[: size * L]))
        for oh in range(OH):
            prefetch(flat, (plane + L) * size + oh * ahead, ahead)  # x[plane + L], the next item
            for ow in range(OW):
                at = (oh * OW + ow) * L  # largest[oh·OW + ow]
                corner = top[oh] * W + left[ow]  # cells[h·W + w] of the window's first tap
                if rows[oh] <= 0 or columns[ow] <= 0:
                    largest[at : at + L], index[at : at + L] = -np.inf, size
                elif without_nan:
                    window_maximum_of_numbers(cells, corner, DH * W, rows[oh], DW, columns[ow], largest, index, at)
                else:
                    window_maximum(cells, corner, DH * W, rows[oh], DW, columns[ow], largest, index, at)
        transpose(largest, 0, output_at, count, flat_out, plane * outputs, outputs)  # -> out[plane] and on
        transpose(index, 0, output_at, count, turned, 0, outputs)
        narrow = flat_indices[plane * outputs : (plane + count) * outputs]
        for i in range(narrow.size):
            narrow[i] = turned[i]


@kernel
def _taps_inside(outputs: int, stride: int, padding: int, dilation: int, size: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis, for each window: the position of its first tap inside the image, and the number of taps inside."""
    first, count = np.empty(outputs, np.intp), np.empty(outputs, np.intp)
    for o in range(outputs):
        start = o * stride - padding
        skipped = max(0, (dilation - 1 - start) // dilation)
        first[o] = start + skipped * dilation
        count[o] = min(size, (cells - 1 - start) // dilation + 1) - skipped
    return first, count


@kernel
def _backward_kernel(first: int, last: int, grad_out: np.ndarray, indices: np.ndarray, grad_x: np.ndarray) -> None:
    _, outputs = grad_out.shape
    _, cells = grad_x.shape
    for plane in range(first, last):
        grad_x[plane] = 0
        for o in range(outputs):
            index = indices[plane, o]
            if index < cells:
                grad_x[plane, index] += grad_out[plane, o]


RUNGS = Ladder(
    "max_pool2d",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
    Rung("numba", numba_forward, numba_backward),
)
