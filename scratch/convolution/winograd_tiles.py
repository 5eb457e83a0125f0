"""The parts of Winograd's products: filters, the 3×3 pieces of a larger window, and the tiles of the image."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from scratch.convolution.geometry import Geometry
from scratch.convolution.packing import Layout
from scratch.convolution.winograd_transforms import SQUARE


class Filters(NamedTuple):
    """A weight seen as (G,M,C) filters: each of M result channels is a sum over C channels. grad_x uses it flipped."""

    weight: np.ndarray  # flat
    groups: int
    M: int
    C: int
    steps: tuple[int, int, int]  # elements from one group to the next, from m to m + 1, from c to c + 1
    order: np.ndarray  # (KH,KW): the index, in a filter, of the tap (kh,kw)

    @staticmethod
    def of(weight: np.ndarray, groups: int, flipped: bool = False) -> Filters:
        OC, C, KH, KW = weight.shape
        M, taps = OC // groups, KH * KW
        order = np.arange(taps).reshape(KH, KW)
        if flipped:  # (OC,C/G,KH,KW) -> (G, C/G, OC/G, KH, KW)
            return Filters(weight.ravel(), groups, C, M, (M * C * taps, taps, C * taps), np.ascontiguousarray(order[::-1, ::-1]))
        return Filters(weight.ravel(), groups, M, C, (M * C * taps, C * taps, taps), order)


class Pieces(NamedTuple):
    """The pieces of a KH×KW window, ordered so that the pieces with products for any one element of a tile are contiguous."""

    taps: np.ndarray  # (pieces, 2): the first tap (kh,kw) of each
    needed: np.ndarray  # (pieces, ELEMENTS): whether the piece has products for the element
    reach: tuple[int, int]  # from the first cell of all patches to the last, down and across

    @staticmethod
    @functools.cache  # saves a tenth of a millisecond, which counts for a single image
    def of(KH: int, KW: int) -> Pieces:
        def low(kh: int) -> bool:  # the piece reaches below the window, so its g2 is 0: no products in the square's last row
            return kh + 2 >= KH

        def narrow(kw: int) -> bool:  # likewise on the right: no products in the last column
            return kw + 2 >= KW

        # Four kinds, in this order: narrow, neither, low, both. The first two have products in the last row, the second and third
        # in the last column, only the second in the corner, and all four elsewhere. So each of these is one contiguous range.
        corners = itertools.product(range(0, KH, 3), range(0, KW, 3))
        taps = sorted(corners, key=lambda tap: (low(tap[0]), low(tap[0]) == narrow(tap[1])))
        needed = [[(row < 3 or not low(kh)) and (column < 3 or not narrow(kw)) for row, column in SQUARE] for kh, kw in taps]
        return Pieces(np.array(taps), np.array(needed), (max(taps)[0] + 3, max(taps)[1] + 3))


def limit_of(x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> Any:
    """The limit for numbers in x, weight and grad_out: up to it, no intermediate sum can overflow, forward or backward.

    In one dimension an output uses the products of three elements, (0, 1, 2) or (1, 2, 3). There V is at most 2, 2, 2, 2 times
    the largest cell, and U at most 1, 3/2, 3/2, 1 times the largest tap. Together that is 2·1 + 2·3/2 + 2·3/2 = 8, hence
    8·8 = 64 in two dimensions. grad_weight has |Gᵀ| · |A| · |Bᵀ|: 1·1·2 + 1/2·2·2 + 1/2·2·2 = 6, hence 36. So a sum over
    ``terms`` channels or tiles is at most 64 · terms · limit²; the sum in the definition, for a 3×3 window, is at most
    9 · terms · limit².

    The sum is kept below half of the largest number. The other half is left for rounding and for the bias.
    """
    OC, C, KH, KW = weight.shape
    channels = len(Pieces.of(KH, KW).taps) * max(C, OC // geometry.groups)  # summed forward, or for grad_x
    tiles = len(x) * math.ceil(geometry.OH / 2) * math.ceil(geometry.OW / 2)  # summed for grad_weight
    return x.dtype.type(math.sqrt(np.finfo(x.dtype).max / 2 / 64 / max(channels, tiles)))


def tile_layout(shape: tuple[int, ...], top: int, left: int, height: int, width: int) -> Layout:
    """The layout of a padded input of that height and width, in which neighbouring tiles begin two cells apart."""
    _, _, H, W = shape
    return Layout.around(shape, top, height - top - H, left, width - left - W, 2)


def patch_of(layout: Layout, size: int, kh: int = 0, kw: int = 0) -> np.ndarray:
    """(size·size,): the offset of each cell, in the patch that begins at (kh,kw), from the tile's first cell."""
    h, w = kh + np.arange(size), kw + np.arange(size)
    return layout.taps(1, h[:, None], w % 2 * layout.columns + w // 2)
