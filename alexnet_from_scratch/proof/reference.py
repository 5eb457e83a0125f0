"""The linear operations and pooling again: straight from the definitions, in higher precision, with error bounds.

A third implementation, so that scratch and torch are not only compared with each other. It shares no code with either and accepts
any array layout. Every function returns the outputs and a function from grad_out to the gradients. The other operations are in
``reference_nonlinear.py``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from alexnet_from_scratch.proof.bounds import Bounded, Rounding

Gradients = tuple[Bounded | None, ...]
Result = tuple[tuple[Any, ...], Callable[[np.ndarray], Gradients]]


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, (tuple, list)):
        return (value[0], value[-1])
    return (value, value)


def _batched(x: np.ndarray) -> np.ndarray:
    return x if x.ndim == 4 else x[np.newaxis]


# --- conv2d -----------------------------------------------------------------------------------------------------------
# Each element is a dot product. In the output it has C/groups·KH·KW terms, plus the bias; in grad_x it has at most
# OC/groups·KH·KW terms; in grad_weight and grad_bias, N·OH·OW. So the bound is gamma_n of a dot product, and nothing else.


def conv2d(
    rounding: Rounding,
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Result:
    (SH, SW), (DH, DW) = _pair(stride), _pair(dilation)
    batch = _batched(x)
    (N, C, H, W), (OC, C_group, KH, KW) = batch.shape, weight.shape
    if padding == "same":
        reach = DH * (KH - 1), DW * (KW - 1)
        (top, left), (bottom, right) = (reach[0] // 2, reach[1] // 2), (reach[0] - reach[0] // 2, reach[1] - reach[1] // 2)
    else:
        top, left = bottom, right = _pair(0 if padding == "valid" else padding)
    OH = (H + top + bottom - DH * (KH - 1) - 1) // SH + 1
    OW = (W + left + right - DW * (KW - 1) - 1) // SW + 1
    frame = ((0, 0), (0, 0), (top, bottom), (left, right))

    def blocks(array: np.ndarray, axis: int) -> np.ndarray:  # split the channel axis into (groups, channels of a group)
        return array.reshape(*array.shape[:axis], groups, array.shape[axis] // groups, *array.shape[axis + 1 :])

    def taps() -> Iterator[tuple[int, int, tuple[Any, ...]]]:  # what each tap of the window reads of the padded image
        for i, j in itertools.product(range(KH), range(KW)):
            rows = slice(i * DH, i * DH + SH * (OH - 1) + 1, SH)
            columns = slice(j * DW, j * DW + SW * (OW - 1) + 1, SW)
            yield i, j, (..., rows, columns)

    def correlate(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        framed = blocks(np.pad(image, frame), 1)  # (N, G, C/G, H', W')
        out = np.zeros((N, groups, OC // groups, OH * OW), image.dtype)
        for i, j, window in taps():
            # (G, OC/G, C/G) @ (N, G, C/G, OH·OW) -> (N, G, OC/G, OH·OW)
            out += blocks(kernel[..., i, j], 0) @ framed[window].reshape(N, groups, C_group, OH * OW)
        return out.reshape(N, OC, OH, OW)

    def spread(g: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        framed = np.zeros((N, groups, C_group, H + top + bottom, W + left + right), g.dtype)
        g = blocks(g, 1).reshape(N, groups, OC // groups, OH * OW)
        for i, j, window in taps():
            # (G, C/G, OC/G) @ (N, G, OC/G, OH·OW) -> (N, G, C/G, OH·OW)
            framed[window] += (blocks(kernel[..., i, j], 0).swapaxes(1, 2) @ g).reshape(N, groups, C_group, OH, OW)
        return framed[..., top : top + H, left : left + W].reshape(N, C, H, W)

    def meet(g: np.ndarray, image: np.ndarray) -> np.ndarray:
        framed = blocks(np.pad(image, frame), 1)
        grad = np.zeros((groups, OC // groups, C_group, KH, KW), g.dtype)
        # (N, G, OC/G, OH, OW) -> (G, OC/G, N·OH·OW)
        g = np.moveaxis(blocks(g, 1), 0, 2).reshape(groups, OC // groups, N * OH * OW)
        for i, j, window in taps():
            # (N, G, C/G, OH, OW) -> (G, N·OH·OW, C/G)
            read = np.moveaxis(framed[window], (1, 2), (0, 4)).reshape(groups, N * OH * OW, C_group)
            grad[..., i, j] = g @ read
        return grad.reshape(OC, C_group, KH, KW)

    n = C_group * KH * KW + 1
    if bias is None:
        out = rounding.bilinear(correlate, batch, weight, n)
    else:
        # The bias is one more product: bias times 1.
        out = rounding.bilinear(
            lambda image, kernel: correlate(image, kernel[:-OC].reshape(weight.shape)) + kernel[-OC:, np.newaxis, np.newaxis],
            batch,
            np.concatenate([weight.ravel(), bias]),
            n,
        )

    def backward(grad_out: np.ndarray) -> Gradients:
        g = _batched(grad_out)
        grad_x = rounding.bilinear(spread, g, weight, OC // groups * KH * KW).select(lambda a: a.reshape(x.shape))
        grad_weight = rounding.bilinear(meet, g, batch, N * OH * OW)
        grad_bias = None if bias is None else rounding.linear(lambda a: a.sum((0, 2, 3)), g, N * OH * OW)
        return grad_x, grad_weight, grad_bias

    return (out.select(lambda a: a.reshape(*x.shape[:-3], OC, OH, OW)),), backward


# --- linear -----------------------------------------------------------------------------------------------------------
# Dot products of IN terms and the bias (out), of OUT terms (grad_x), and of one term per row (the others).


def linear(rounding: Rounding, x: Any, weight: Any, bias: Any = None) -> Result:
    OUT, IN = weight.shape
    rows = x.reshape(int(np.prod(x.shape[:-1])), IN)
    out = rounding.bilinear(np.matmul, rows, weight.T, IN)
    if bias is not None:
        ones = np.ones((len(rows), 1), x.dtype)
        out = rounding.bilinear(np.matmul, np.concatenate([rows, ones], 1), np.concatenate([weight.T, bias[np.newaxis]]), IN + 1)

    def backward(grad_out: np.ndarray) -> Gradients:
        g = grad_out.reshape(len(rows), OUT)
        grad_x = rounding.bilinear(np.matmul, g, weight, OUT).select(lambda a: a.reshape(x.shape))
        grad_weight = rounding.bilinear(np.matmul, g.T, rows, len(rows))
        return grad_x, grad_weight, None if bias is None else rounding.linear(lambda a: a.sum(0), g, len(rows))

    return (out.select(lambda a: a.reshape(*x.shape[:-1], OUT)),), backward


# --- relu and dropout -------------------------------------------------------------------------------------------------


def relu(rounding: Rounding, x: Any) -> Result:
    """Exact: nothing is computed."""
    out = np.where(x < 0, x.dtype.type(0), x)
    return (rounding.exact(out),), lambda g: (rounding.exact(np.where(x <= 0, 0, g)),)


def dropout(rounding: Rounding, x: Any, *, p: float = 0.5, training: bool = True, mask: Any = None) -> Result:
    """Three roundings: of 1-p, of its inverse and of the product. Dropped elements are multiplied by zero, so NaN stays NaN."""
    if not training:
        return (rounding.exact(x),), lambda g: (rounding.exact(g),)
    factor = np.where(mask, 1 / (1 - np.longdouble(p)), 0) if p < 1 else np.zeros(x.shape)
    return (_scaled(rounding, x, factor),), lambda g: (_scaled(rounding, g, factor),)


def _scaled(rounding: Rounding, x: np.ndarray, factor: np.ndarray) -> Bounded:
    return rounding.linear(lambda a: a * factor.astype(a.dtype), x, 3)


# --- pooling ----------------------------------------------------------------------------------------------------------


def max_pool2d(
    rounding: Rounding,
    x: Any,
    *,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Result:
    """Exact, except grad_x where windows overlap: a sum of at most KH·KW terms."""
    (KH, KW), (PH, PW), (DH, DW) = _pair(kernel_size), _pair(padding), _pair(dilation)
    SH, SW = (KH, KW) if stride is None or stride == [] else _pair(stride)
    batch = _batched(x)
    N, C, H, W = batch.shape

    def windows(size: int, k: int, s: int, p: int, d: int) -> list[range]:
        span = size + 2 * p - d * (k - 1) - 1
        count = (-(-span // s) if ceil_mode else span // s) + 1
        if ceil_mode and (count - 1) * s >= size + p:  # the last window would be entirely in the padding
            count -= 1
        starts = (o * s - p for o in range(count))
        # A start in the padding moves to the window's first cell inside.
        return [range(start % d if start < 0 else start, min(start + d * (k - 1) + 1, size), d) for start in starts]

    rows, columns = windows(H, KH, SH, PH, DH), windows(W, KW, SW, PW, DW)
    indices = np.empty((N, C, len(rows), len(columns)), np.int64)
    for (oh, row), (ow, column) in itertools.product(enumerate(rows), enumerate(columns)):
        cells = np.add.outer(
            np.arange(row.start, row.stop, row.step) * W, np.arange(column.start, column.stop, column.step)
        ).ravel()
        values = batch.reshape(N, C, H * W)[..., cells]
        nan = np.isnan(values)
        last_nan = values.shape[-1] - 1 - np.argmax(nan[..., ::-1], -1)
        first_largest = np.argmax(np.where(nan, -np.inf, values), -1)
        indices[..., oh, ow] = cells[np.where(nan.any(-1), last_nan, first_largest)]

    flat = indices.reshape(N * C, len(rows) * len(columns))
    out = np.take_along_axis(batch.reshape(N * C, H * W), flat, 1).reshape(*x.shape[:-2], len(rows), len(columns))

    def scatter(g: np.ndarray) -> np.ndarray:
        grad = np.zeros((N * C, H * W), g.dtype)
        np.add.at(grad, (np.arange(N * C)[:, np.newaxis], flat), g.reshape(flat.shape))
        return grad.reshape(x.shape)

    outs = (rounding.exact(out), indices.reshape(out.shape)) if return_indices else (rounding.exact(out),)
    overlap = KH * KW - 1
    return outs, lambda grad_out: (rounding.linear(scatter, grad_out, overlap),)


def adaptive_avg_pool2d(rounding: Rounding, x: Any, *, output_size: Any) -> Result:
    """Averages, with one matrix of weights per axis: A_h x A_wᵀ.

    An output is a sum of at most m cells and is divided, perhaps by the window's height and then its width: m + 2 roundings.
    A cell's gradient is a sum over the at most m windows that contain it, each divided likewise: m + 2.
    """
    H, W = x.shape[-2:]
    OH, OW = (size if side is None else side for size, side in zip((H, W), _pair(output_size), strict=True))

    def averages(size: int, outputs: int) -> np.ndarray:
        matrix = np.zeros((outputs, size), rounding.work)
        for o in range(outputs):
            start, end = o * size // outputs, -(-(o + 1) * size // outputs)
            matrix[o, start:end] = 1 / rounding.work.type(end - start)
        return matrix

    rows, columns = averages(H, OH), averages(W, OW)

    def overlap(axis: int) -> int:
        return int(np.count_nonzero(rows, axis).max(initial=0) * np.count_nonzero(columns, axis).max(initial=0))

    def pool(image: np.ndarray, of_window: Callable[..., np.ndarray] = np.mean) -> np.ndarray:
        # One window at a time: in a matrix product, an infinity outside a window, times 0, would give NaN.
        out = np.empty((*image.shape[:-2], OH, OW), image.dtype)
        for oh, ow in itertools.product(range(OH), range(OW)):
            cells = np.ix_(rows[oh] > 0, columns[ow] > 0)
            out[..., oh, ow] = of_window(image[(..., *cells)], (-2, -1))
        return out

    def unpool(g: np.ndarray) -> np.ndarray:
        grad = np.zeros((*g.shape[:-2], H, W), g.dtype)
        for oh, ow in itertools.product(range(OH), range(OW)):
            cells = np.ix_(rows[oh] > 0, columns[ow] > 0)
            grad[(..., *cells)] += g[..., oh : oh + 1, ow : ow + 1] * (rows[oh].max() * columns[ow].max())
        return grad

    means = rounding.linear(pool, x, overlap(1) + 2)
    # The mean is a divided sum: where the sum may overflow, nothing is promised.
    sums = rounding.linear(lambda image: pool(image, np.sum), x, overlap(1) + 2)
    means = Bounded(means.value, np.where(np.isinf(sums.error), np.inf, means.error), rounding)
    return (means,), lambda g: (rounding.linear(unpool, g, overlap(0) + 2),)
