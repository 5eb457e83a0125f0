"""2-D adaptive average pooling: the mean over windows that are chosen to give the requested output size.

    out[n,c,oh,ow] = (Σ_{h in rows(oh)} Σ_{w in columns(ow)} x[n,c,h,w]) / |rows(oh)| / |columns(ow)|
    rows(oh) = ⌊oh·H/OH⌋ … ⌈(oh+1)·H/OH⌉ - 1, and columns(ow) likewise

If OH does not divide H (as when OH > H), some neighbouring windows share a row. Backward:

    grad_x[n,c,h,w] = Σ grad_out[n,c,oh,ow] / |rows(oh)| / |columns(ow)|   over the windows that contain the cell (h,w)

The windows that contain the row h are ⌊h·OH/H⌋ … ⌈(h+1)·OH/H⌉ - 1, the same formula with H and OH exchanged. So backward is
forward's sum, from OH·OW to H·W cells, and the same loops serve both.

Shapes: x (N,C,H,W), out (N,C,OH,OW). Same as ``torch.nn.functional.adaptive_avg_pool2d``. Not in Krizhevsky, Sutskever,
Hinton 2012: torchvision's AlexNet has it before the linear layers, so that images may have any size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.threads import for_each
from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, Rung

__all__ = ["RUNGS", "backward", "forward"]


def forward(x: np.ndarray, *, output_size: int | tuple[int | None, int | None]) -> tuple[np.ndarray, Cache]:
    """Take the mean over OH·OW windows.

    Args:
        x: (N,C,H,W) or (C,H,W), float32 or float64.
        output_size: the pair (OH,OW), where None keeps x's size, or an int for both; may be larger than x's size, or 0.

    Returns:
        ``out`` (N,C,OH,OW), or (C,OH,OW) for unbatched x, and the cache for :func:`backward`.

    Raises:
        TypeError: ``x`` is not a float32 or float64 array, or ``output_size`` is neither an int nor a pair.
        ValueError: ``x`` has another number of axes; ``output_size`` is negative, not two numbers or too large for memory; or
            H or W is 0 (except for an output of 1 by 1, which is then NaN, the mean of nothing).
    """
    batch, unbatched = checks.image("adaptive_avg_pool2d", "x", x)
    H, W = batch.shape[2:]
    sizes: Any = output_size
    if isinstance(output_size, (tuple, list)):
        if len(output_size) != 2:
            raise ValueError(f"adaptive_avg_pool2d: output_size must be an int or a pair, got {checks.shown(output_size)}")
        sizes = [own if size is None else size for size, own in zip(output_size, (H, W), strict=True)]
    OH, OW = checks.pair("adaptive_avg_pool2d", "output_size", sizes, low=0)
    if 0 in (H, W) and (OH, OW) != (1, 1):
        raise ValueError(f"adaptive_avg_pool2d: x must have H and W of at least 1 for output_size {(OH, OW)}, got {x.shape}")
    checks.room("adaptive_avg_pool2d", "output_size", output_size, "the output", (*batch.shape[:2], OH, OW), batch.dtype)
    return RUNGS.forward(batch, OH, OW, unbatched=unbatched)


def backward(grad_out: np.ndarray, cache: Cache) -> tuple[np.ndarray]:
    """The gradient with respect to ``x``.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.

    Returns:
        ``(grad_x,)``.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not adaptive_avg_pool2d's.
        ValueError: ``grad_out`` has another shape.
    """
    return RUNGS.backward(grad_out, cache)


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(x: np.ndarray, OH: int, OW: int) -> tuple[np.ndarray, tuple[Any, ...]]:
    """One window after the other: the specification."""
    N, C, H, W = x.shape
    out = np.zeros((N, C, OH, OW), x.dtype)
    for n, c, oh, ow in np.ndindex(out.shape):
        rows, columns = _window(oh, H, OH), _window(ow, W, OW)
        for h in rows:
            for w in columns:
                out[n, c, oh, ow] += x[n, c, h, w]
        out[n, c, oh, ow] = out[n, c, oh, ow] / len(rows) / len(columns)
    return out, (H, W)


def naive_backward(grad_out: np.ndarray, H: int, W: int) -> tuple[np.ndarray]:
    N, C, OH, OW = grad_out.shape
    grad_x = np.zeros((N, C, H, W), grad_out.dtype)
    for n, c, oh, ow in np.ndindex(grad_out.shape):
        rows, columns = _window(oh, H, OH), _window(ow, W, OW)
        share = grad_out[n, c, oh, ow] / len(rows) / len(columns)
        for h in rows:
            for w in columns:
                grad_x[n, c, h, w] += share
    return (grad_x,)


def _window(o: int, cells: int, outputs: int) -> range:
    """The range of input cells, along one axis, that are averaged into output ``o``."""
    return range(o * cells // outputs, -(-(o + 1) * cells // outputs))


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_forward(x: np.ndarray, OH: int, OW: int) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Sum all windows at once, first down the columns and then along the rows: the loops over the cells run in C."""
    H, W = x.shape[2:]
    return _divide(_sums(_sums(x, 2, OH), 3, OW), H, W), (H, W)


def numpy_backward(grad_out: np.ndarray, H: int, W: int) -> tuple[np.ndarray]:
    return (_sums(_sums(_divide(grad_out, H, W), 2, H), 3, W),)


def _bounds(cells: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """All windows of an axis, as two arrays: the first cell of each window, and the cell after its last one."""
    o = np.arange(outputs)
    return o * cells // outputs, -(-(o + 1) * cells // outputs)


def _divide(sums: np.ndarray, H: int, W: int) -> np.ndarray:
    """(N,C,OH,OW) -> (N,C,OH,OW): each value divided by the number of rows and of columns of its window over H·W cells."""
    top, bottom = _bounds(H, sums.shape[2])
    left, right = _bounds(W, sums.shape[3])
    means: np.ndarray = sums / (bottom - top).astype(sums.dtype)[:, np.newaxis] / (right - left).astype(sums.dtype)
    return means


def _sums(values: np.ndarray, axis: int, outputs: int) -> np.ndarray:
    """The sums over windows along ``axis``."""
    # reduceat adds from each index up to the next one. The indices are first, end, first, end …, so every other sum is a
    # window's. The added zero at the end makes the last index valid. Adding 0 turns -0.0 into 0.0, as in any sum that starts at
    # 0.
    frame = [(0, 0)] * values.ndim
    frame[axis] = (0, 1)
    bounds = np.ravel(_bounds(values.shape[axis], outputs), order="F")
    every_other = (slice(None),) * axis + (slice(None, None, 2),)
    sums: np.ndarray = np.add.reduceat(np.pad(values, frame), bounds, axis=axis)[every_other] + values.dtype.type(0)
    return sums


# --- numba ------------------------------------------------------------------------------------------------------------


def numba_forward(x: np.ndarray, OH: int, OW: int) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Take the same two steps for one row of windows at a time, in one pass over memory and on all cores."""
    H, W = x.shape[2:]
    return _divide(_plane_sums(x, OH, OW), H, W), (H, W)


def numba_backward(grad_out: np.ndarray, H: int, W: int) -> tuple[np.ndarray]:
    return (_plane_sums(_divide(grad_out, H, W), H, W),)


def _plane_sums(values: np.ndarray, OH: int, OW: int) -> np.ndarray:
    """(N,C,H,W) -> (N,C,OH,OW): the sums over windows."""
    N, C, H, W = values.shape
    sums = memory.empty((N, C, OH, OW), values.dtype)
    bounds = (*_bounds(H, OH), *_bounds(W, OW))
    planes, by_plane = values.reshape(N * C, H, W), sums.reshape(N * C, OH, OW)
    for_each(_sum_kernel, N * C, planes, bounds, by_plane, values=max(H * W, OH * OW))
    return sums


@kernel
def _sum_kernel(first: int, last: int, values: np.ndarray, bounds: tuple[np.ndarray, ...], sums: np.ndarray) -> None:
    W = values.shape[2]
    _, OH, OW = sums.shape
    top, bottom, left, right = bounds
    down = np.empty(W, values.dtype)  # each column's sum of cells in one row of windows
    for plane in range(first, last):
        for oh in range(OH):
            for w in range(W):
                down[w] = 0
            for h in range(top[oh], bottom[oh]):
                for w in range(W):
                    down[w] += values[plane, h, w]
            for ow in range(OW):
                total = values.dtype.type(0)
                for w in range(left[ow], right[ow]):
                    total += down[w]
                sums[plane, oh, ow] = total


RUNGS = Ladder(
    "adaptive_avg_pool2d",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
    Rung("numba", numba_forward, numba_backward),
)
