"""The bound of conv2d's rung ``winograd``, which rounds different numbers than the definition.

It computes Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A, summed over channels and over the pieces of 3×3 that a larger window is cut into. Every step
is a sum with fixed weights or a sum of products, so what :meth:`Rounding.bilinear` says of one sum of products holds for the
whole: the error is at most gamma_n times the same formula with all signs plus, where n is the number of roundings on the longest
path from an input to the result. That formula is no longer |g|·|d|: it also counts cells outside the window, which cancel in the
value but not in its rounding.

The halves in G are exact, because the rung declines taps that are too small to be halved. It also declines numbers so large that
the formula with all signs plus might overflow. Where it takes a call, it must give a result wherever the definition has one.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from alexnet_from_scratch.proof import reference
from alexnet_from_scratch.proof.bounds import Bounded, Rounding

B = np.abs(np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]))
A = np.abs(np.array([[1, 1, 1, 0], [0, 1, -1, -1]]))
G = np.abs(np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]))
ROUNDINGS = {"B": 2, "A": 4, "G": 4, "Aᵀ": 2}  # of each L X Lᵀ: the additions of its longest row, once down and once across


def takes(x: Any, weight: Any, bias: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: Any = 1) -> bool:
    """Whether the rung takes the call."""
    window = np.array(weight.shape[2:])
    sides = np.isin(window, (3, 5, 6)).all() and (isinstance(padding, str) or (np.array(padding) < window).all())
    if not (sides and np.max(stride) == 1 and np.max(dilation) == 1 and x.size):
        return False
    info = np.finfo(x.dtype)
    tiny = (weight != 0) & (np.abs(weight) < 4 * info.tiny)
    within = limit(x, weight, padding, groups)
    bounded = [(x, within), (weight, within)] + [(bias, info.max / 2)] * (bias is not None)
    return not np.any(tiny) and all((np.abs(array) <= largest).all() for array, largest in bounded)  # false for NaN


def limit(x: Any, weight: Any, padding: Any, groups: int) -> Any:
    """The largest number that the rung accepts in x, weight and grad_out.

    With larger numbers, |A|·[(|G| g |G|ᵀ) ⊙ (|B| d |B|ᵀ)]·|A|ᵀ and
    its counterparts for the gradients, summed over all channels or tiles, may exceed half of the largest float.
    """
    OC, C, KH, KW = weight.shape
    total = {"same": (KH - 1, KW - 1), "valid": (0, 0)}[padding] if isinstance(padding, str) else 2 * np.broadcast_to(padding, 2)
    OH, OW = np.array(x.shape[-2:]) + total - (KH - 1, KW - 1)
    tiles = math.prod(x.shape[:-3]) * -(-OH // 2) * -(-OW // 2)
    terms = max(-(-KH // 3) * -(-KW // 3) * max(C, OC // groups), tiles)
    ones = np.ones((4, 4))
    forward = (A @ (G @ np.ones((3, 3)) @ G.T * (B @ ones @ B.T)) @ A.T).max()
    weights = (G.T @ (A.T @ np.ones((2, 2)) @ A * (B @ ones @ B.T)) @ G).max()
    return x.dtype.type(np.sqrt(np.finfo(x.dtype).max / 2 / (max(forward, weights) * terms)))


def conv2d(rounding: Rounding, x: Any, weight: Any, bias: Any = None, **params: Any) -> reference.Result:
    """The definition's result, with the rung's own bound where that is larger."""
    (out,), direct = reference.conv2d(rounding, x, weight, bias, **params)
    if not takes(x, weight, bias, **params):
        return (out,), direct
    padding, groups = params.get("padding", 0), params.get("groups", 1)
    KH, KW = weight.shape[2:]
    words = {"same": ((KH - 1) // 2, (KW - 1) // 2), "valid": (0, 0)}
    top, left = words[padding] if isinstance(padding, str) else np.broadcast_to(padding, 2)
    images = np.abs(x.reshape(-1, *x.shape[-3:]).astype(rounding.work))
    OC, C = weight.shape[:2]
    M = OC // groups
    filters = np.abs(weight.astype(rounding.work)).reshape(groups, M, C, KH, KW)
    corners = list(itertools.product(range(0, KH, 3), range(0, KW, 3)))

    def correlated(cells: np.ndarray, U: np.ndarray, top: int, left: int, H: int, W: int) -> np.ndarray:
        squares = _input_squares(cells, corners, top, left, H, W)
        N, groups, _, rows, columns, _, _ = squares.shape
        # (4, 4, 1, G, M, pieces·C) @ (4, 4, N, G, pieces·C, tiles) -> (4, 4, N, G, M, tiles)
        filters = np.moveaxis(U, (-2, -1), (0, 1))[:, :, np.newaxis]
        products = filters @ np.moveaxis(squares, (-2, -1), (0, 1)).reshape(4, 4, N, groups, -1, rows * columns)
        tiles = _sandwich(A, np.moveaxis(products, (0, 1), (-2, -1))).reshape(N, -1, rows, columns, 2, 2)
        return tiles.swapaxes(3, 4).reshape(N, -1, 2 * rows, 2 * columns)[..., :H, :W]

    def widened(bound: Bounded, cells: np.ndarray, filters: np.ndarray, *place: int, n: int, bias: Any = 0) -> Bounded:
        magnitude = correlated(cells, _sandwich(G, _cut(filters)), *place) + bias
        return _at_least(bound, rounding.gamma(n) * magnitude + 9 * n * rounding.eta, magnitude)

    H, W = x.shape[-2:]
    OH, OW = out.value.shape[-2:]
    absolute = 0 if bias is None else np.abs(bias.astype(rounding.work))[:, np.newaxis, np.newaxis]
    n = len(corners) * C + ROUNDINGS["B"] + ROUNDINGS["G"] + ROUNDINGS["A"] + 1
    by_group = images.reshape(len(images), groups, C, H, W)
    out = widened(out, by_group, filters, top, left, OH, OW, n=n, bias=absolute)

    def backward(grad_out: np.ndarray) -> reference.Gradients:
        grad_x, grad_weight, grad_bias = direct(grad_out)
        if grad_x is None or grad_weight is None or not (np.abs(grad_out) <= limit(x, weight, padding, groups)).all():
            return grad_x, grad_weight, grad_bias
        g = np.abs(grad_out.reshape(-1, groups, M, OH, OW).astype(rounding.work))
        flipped = filters.swapaxes(1, 2)[..., ::-1, ::-1]
        n = len(corners) * M + ROUNDINGS["B"] + ROUNDINGS["G"] + ROUNDINGS["A"]
        grad_x = widened(grad_x, g, flipped, KH - 1 - top, KW - 1 - left, H, W, n=n)
        V = _input_squares(by_group, corners, top, left, OH, OW)
        U = _sandwich(A.T, _tiled(g))
        n = V[:, 0, 0, ..., 0, 0].size + ROUNDINGS["B"] + ROUNDINGS["Aᵀ"] + ROUNDINGS["G"]
        # (4, 4, G, M, N·tiles) @ (4, 4, G, N·tiles, pieces·C) -> (4, 4, G, M, pieces·C)
        products = _by_place(U) @ _by_place(V).swapaxes(-2, -1)
        magnitude = _joined(_sandwich(G.T, np.moveaxis(products, (0, 1), (-2, -1))), C, KH, KW).reshape(weight.shape)
        return grad_x, _at_least(grad_weight, rounding.gamma(n) * magnitude + 9 * n * rounding.eta, magnitude), grad_bias

    return (out,), backward


def _cut(filters: np.ndarray) -> np.ndarray:
    """Cut into pieces of 3×3, padded with zeros: (G,M,C,KH,KW) -> (G, M, pieces·C, 3, 3)."""
    groups, M, C, KH, KW = filters.shape
    whole = np.pad(filters, ((0, 0), (0, 0), (0, 0), (0, -KH % 3), (0, -KW % 3)))
    # (G, M, C, down, 3, across, 3) -> (G, M, down, across, C, 3, 3)
    pieces = whole.reshape(groups, M, C, -(-KH // 3), 3, -(-KW // 3), 3).transpose(0, 1, 3, 5, 2, 4, 6)
    return pieces.reshape(groups, M, -1, 3, 3)


def _joined(pieces: np.ndarray, C: int, KH: int, KW: int) -> np.ndarray:
    """Join the pieces into windows again: (G,M,pieces·C,3,3) -> (G,M,C,KH,KW)."""
    groups, M = pieces.shape[:2]
    down, across = -(-KH // 3), -(-KW // 3)
    whole = pieces.reshape(groups, M, down, across, C, 3, 3).transpose(0, 1, 4, 2, 5, 3, 6)
    return whole.reshape(groups, M, C, 3 * down, 3 * across)[..., :KH, :KW]


def _input_squares(cells: np.ndarray, corners: list[tuple[int, int]], top: int, left: int, H: int, W: int) -> np.ndarray:
    """|Bᵀ| d |B| of every tile, for each piece: (N,G,C,H',W') -> (N, G, pieces·C, ⌈H/2⌉, ⌈W/2⌉, 4, 4)."""
    rows, columns = (-(-size // 2) for size in (H, W))
    (kh, kw), (height, width) = corners[-1], cells.shape[-2:]
    bottom, right = 2 * rows + 2 + kh - top - height, 2 * columns + 2 + kw - left - width
    framed = np.pad(cells, ((0, 0), (0, 0), (0, 0), (top, max(bottom, 0)), (left, max(right, 0))))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (4, 4), (-2, -1))
    patches = [windows[..., kh::2, kw::2, :, :][:, :, :, :rows, :columns] for kh, kw in corners]
    return _sandwich(B, np.concatenate(patches, 2))


def _sandwich(L: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """L X Lᵀ for the squares X in the last two axes."""
    return np.einsum("ai,...ij,bj->...ab", L, squares, L, optimize=True)


def _by_place(squares: np.ndarray) -> np.ndarray:
    """(N,G,C,rows,columns,4,4) -> (4, 4, G, C, N·rows·columns)."""
    _, groups, C, *_ = squares.shape
    return squares.transpose(5, 6, 1, 2, 0, 3, 4).reshape(4, 4, groups, C, -1)


def _tiled(g: np.ndarray) -> np.ndarray:
    """(N,G,M,OH,OW) -> (N, G, M, ⌈OH/2⌉, ⌈OW/2⌉, 2, 2), with zeros beyond the border."""
    N, groups, M, OH, OW = g.shape
    even = np.pad(g, ((0, 0), (0, 0), (0, 0), (0, OH % 2), (0, OW % 2)))
    return even.reshape(N, groups, M, (OH + 1) // 2, 2, (OW + 1) // 2, 2).swapaxes(-3, -2)


def _at_least(bound: Bounded, error: np.ndarray, magnitude: np.ndarray) -> Bounded:
    """``bound``, with ``error`` where that is larger."""
    shape = bound.value.shape
    settled = bound.rounding.settle(bound.value, 0, error.reshape(shape), magnitude.reshape(shape))
    return Bounded(bound.value, np.maximum(bound.error, settled.error), bound.rounding)
