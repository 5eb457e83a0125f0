"""Winograd's filters: transformed, packed, and in evaluation kept until the weight changes.

Training changes the weight in each step. In evaluation it stays the same, and for one image transforming it takes a large part
of the convolution's time. So a module in eval mode calls :func:`keep`. Any code may change the weight at any time, and NumPy does
not report it. Therefore each call in eval mode first compares the weight, bit by bit, with a copy. Comparing takes much less
time than transforming.
"""

from __future__ import annotations

import functools
import math
import weakref
from typing import Any, NamedTuple

import numpy as np

from scratch.compiled import memory
from scratch.compiled.handover import fill
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import MR
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import lanes, stream, transpose
from scratch.convolution.packing import all_within
from scratch.convolution.winograd_tiles import Filters
from scratch.convolution.winograd_transforms import ELEMENTS, weight_transform
from scratch.core.ladder import NotTakenError

STRETCH = 1 << 12  # elements of a weight that are compared at once


class TransformedFilters(NamedTuple):
    """U = G g Gᵀ, packed for the micro-kernel, and the bias of every channel of the result."""

    U: np.ndarray  # (G·⌈M/MR⌉, ELEMENTS, K + 1, MR): the last vector may write into the last row
    panel: int  # elements from one panel to the next, in whole vectors
    bias: np.ndarray


class _Made(NamedTuple):
    """What was made from a weight, and what it was made from."""

    filters: Filters  # with a copy of the weight
    limit: Any  # every tap was within it
    U: np.ndarray
    panel: int


class _Kept:
    """A weight whose transformed filters are kept."""

    __slots__ = ("made", "weight")

    def __init__(self, weight: np.ndarray) -> None:
        # When the weight is freed, its entry is removed. That is one call in C, with the dead reference as pop's default.
        self.weight = weakref.ref(weight, functools.partial(_kept.pop, _address(weight)))
        self.made: _Made | None = None


_kept: dict[int, _Kept] = {}  # by the weight's address


def keep(weight: np.ndarray) -> None:
    """Keep the transformed filters of this weight, until :func:`forget` or until the array is gone."""
    if _address(weight) not in _kept:
        _kept[_address(weight)] = _Kept(weight)


def forget(weight: np.ndarray) -> None:
    """Give back what :func:`keep` asked for."""
    _kept.pop(_address(weight), None)


def _address(array: np.ndarray) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def transformed(filters: Filters, corners: np.ndarray, bias: np.ndarray, limit: Any) -> TransformedFilters:
    """U = G g Gᵀ of each piece g that begins at one of these corners: those that were kept, or new ones.

    Raises:
        NotTakenError: a tap is beyond ``limit`` or NaN, or so small that a quarter of it is not exact.
    """
    kept = _kept.get(_address(filters.weight))
    if kept is None:
        return TransformedFilters(*_transform(filters, corners, limit), bias)
    made = kept.made
    if made is None or made.limit > limit or not _same(filters, made.filters):
        copied = filters._replace(weight=memory.copy(filters.weight))
        made = kept.made = _Made(copied, limit, *_transform(copied, corners, limit))
    return TransformedFilters(made.U, made.panel, bias)


def _same(one: Filters, other: Filters) -> bool:
    """Whether all taps have the same bits, and the same places."""
    if one[1:-1] != other[1:-1] or not np.array_equal(one.order, other.order) or one.weight.dtype != other.weight.dtype:
        return False
    words = f"u{one.weight.itemsize}"  # as floats, NaN would differ from itself, and -0.0 would equal 0.0
    stretches = math.ceil(one.weight.size / STRETCH)
    same = memory.empty((stretches,), np.dtype(np.bool_))
    for_each(_same_kernel, stretches, one.weight.view(words), other.weight.view(words), same, values=STRETCH)
    return bool(same.all())


@kernel
def _same_kernel(first: int, last: int, one: np.ndarray, other: np.ndarray, same: np.ndarray) -> None:
    """A work item is a stretch of both weights."""
    for i in range(first, last):
        here, there = one[i * STRETCH : (i + 1) * STRETCH], other[i * STRETCH : (i + 1) * STRETCH]
        differ = here[0] ^ there[0]
        for j in range(here.size):
            differ |= here[j] ^ there[j]  # no early exit, so LLVM vectorizes the loop
        same[i] = differ == 0


def _transform(filters: Filters, corners: np.ndarray, limit: Any) -> tuple[np.ndarray, int]:
    """U, as :func:`_weight_kernel` writes it, and the elements from one panel to the next."""
    KH, KW = filters.order.shape
    # (pieces, 9): the index, in a filter, of each tap of a piece; -1 for taps outside the window, which count as zeros.
    order = np.pad(filters.order, [(0, 2), (0, 2)], constant_values=-1)
    taps = np.stack([order[kh : kh + 3, kw : kw + 3].ravel() for kh, kw in corners])
    side = lanes(filters.weight)
    whole = math.ceil(MR / side) * side
    panels = filters.groups * math.ceil(filters.M / MR)
    size = ELEMENTS * (len(corners) * filters.C + 1) * MR
    panel = math.ceil(size / side) * side
    U = memory.workspace(panels * panel, filters.weight.dtype)
    # All numbers of at least this size, and their sums, are whole multiples of four times the smallest subnormal number.
    least = filters.weight.dtype.type(4 * np.finfo(filters.weight.dtype).tiny)
    within = memory.empty((panels,), np.dtype(np.bool_))

    def run(first: int, last: int, past: bool) -> None:
        cells = memory.workspace((filters.C * KH * KW + 1) * whole, filters.weight.dtype)
        one = memory.workspace(panel, filters.weight.dtype)
        _weight_kernel(first, last, filters, taps, limit, least, cells, one, U, within, past)

    fill(run, panels, U, values=ELEMENTS * len(corners) * filters.C * MR)
    if not within.all():
        raise NotTakenError(f"conv2d: winograd takes weights from ±{least:.3g} to ±{limit:.3g} and 0 only")
    return U, panel


@kernel
def _weight_kernel(
    first: int,
    last: int,
    filters: Filters,
    taps: np.ndarray,
    limit: Any,
    least: Any,
    cells: np.ndarray,
    panel: np.ndarray,
    U: np.ndarray,
    within: np.ndarray,
    past: bool,
) -> None:
    """A work item is MR channels of the result, one packed panel. A vector holds one tap of several filters.

    weight -> cells (C·KH·KW, whole vectors of MR) -> U (G·⌈M/MR⌉, ELEMENTS, pieces·C + 1, MR), each panel first in ``panel`` if
    U is written past the caches. ``taps`` (pieces, 9): the index in a filter of each tap of a piece, or -1. ``within``
    (G·⌈M/MR⌉,) gets True for each panel whose taps are allowed.
    """
    weight, _, M, C, (group_step, row_step, channel_step), order = filters
    size = order.size  # taps of a filter
    side = lanes(weight)
    whole = (MR + side - 1) // side * side  # MR, rounded up to whole vectors
    offsets, positions = np.empty(whole, np.intp), np.empty(taps.shape[1], np.intp)
    zeros = C * size * whole
    cells[zeros : zeros + whole] = 0  # after all filters
    together = C if channel_step == size else 1  # channels whose filters are contiguous
    panels = (M + MR - 1) // MR
    step = (len(taps) * C + 1) * MR  # from U[i, element] to U[i, element + 1]
    for i in range(first, last):
        group, top = i // panels, i % panels * MR
        for r in range(whole):
            offsets[r] = min(top + r, M - 1) * row_step  # weight[:, top + r]; rows beyond M repeat the last one
        for c in range(0, C, together):
            at = group * group_step + c * channel_step  # weight[group, 0, c]
            transpose(weight, at, offsets, together * size, cells, c * size * whole, whole)  # -> cells[c]
        within[i] = all_within(cells[:zeros], limit, least)
        target, target_at = (panel, 0) if past else (U, i * panel.size)  # U[i]
        for k in range(len(taps) * C):
            piece, c = divmod(k, C)
            for j in range(len(positions)):
                tap = taps[piece, j]
                positions[j] = (c * size + tap) * whole if tap >= 0 else zeros  # cells[c, tap], or the zeros
            for r in range(0, whole, side):
                weight_transform(cells, r, positions, target, target_at + k * MR + r, step)  # U[i, :, k, r]
        if past:
            stream(panel, 0, U, i * panel.size, panel.size)  # U[i]
