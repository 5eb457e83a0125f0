"""Local response normalization: divide every value by a measure of how strong nearby channels are at the same position.

    scale[c] = k + alpha/size · Σ_{i in window(c)} x[i]²           window(c) = c - size//2 … c + (size-1)//2, within 0 … C-1
    out[c]   = x[c] · scale[c]^-beta

at every position (n,h,w). Backward, with g = grad_out: x[j] acts on out[j] directly, and on the scale of every channel whose
window contains j.

    pull[c]   = g[c] · d out[c] / d scale[c] = -g[c] · x[c] · beta · scale[c]^(-beta-1)
    grad_x[j] = g[j] · scale[j]^-beta + x[j] · 2·alpha/size · Σ_{c with j in window(c)} pull[c]

These c are j - (size-1)//2 … j + size//2: the window's mirror image, which for an even ``size`` is a different window.

Shapes: x (N,C,…), mostly (N,C,H,W). Same as ``torch.nn.functional.local_response_norm``.
Paper: Krizhevsky, Sutskever, Hinton 2012, section 3.3, which prints alpha where torch has alpha/size.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import prefetch
from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, Rung

__all__ = ["RUNGS", "backward", "forward"]


class Window(NamedTuple):
    """The arguments of :func:`forward` in the form that the sums need."""

    before: int  # channels of the window before its centre, and after it; at most C
    after: int
    alpha: float  # alpha/size
    beta: float
    k: float
    by_roots: bool  # whether scale^0.75 may be √scale·√√scale; not if scale may be negative: pow is inf at -inf, a root is NaN


def forward(x: np.ndarray, *, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> tuple[np.ndarray, Cache]:
    """Normalize every value by the mean square over a window of ``size`` channels around its own.

    Args:
        x: (N,C,…) with at least one axis after C, float32 or float64.
        size: channels in a window, at least 1; may be more than C.
        alpha: factor of the mean square; channels beyond the edges count as zeros in the mean.
        beta: exponent.
        k: added to the mean square.

    Returns:
        ``out`` of x's shape and dtype, and the cache for :func:`backward`.

    Raises:
        TypeError: ``x`` is not a float32 or float64 array, ``size`` not an int, or another parameter not a number.
        ValueError: ``x`` has fewer than 3 axes, or ``size`` is below 1.
    """
    x = checks.array("local_response_norm", "x", x)
    if x.ndim < 3:
        raise ValueError(f"local_response_norm: x must have shape (N,C,…) with at least 3 axes, got {x.shape}")
    C = x.shape[1]
    size = checks.integer("local_response_norm", "size", size, low=1)
    alpha = checks.real("local_response_norm", "alpha", alpha)
    beta = checks.real("local_response_norm", "beta", beta)
    k = checks.real("local_response_norm", "k", k)
    by_roots = beta == 0.75 and alpha >= 0 and k >= 0
    return RUNGS.forward(x, Window(min(size // 2, C), min((size - 1) // 2, C), alpha / size, beta, k, by_roots))


def backward(grad_out: np.ndarray, cache: Cache) -> tuple[np.ndarray]:
    """The gradient with respect to ``x``.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.

    Returns:
        ``(grad_x,)``.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not local_response_norm's.
        ValueError: ``grad_out`` has another shape.
    """
    return RUNGS.backward(grad_out, cache)


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(x: np.ndarray, window: Window) -> tuple[np.ndarray, tuple[Any, ...]]:
    """One window after the other: the specification."""
    C = x.shape[1]
    scale, out = np.empty_like(x), np.empty_like(x)
    for n, c, *position in np.ndindex(x.shape):
        squares = x.dtype.type(0)
        for i in range(max(0, c - window.before), min(C, c + window.after + 1)):
            squares += x[n, i, *position] * x[n, i, *position]
        scale[n, c, *position] = window.k + window.alpha * squares
        out[n, c, *position] = x[n, c, *position] / _power(scale[n, c, *position], window.beta)
    return out, (x, scale, window)


def naive_backward(grad_out: np.ndarray, x: np.ndarray, scale: np.ndarray, window: Window) -> tuple[np.ndarray]:
    C = x.shape[1]
    pull, grad_x = np.empty_like(x), np.empty_like(x)
    for i in np.ndindex(x.shape):
        pull[i] = pull_of(grad_out[i], x[i], scale[i], window.beta)
    for n, j, *position in np.ndindex(x.shape):
        pulls = x.dtype.type(0)
        for c in range(max(0, j - window.after), min(C, j + window.before + 1)):
            pulls += pull[n, c, *position]
        direct = grad_out[n, j, *position] / _power(scale[n, j, *position], window.beta)
        grad_x[n, j, *position] = direct + x[n, j, *position] * (2 * window.alpha * pulls)
    return (grad_x,)


def pull_of(grad_out: Any, x: Any, scale: Any, beta: float) -> Any:
    """``-grad_out · x · beta · scale^(-beta-1)``, for one value or a whole array.

    The order of the factors is torch's: if scale is 0 or infinite, another order gives another limit.
    """
    if beta == 0:  # scale^0 is a constant, and torch treats it as one even if scale^-1 is infinite
        return np.zeros_like(x)
    power = _power(scale, beta)
    return -grad_out * (x / power / power) * (beta * _power(scale, beta - 1))


def _power(scale: Any, beta: Any) -> Any:
    """scale^beta. For beta = ±½ it is a root, as in torch: the root of -inf is NaN, while the power of -inf is inf or 0."""
    if beta == 0.5:
        return np.sqrt(scale)
    if beta == -0.5:
        return np.reciprocal(np.sqrt(scale))
    return scale**beta


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_forward(x: np.ndarray, window: Window) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Sum shifted arrays, all windows at once: the loop runs in C, but each shift is a pass over memory."""
    scale = window.k + window.alpha * _sum_of_shifted(x * x, window.before, window.after)
    return x / _power(scale, window.beta), (x, scale, window)


def numpy_backward(grad_out: np.ndarray, x: np.ndarray, scale: np.ndarray, window: Window) -> tuple[np.ndarray]:
    pull = pull_of(grad_out, x, scale, window.beta)
    # alpha multiplies the sum first, as in torch: alpha · x could be subnormal for a small x and lose bits.
    pulls = 2 * window.alpha * _sum_of_shifted(pull, window.after, window.before)
    return (grad_out / _power(scale, window.beta) + x * pulls,)


def _sum_of_shifted(values: np.ndarray, before: int, after: int) -> np.ndarray:
    """(N,C,…) -> (N,C,…): for every channel c the sum over c-before … c+after, with zeros beyond the edges."""
    N, C, *positions = values.shape
    padded = np.zeros((N, before + C + after, *positions), values.dtype)
    padded[:, before : before + C] = values
    total = padded[:, :C].copy()
    for shift in range(1, before + 1 + after):
        total += padded[:, shift : shift + C]
    return total


# --- numba ------------------------------------------------------------------------------------------------------------

_power_of_one = kernel(_power)
TILE = 1024  # positions at a time: long rows stream well from memory, and a window of them stays in the cache


def numba_forward(x: np.ndarray, window: Window) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Take all channels of a tile of positions at a time: sums stay in the cache, and backward recomputes scale."""
    out = memory.empty_like(x)
    by_place = _merge_places(x)
    for_each(_forward_kernel, _pieces(by_place), by_place, window, _merge_places(out))
    return out, (x, window)


def numba_backward(grad_out: np.ndarray, x: np.ndarray, window: Window) -> tuple[np.ndarray]:
    grad_x = memory.empty_like(x)
    by_place = _merge_places(x)
    for_each(_backward_kernel, _pieces(by_place), _merge_places(grad_out), by_place, window, _merge_places(grad_x))
    return (grad_x,)


def _merge_places(x: np.ndarray) -> np.ndarray:
    """(N,C,H,W,…) -> (N, C, H·W·…)."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _pieces(x: np.ndarray) -> int:
    """The number of work items for (N,C,P): an item is a tile of one image."""
    N, _, P = x.shape
    pieces: int = N * -(-P // TILE)
    return pieces


@kernel
def _forward_kernel(first: int, last: int, x: np.ndarray, window: Window, out: np.ndarray) -> None:
    _, C, P = x.shape
    tiles = -(-P // TILE)
    alpha, k, beta = x.dtype.type(window.alpha), x.dtype.type(window.k), x.dtype.type(window.beta)
    size = window.before + 1 + window.after
    flat = x.reshape(x.size)
    for piece in range(first, last):
        n, start = piece // tiles, piece % tiles * TILE
        stop = min(P, start + TILE)
        # The squares of a window's channels: channel i is in row i mod size; the row of a channel that does not exist is zeros.
        squares, total = np.zeros((size, stop - start), x.dtype), np.empty(stop - start, x.dtype)
        for i in range(C + window.after):  # channel i enters, which completes the window of channel c
            # Prefetch the next channel: a tile's row is too short for the processor to predict the next reads.
            prefetch(flat, (n * C + i + 1) * P + start, stop - start)  # x[n, i + 1, start:stop]
            _enter(x[n], i, start, stop, squares)
            c = i - window.after
            if c >= 0:
                _sum_rows(squares, total)
                row, out_row = x[n, c, start:stop], out[n, c, start:stop]
                if window.by_roots:
                    for p in range(row.size):
                        root = np.sqrt(k + alpha * total[p])
                        out_row[p] = row[p] / (root * np.sqrt(root))
                else:
                    for p in range(row.size):
                        out_row[p] = row[p] / _power_of_one(k + alpha * total[p], beta)


@kernel
def _backward_kernel(first: int, last: int, grad_out: np.ndarray, x: np.ndarray, window: Window, grad_x: np.ndarray) -> None:
    _, C, P = x.shape
    tiles = -(-P // TILE)
    alpha, k = x.dtype.type(window.alpha), x.dtype.type(window.k)
    one, beta, slope = x.dtype.type(1), x.dtype.type(window.beta), x.dtype.type(window.beta - 1)
    twice_alpha = x.dtype.type(2 * window.alpha)
    size = window.before + 1 + window.after
    flat, flat_grad = x.reshape(x.size), grad_out.reshape(x.size)
    for piece in range(first, last):
        n, start = piece // tiles, piece % tiles * TILE
        stop = min(P, start + TILE)
        squares, pulls = np.zeros((size, stop - start), x.dtype), np.zeros((size, stop - start), x.dtype)
        total = np.empty(stop - start, x.dtype)
        for i in range(C + window.after + window.before):
            prefetch(flat, (n * C + i + 1) * P + start, stop - start)
            _enter(x[n], i, start, stop, squares)
            c = i - window.after
            slot = c % size
            if c >= C:
                for p in range(stop - start):
                    pulls[slot, p] = 0
            elif c >= 0:
                _sum_rows(squares, total)
                prefetch(flat_grad, (n * C + c + 1) * P + start, stop - start)  # grad_out[n, c + 1, start:stop]
                row, g, grad_row = x[n, c, start:stop], grad_out[n, c, start:stop], grad_x[n, c, start:stop]
                if window.by_roots:
                    for p in range(row.size):
                        root = np.sqrt(k + alpha * total[p])
                        fourth_root = np.sqrt(root)
                        inverse = one / (root * fourth_root)
                        grad_row[p] = g[p] * inverse
                        pulls[slot, p] = -g[p] * (row[p] * inverse * inverse) * (beta / fourth_root)
                elif window.beta != 0:
                    for p in range(row.size):
                        scale = k + alpha * total[p]
                        power = _power_of_one(scale, beta)
                        grad_row[p] = g[p] / power
                        pulls[slot, p] = -g[p] * (row[p] / power / power) * (beta * _power_of_one(scale, slope))
                else:
                    for p in range(row.size):
                        grad_row[p] = g[p]
            j = c - window.before
            if j >= 0:  # pulls now holds all channels whose window contains j
                _sum_rows(pulls, total)
                row, grad_row = x[n, j, start:stop], grad_x[n, j, start:stop]
                for p in range(row.size):
                    grad_row[p] += row[p] * (twice_alpha * total[p])


@kernel
def _enter(image: np.ndarray, i: int, start: int, stop: int, squares: np.ndarray) -> None:
    """The square of channel ``i`` replaces the square of the channel that leaves the window."""
    slot = i % len(squares)
    if i < len(image):
        row = image[i, start:stop]
        for p in range(row.size):
            squares[slot, p] = row[p] * row[p]
    else:
        for p in range(stop - start):
            squares[slot, p] = 0


@kernel
def _sum_rows(rows: np.ndarray, total: np.ndarray) -> None:
    """``total = Σ rows``: AlexNet's five rows at once, so that the total is not stored and loaded in between."""
    if len(rows) >= 5:
        i = 5
        for p in range(total.size):
            total[p] = rows[0, p] + rows[1, p] + rows[2, p] + rows[3, p] + rows[4, p]
    else:
        i = 1
        for p in range(total.size):
            total[p] = rows[0, p]
    while i < len(rows):
        for p in range(total.size):
            total[p] += rows[i, p]
        i += 1


RUNGS = Ladder(
    "local_response_norm",
    Rung("naive", naive_forward, naive_backward),
    Rung("numpy", numpy_forward, numpy_backward),
    Rung("numba", numba_forward, numba_backward),
)
