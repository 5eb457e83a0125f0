"""Linear (fully connected) layer: ``out = x @ weightᵀ + bias``.

Backward, with g = grad_out and rows for all axes of x but the last:

    grad_x      = g @ weight
    grad_weight = gᵀ @ x
    grad_bias   = Σ_rows g

Shapes: x (…,IN), weight (OUT,IN), bias (OUT,), out (…,OUT).
Paper: Krizhevsky, Sutskever, Hinton 2012, section 3.5. Same as ``torch.nn.functional.linear``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scratch.core import checks, memory
from scratch.core.jit import kernel
from scratch.core.ladder import Cache, Ladder, NotTakenError, Rung
from scratch.core.microkernel import ROWS, VECTORS, multiply_tile
from scratch.core.threads import for_each
from scratch.core.vectors import copy_vector, dot, fetch, lanes, transpose

Gradients = tuple[np.ndarray | None, np.ndarray, np.ndarray | None]


def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> tuple[np.ndarray, Cache]:
    """Multiply every row of ``x`` by ``weight``.

    Args:
        x: (…,IN) with any number of leading axes, none included; float32 or float64.
        weight: (OUT,IN), of x's dtype.
        bias: (OUT,), of x's dtype, or None.

    Returns:
        ``out`` (…,OUT) and the cache for :func:`backward`.

    Raises:
        TypeError: an array is not float32 or float64, or the dtypes differ.
        ValueError: shapes that do not fit each other, or an output that memory does not hold.
    """
    x = checks.array("linear", "x", x)
    weight = checks.array("linear", "weight", weight, dtype=x.dtype)
    if x.ndim == 0:
        raise ValueError(f"linear: x must have shape (…,IN), got {x.shape} with weight {weight.shape}")
    if weight.ndim != 2:
        raise ValueError(f"linear: weight must have shape (OUT,IN), got {weight.shape} with x {x.shape}")
    if weight.shape[1] != x.shape[-1]:
        raise ValueError(f"linear: weight must have as many columns as x {x.shape} has features, got {weight.shape}")
    if bias is not None:
        bias = checks.array("linear", "bias", bias, dtype=x.dtype)
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"linear: bias must have shape {weight.shape[:1]} for weight {weight.shape}, got {bias.shape}")
    checks.room("linear", "weight", weight, "the output", (*x.shape[:-1], len(weight)), x.dtype)
    return RUNGS.forward(x, weight, bias)


def backward(grad_out: np.ndarray, cache: Cache, *, need_grad_x: bool = True) -> Gradients:
    """The gradients of :func:`forward`'s arrays.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.
        need_grad_x: False leaves grad_x out.

    Returns:
        ``(grad_x, grad_weight, grad_bias)``, each of its array's shape; None for an absent bias or an unneeded grad_x.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not linear's.
        ValueError: ``grad_out`` has another shape.
    """
    grad_x, grad_weight, grad_bias = RUNGS.backward(grad_out, cache, need_grad_x=need_grad_x)
    return grad_x, grad_weight, grad_bias


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, tuple[Any, ...]]:
    """One product after the other: the specification."""
    OUT, IN = weight.shape
    out = np.zeros((*x.shape[:-1], OUT), x.dtype)
    for row in np.ndindex(x.shape[:-1]):
        for o in range(OUT):
            for i in range(IN):
                out[*row, o] += x[*row, i] * weight[o, i]
            if bias is not None:
                out[*row, o] += bias[o]
    return out, (x, weight, bias is not None)


def naive_backward(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, *, need_grad_x: bool) -> Gradients:
    grad_x, grad_weight, grad_bias = np.zeros_like(x), np.zeros_like(weight), np.zeros(len(weight), x.dtype)
    for row in np.ndindex(x.shape[:-1]):
        for o, i in np.ndindex(weight.shape):
            grad_x[*row, i] += grad_out[*row, o] * weight[o, i]
            grad_weight[o, i] += grad_out[*row, o] * x[*row, i]
        for o in range(len(weight)):
            grad_bias[o] += grad_out[*row, o]
    return grad_x if need_grad_x else None, grad_weight, grad_bias if has_bias else None


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, tuple[Any, ...]]:
    """The same sums as matrix products, which BLAS cuts into blocks that stay in the cache."""
    out = x @ weight.T
    if bias is not None:
        out += bias
    return out, (x, weight, bias is not None)


def numpy_backward(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, *, need_grad_x: bool) -> Gradients:
    # (…,OUT) -> (ROWS,OUT): the leading axes are rows like any other. Spelled out, since reshape(-1) fails on empty arrays.
    rows = math.prod(x.shape[:-1])
    g = grad_out.reshape(rows, grad_out.shape[-1])
    grad_weight = g.T @ x.reshape(rows, x.shape[-1])
    return grad_out @ weight if need_grad_x else None, grad_weight, g.sum(axis=0) if has_bias else None


# --- numba ------------------------------------------------------------------------------------------------------------

# weight is the large matrix (38 million numbers in AlexNet's first linear layer, for a few dozen rows of x), so time goes
# into reading it. x and grad_out, being small, are cut into panels in which the register tile (core/microkernel.py) finds
# COLUMNS neighbours. Of weight a block at a time is copied: its rows are a multiple of 4,096 bytes apart, or nearly so, and share
# a few places in the cache, from which they would drive each other out before the tiles are done with them.
# Of a few rows each number of weight is used too rarely for all that: then a row of weight is multiplied as it lies there.
FEW = 8  # rows, from which on tiles are the faster
BLOCK = 128  # steps of a sum at a time
GROUP = 8  # tiles side by side that share a block
ONE_THREAD = 1 << 18  # multiplications up to which BLAS has no panels to make and wakes no threads; making them here costs more


def numba_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Read the weight matrix once, the next block while this one is multiplied: BLAS first makes panels of all of it.

    Of a few rows, multiply each row of weight where it lies.
    """
    OUT, IN = weight.shape
    rows = math.prod(x.shape[:-1])
    few = rows < FEW
    if not few and (max(ROWS, VECTORS * lanes(x)) > IN or ROWS > OUT):  # a tile of weight, and for grad_x one of its transpose
        raise NotTakenError(f"linear: numba takes a weight of at least a tile for {FEW} rows or more, got {weight.shape}")
    out = memory.empty((*x.shape[:-1], OUT), x.dtype)
    if few:
        # values: time goes into reading weight, however few the rows are.
        for_each(_rows_kernel, OUT, x.ravel(), weight.ravel(), out.reshape(rows, OUT), values=IN)
    else:
        # out' (OUT, rows) = weight (OUT,IN) · x' (IN, rows)
        _product(weight, False, _batch_panels(x.reshape(rows, IN)), out.reshape(rows, OUT))
    if bias is not None:
        out += bias
    return out, (x, weight, bias is not None)


def numba_backward(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, *, need_grad_x: bool) -> Gradients:
    OUT, IN = weight.shape
    rows = math.prod(x.shape[:-1])
    if rows < FEW:
        return numpy_backward(grad_out, x, weight, has_bias, need_grad_x=need_grad_x)
    g = grad_out.reshape(rows, OUT)
    grad_x = None
    if need_grad_x:
        grad_x = memory.empty_like(x)
        # grad_x' (IN, rows) = weight' (IN,OUT) · g' (OUT, rows)
        _product(weight, True, _batch_panels(g), grad_x.reshape(rows, IN))
    grad_weight = memory.empty_like(weight)
    panels = _feature_panels(x.reshape(rows, IN))

    def run(first: int, last: int) -> None:
        g_panel = memory.workspace(rows * ROWS, g.dtype)
        _grad_weight_kernel(first, last, g, g_panel, panels, grad_weight)

    for_each(run, math.ceil(OUT / ROWS), values=rows * IN)
    return grad_x, grad_weight, g.sum(axis=0) if has_bias else None


def _worth_numba(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> bool:
    rows = math.prod(x.shape[:-1])
    return rows < FEW or rows * weight.size > ONE_THREAD


@kernel
def _rows_kernel(first: int, last: int, x: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """A piece is one row of weight, for the whole batch. x and weight are flat."""
    rows, OUT = out.shape
    IN = weight.size // OUT
    for o in range(first, last):
        for row in range(rows):
            out[row, o] = dot(weight, o * IN, x, row * IN, IN)


def _batch_panels(matrix: np.ndarray) -> np.ndarray:
    """(rows,K) -> flat (⌈rows/COLUMNS⌉, K, COLUMNS), zero where there is no row."""
    rows, K = matrix.shape
    columns = VECTORS * lanes(matrix)
    panels = memory.workspace(math.ceil(rows / columns) * K * columns, matrix.dtype)
    for_each(_batch_panels_kernel, math.ceil(rows / columns) * K, matrix, panels, values=columns)
    return panels


@kernel
def _batch_panels_kernel(first: int, last: int, matrix: np.ndarray, panels: np.ndarray) -> None:
    """A piece is one feature of a panel's rows. They go by squares, or rows 4,096 bytes apart would drive each other out."""
    rows, K = matrix.shape
    columns = VECTORS * lanes(matrix)
    flat, offsets = matrix.reshape(rows * K), np.arange(columns) * K
    i = first
    while i < last:
        panel, k = divmod(i, K)
        count, here = min(last - i, K - k), min(columns, rows - panel * columns)
        transpose(flat, panel * columns * K + k, offsets[:here], count, panels, i * columns, columns)
        for j in range(i, i + count):
            panels[j * columns + here : (j + 1) * columns] = 0
        i += count


def _feature_panels(matrix: np.ndarray) -> np.ndarray:
    """(rows,K) -> flat (⌈K/COLUMNS⌉, rows, COLUMNS). The last panel is moved back to where it is full."""
    rows, K = matrix.shape
    columns = VECTORS * lanes(matrix)
    count = math.ceil(K / columns)
    panels = memory.workspace(count * rows * columns, matrix.dtype)
    for_each(_feature_panels_kernel, count, matrix, panels, values=rows * columns)
    return panels


@kernel
def _feature_panels_kernel(first: int, last: int, matrix: np.ndarray, panels: np.ndarray) -> None:
    rows, K = matrix.shape
    columns = VECTORS * lanes(matrix)
    flat = matrix.reshape(rows * K)
    for panel in range(first, last):
        left = min(panel * columns, K - columns)
        for row in range(rows):
            for j in range(0, columns, lanes(matrix)):
                copy_vector(flat, row * K + left + j, panels, (panel * rows + row) * columns + j)


def _product(weight: np.ndarray, transposed: bool, panels: np.ndarray, result: np.ndarray) -> None:
    """Fill result (rows,M) = (weight (M,K) · panels (K, rows))'; transposed, weight is (K,M)."""
    tiles_at_once = GROUP * math.ceil(len(result) / (VECTORS * lanes(result)))
    steps = tiles_at_once * (weight.size // result.shape[1])

    def run(first: int, last: int) -> None:
        block = memory.workspace(GROUP * ROWS * BLOCK, result.dtype)
        tiles = memory.workspace(tiles_at_once * ROWS * VECTORS * lanes(result), result.dtype)
        _product_kernel(first, last, weight, transposed, panels, block, tiles, result)

    for_each(run, math.ceil(result.shape[1] / (GROUP * ROWS)), values=steps * VECTORS * lanes(result))


@kernel
def _product_kernel(
    first: int,
    last: int,
    weight: np.ndarray,
    transposed: bool,
    panels: np.ndarray,
    block: np.ndarray,
    tiles: np.ndarray,
    result: np.ndarray,
) -> None:
    """A piece is GROUP·ROWS columns of the result, for the whole batch."""
    columns = VECTORS * lanes(result)
    rows, M = result.shape
    K, width = weight.size // M, weight.shape[1]
    flat = weight.reshape(weight.size)
    batch_panels = (rows + columns - 1) // columns
    for i in range(first, last):
        left = min(i * GROUP * ROWS, M - ROWS)
        here = min(M - left, GROUP * ROWS)
        count = (here + ROWS - 1) // ROWS
        for k in range(0, K, BLOCK):
            steps = min(BLOCK, K - k)
            # at, ahead: where the block begins in weight, and how far on the next one does (behind the last nothing is wanted)
            # lines, length: what lies side by side in weight. step, across: in the copy, from step to step and row to row
            if transposed:
                at, ahead, lines, length, step, across = k * width + left, BLOCK * width, steps, here, here, 1
            else:
                at, ahead, lines, length, step, across = left * width + k, BLOCK, here, steps, 1, steps
            for line in range(lines):
                source, target = flat[at + line * width :], block[line * length : (line + 1) * length]
                for j in range(length):
                    target[j] = source[j]
            for t in range(count):
                for line in range(lines * t // count, lines * (t + 1) // count):
                    fetch(flat, at + ahead + line * width, length)
                # The last tile begins early enough to be full, and does some columns a second time.
                block_at = min(t * ROWS, here - ROWS) * across
                for b in range(batch_panels):
                    tile = (t * batch_panels + b) * ROWS * columns
                    multiply_tile(
                        steps, block, block_at, step, across, panels, (b * K + k) * columns, columns,
                        tiles, tile, columns, k > 0,
                    )  # fmt: skip
        for row in range(rows):
            for t in range(count):
                m = left + min(t * ROWS, here - ROWS)
                tile = (t * batch_panels + row // columns) * ROWS * columns + row % columns
                for r in range(ROWS):
                    result[row, m + r] = tiles[tile + r * columns]


@kernel
def _grad_weight_kernel(
    first: int, last: int, g: np.ndarray, g_panel: np.ndarray, panels: np.ndarray, grad_weight: np.ndarray
) -> None:
    """grad_weight (OUT,IN) = g' (OUT, rows) · x (rows, IN): a piece is ROWS rows of OUT."""
    rows, OUT = g.shape
    IN = grad_weight.shape[1]
    columns = VECTORS * lanes(g)
    flat = grad_weight.reshape(OUT * IN)
    for i in range(first, last):
        o = min(i * ROWS, OUT - ROWS)
        for row in range(rows):
            for r in range(ROWS):
                g_panel[row * ROWS + r] = g[row, o + r]
        for panel in range((IN + columns - 1) // columns):
            j = min(panel * columns, IN - columns)
            multiply_tile(rows, g_panel, 0, ROWS, 1, panels, panel * rows * columns, columns, flat, o * IN + j, IN, False)


RUNGS = Ladder(
    "linear",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
    Rung("numba", numba_forward, numba_backward, _worth_numba),
)
