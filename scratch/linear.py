"""Linear (fully connected) layer: ``out = x @ weightᵀ + bias``.

Backward, with g = grad_out; "rows" are all axes of x except the last:

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

from scratch.compiled import memory
from scratch.compiled.blocks import KC, panels_in_l2
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import HALF, MR, NR_VECTORS, micro_kernel
from scratch.compiled.products import matmul
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import copy_vector, dot, lanes, prefetch, transpose
from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, NotTakenError, Rung
from scratch.fully_connected.few_rows import grad_x_of_few_rows, product_of_few_rows

__all__ = ["RUNGS", "backward", "forward"]

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
        ValueError: shapes do not fit each other, or the output does not fit into memory.
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
    """The gradients with respect to ``x``, ``weight`` and ``bias``.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.
        need_grad_x: False leaves out grad_x.

    Returns:
        ``(grad_x, grad_weight, grad_bias)``, each with its array's shape. grad_x is None if it is not needed, grad_bias if
        there is no bias.

    Raises:
        TypeError: ``grad_out`` has another dtype, ``cache`` is not linear's, or ``need_grad_x`` is not a bool.
        ValueError: ``grad_out`` has another shape.
    """
    need_grad_x = checks.flag("linear.backward", "need_grad_x", need_grad_x)
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
    """Write the sums as matrix products: BLAS does them in blocks that stay in the cache."""
    out = matmul(x, weight.T)
    if bias is not None:
        out += bias
    return out, (x, weight, bias is not None)


def numpy_backward(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, *, need_grad_x: bool) -> Gradients:
    # (…,OUT) -> (rows,OUT): the leading axes become rows. Not by reshape(-1), which fails on empty arrays.
    rows = math.prod(x.shape[:-1])
    g = grad_out.reshape(rows, grad_out.shape[-1])
    grad_weight = matmul(g.T, x.reshape(rows, x.shape[-1]))
    return matmul(grad_out, weight) if need_grad_x else None, grad_weight, g.sum(axis=0) if has_bias else None


# --- numba ------------------------------------------------------------------------------------------------------------

# weight is the large matrix (38 million numbers in AlexNet's first linear layer, for a few dozen rows of x), so most time goes
# into reading it. x and grad_out are small; they become packed panels, NR wide, for the micro-kernel (compiled/microkernel.py).
# Rows of weight are a multiple of 4,096 bytes apart, or nearly so. Therefore their lines share a few sets of the cache. If more
# lines are needed at a time than a set has ways, they evict each other before the micro-kernel is done with them.
# - forward reads no more than WAYS rows side by side, each from front to back, so the processor prefetches them by itself.
# - grad_x needs the rows across, as many as a sum has steps, so it copies weight one block at a time.
# With few rows of x, each number of weight is used too rarely for all this: then it is multiplied as it is read from memory
# (fully_connected/few_rows.py).
FEW = 16  # rows of x up to which this is faster
WAYS = 8  # of a set in the smallest L1: a set has room for so many lines
STRIPE = MR if MR <= WAYS else HALF  # rows of weight that forward reads side by side
STRIPES = 8  # of these share a part of the batch's panels in L2
GROUP = 8  # in grad_x: MR × NR tiles, one below the other, that share a block
# With no more multiplications than this, BLAS packs nothing and wakes no thread, and is faster than this rung.
ONE_THREAD = 1 << 18


def numba_forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Read weight only once, each row from front to back; BLAS first packs all of weight into panels."""
    OUT, IN = weight.shape
    if max(MR, NR_VECTORS * lanes(x)) > IN or MR > OUT:  # a tile of weight, and of its transpose for grad_x
        raise NotTakenError(f"linear: numba takes a weight of at least a tile, got {weight.shape}")
    rows = math.prod(x.shape[:-1])
    out = memory.empty((*x.shape[:-1], OUT), x.dtype)
    if rows == 1:
        # values: most time goes into reading weight.
        for_each(_row_kernel, OUT, x.ravel(), weight.ravel(), out.reshape(OUT), values=IN)
    elif rows <= FEW:
        product_of_few_rows(x, weight, out.reshape(rows, OUT))
    else:
        _product(weight, _batch_panels(x.reshape(rows, IN)), out.reshape(rows, OUT))
    if bias is not None:
        out += bias
    return out, (x, weight, bias is not None)


def numba_backward(grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, *, need_grad_x: bool) -> Gradients:
    OUT, IN = weight.shape
    rows = math.prod(x.shape[:-1])
    g = grad_out.reshape(rows, OUT)
    grad_x = None
    if need_grad_x:
        grad_x = memory.empty_like(x)
        if rows <= FEW:
            grad_x_of_few_rows(g, weight, grad_x.reshape(rows, IN))
        else:
            _transposed_product(weight, _batch_panels(g), grad_x.reshape(rows, IN))
    grad_weight = memory.empty_like(weight)
    panels = _feature_panels(x.reshape(rows, IN))

    def run(first: int, last: int) -> None:
        g_panel = memory.workspace(rows * MR, g.dtype)
        _grad_weight_kernel(first, last, g, g_panel, panels, grad_weight)

    for_each(run, math.ceil(OUT / MR), values=rows * IN)
    return grad_x, grad_weight, g.sum(axis=0) if has_bias else None


def _worth_numba(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> bool:
    return math.prod(x.shape[:-1]) * weight.size > ONE_THREAD


@kernel
def _row_kernel(first: int, last: int, x: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """A work item is one row of weight, times the only row of x. x and weight are flat."""
    IN = x.size
    for o in range(first, last):
        out[o] = dot(weight, o * IN, x, 0, IN)  # weight[o] · x


def _batch_panels(matrix: np.ndarray) -> np.ndarray:
    """(rows,K) -> packed panels, flat (⌈rows/NR⌉, K, NR), with zeros beyond the last row."""
    rows, K = matrix.shape
    NR = NR_VECTORS * lanes(matrix)
    panels = memory.workspace(math.ceil(rows / NR) * K * NR, matrix.dtype)
    for_each(_batch_panels_kernel, math.ceil(rows / NR) * K, matrix, panels, values=NR)
    return panels


@kernel
def _batch_panels_kernel(first: int, last: int, matrix: np.ndarray, panels: np.ndarray) -> None:
    """A work item is one feature of a panel's rows.

    It transposes squares. In a column of a large matrix the cells may be 4,096 bytes apart or more. So if a whole column were
    read at once, its cache lines would evict each other.
    """
    rows, K = matrix.shape
    NR = NR_VECTORS * lanes(matrix)
    flat, offsets = matrix.reshape(rows * K), np.arange(NR) * K
    i = first
    while i < last:
        panel, k = divmod(i, K)  # matrix[panel·NR, k] -> panels[panel, k], which begins at i·NR
        count, here = min(last - i, K - k), min(NR, rows - panel * NR)
        transpose(flat, panel * NR * K + k, offsets[:here], count, panels, i * NR, NR)
        for j in range(i, i + count):
            panels[j * NR + here : (j + 1) * NR] = 0  # panels[panel, k + j - i, here:]
        i += count


def _feature_panels(matrix: np.ndarray) -> np.ndarray:
    """(rows,K) -> packed panels, flat (⌈K/NR⌉, rows, NR). The last panel is moved back until it is full."""
    rows, K = matrix.shape
    NR = NR_VECTORS * lanes(matrix)
    count = math.ceil(K / NR)
    panels = memory.workspace(count * rows * NR, matrix.dtype)
    for_each(_feature_panels_kernel, count, matrix, panels, values=rows * NR)
    return panels


@kernel
def _feature_panels_kernel(first: int, last: int, matrix: np.ndarray, panels: np.ndarray) -> None:
    """(rows,K) -> (⌈K/NR⌉, rows, NR): a work item is one panel."""
    rows, K = matrix.shape
    NR = NR_VECTORS * lanes(matrix)
    flat = matrix.reshape(rows * K)
    for panel in range(first, last):
        left = min(panel * NR, K - NR)
        for row in range(rows):
            for j in range(0, NR, lanes(matrix)):  # matrix[row, left + j] -> panels[panel, row, j]
                copy_vector(flat, row * K + left + j, panels, (panel * rows + row) * NR + j)


def _product(weight: np.ndarray, panels: np.ndarray, out: np.ndarray) -> None:
    """Fill out (rows,OUT): out' (OUT, rows) = weight (OUT,IN) · packed panels of x' (IN, rows)."""
    OUT, IN = weight.shape
    NR = NR_VECTORS * lanes(out)
    batch_panels = math.ceil(len(out) / NR)
    # The steps of K for which the whole batch's panels stay in L2 while STRIPES tiles read them.
    run_steps = KC * panels_in_l2(batch_panels * KC * NR * out.itemsize, 0)

    def run(first: int, last: int) -> None:
        tiles = memory.workspace(STRIPES * batch_panels * STRIPE * NR, out.dtype)
        _product_kernel(first, last, weight.ravel(), panels, run_steps, tiles, out)

    for_each(run, math.ceil(OUT / (STRIPES * STRIPE)), values=STRIPES * batch_panels * IN * NR)


@kernel
def _product_kernel(
    first: int, last: int, weight: np.ndarray, panels: np.ndarray, run_steps: int, tiles: np.ndarray, out: np.ndarray
) -> None:
    """A work item is STRIPES·STRIPE rows of weight, for the whole batch: STRIPES tiles for each packed panel of the batch.

    weight (OUT,IN), panels (⌈rows/NR⌉, IN, NR) and tiles (STRIPES, ⌈rows/NR⌉, STRIPE, NR) are flat.
    """
    NR = NR_VECTORS * lanes(out)
    rows, OUT = out.shape
    IN = weight.size // OUT
    batch_panels = (rows + NR - 1) // NR
    for i in range(first, last):
        left = i * STRIPES * STRIPE
        count = min(STRIPES, (OUT - left + STRIPE - 1) // STRIPE)
        for begin in range(0, IN, run_steps):
            for t in range(count):
                o = min(left + t * STRIPE, OUT - STRIPE)  # the last tile is moved back, and computes some rows again
                for k in range(begin, min(begin + run_steps, IN), KC):
                    for b in range(batch_panels):  # weight[o, k], panels[b, k] -> tiles[t, b]
                        micro_kernel(
                            min(KC, IN - k), weight, o * IN + k, 1, IN, panels, (b * IN + k) * NR, NR,
                            tiles, (t * batch_panels + b) * STRIPE * NR, NR, STRIPE, k > 0,
                        )  # fmt: skip
        for row in range(rows):
            for t in range(count):
                o = min(left + t * STRIPE, OUT - STRIPE)
                tile = (t * batch_panels + row // NR) * STRIPE * NR + row % NR  # tiles[t, row // NR, :, row % NR]
                for r in range(STRIPE):
                    out[row, o + r] = tiles[tile + r * NR]


def _transposed_product(weight: np.ndarray, panels: np.ndarray, grad_x: np.ndarray) -> None:
    """Fill grad_x (rows,IN): grad_x' (IN, rows) = weight' (IN,OUT) · packed panels of g' (OUT, rows)."""
    OUT, IN = weight.shape
    NR = NR_VECTORS * lanes(grad_x)
    batch_panels = math.ceil(len(grad_x) / NR)

    def run(first: int, last: int) -> None:
        block = memory.workspace(KC * GROUP * MR, grad_x.dtype)
        tiles = memory.workspace(GROUP * batch_panels * MR * NR, grad_x.dtype)
        _transposed_product_kernel(first, last, weight.ravel(), panels, block, tiles, grad_x)

    for_each(run, math.ceil(IN / (GROUP * MR)), values=GROUP * batch_panels * OUT * NR)


@kernel
def _transposed_product_kernel(
    first: int, last: int, weight: np.ndarray, panels: np.ndarray, block: np.ndarray, tiles: np.ndarray, grad_x: np.ndarray
) -> None:
    """A work item is GROUP·MR columns of weight, for the whole batch: GROUP tiles for each packed panel of the batch.

    weight (OUT,IN), panels (⌈rows/NR⌉, OUT, NR), block (KC, GROUP·MR) and tiles (GROUP, ⌈rows/NR⌉, MR, NR) are flat.
    """
    NR = NR_VECTORS * lanes(grad_x)
    rows, IN = grad_x.shape
    OUT = weight.size // IN
    batch_panels = (rows + NR - 1) // NR
    for i in range(first, last):
        left = min(i * GROUP * MR, IN - MR)
        here = min(IN - left, GROUP * MR)
        count = (here + MR - 1) // MR
        for k in range(0, OUT, KC):
            steps = min(KC, OUT - k)
            for line in range(steps):  # weight[k + line, left] -> block[line], of ``here`` elements
                source, target = weight[(k + line) * IN + left :], block[line * here : (line + 1) * here]
                for j in range(here):
                    target[j] = source[j]
            for t in range(count):
                for line in range(steps * t // count, steps * (t + 1) // count):  # of the next block
                    prefetch(weight, (k + KC + line) * IN + left, here)
                column = min(t * MR, here - MR)  # the last tile is moved back until it is full, and computes some columns again
                for b in range(batch_panels):
                    tile = (t * batch_panels + b) * MR * NR  # tiles[t, b]; below, panels[b, k]
                    micro_kernel(
                        steps, block, column, here, 1, panels, (b * OUT + k) * NR, NR, tiles, tile, NR, MR, k > 0
                    )  # fmt: skip
        for row in range(rows):
            for t in range(count):
                column = left + min(t * MR, here - MR)
                tile = (t * batch_panels + row // NR) * MR * NR + row % NR  # tiles[t, row // NR, :, row % NR]
                for r in range(MR):
                    grad_x[row, column + r] = tiles[tile + r * NR]


@kernel
def _grad_weight_kernel(
    first: int, last: int, g: np.ndarray, g_panel: np.ndarray, panels: np.ndarray, grad_weight: np.ndarray
) -> None:
    """grad_weight (OUT,IN) = g' (OUT, rows) · x (rows, IN): a work item is MR rows of OUT.

    g_panel (rows, MR) and panels (⌈IN/NR⌉, rows, NR) are flat.
    """
    rows, OUT = g.shape
    IN = grad_weight.shape[1]
    NR = NR_VECTORS * lanes(g)
    flat = grad_weight.reshape(OUT * IN)
    for i in range(first, last):
        o = min(i * MR, OUT - MR)
        for row in range(rows):
            for r in range(MR):
                g_panel[row * MR + r] = g[row, o + r]  # g_panel[row, r]
        for panel in range((IN + NR - 1) // NR):
            j = min(panel * NR, IN - NR)  # panels[panel] -> grad_weight[o, j]
            micro_kernel(rows, g_panel, 0, MR, 1, panels, panel * rows * NR, NR, flat, o * IN + j, IN, MR, False)


RUNGS = Ladder(
    "linear",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
    Rung("numba", numba_forward, numba_backward, _worth_numba),
)
