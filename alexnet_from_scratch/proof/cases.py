"""For each operation, the strategy that draws its valid calls. Every axis is drawn independently, so N and C, or H and W, differ.

Calls are small: small ones find nearly every mistake, and shrink well. ``large`` ones fill micro-kernels and several threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from alexnet_from_scratch.proof.draws import Case, choice, draw_arrays, drawn, int_or_pair, values
from scratch.compiled.emission import VECTOR_BITS
from scratch.compiled.microkernel import MR, NR_VECTORS

Dtype = np.dtype[Any]
Palettes = Sequence[str] | None


def _both(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)


def _batch(draw: DrawFn, *image: int) -> tuple[int, ...]:
    """The image's shape, with a batch axis in front or without one. The batch is sometimes empty."""
    n = draw(choice(1, 2, 3, 0, None))
    return image if n is None else (n, *image)


def _shape(draw: DrawFn, large: bool, least: int = 0) -> tuple[int, ...]:
    """A shape of ``least`` to four axes, any of them empty. A ``large`` shape has one to three axes, one of them long."""
    if not large:
        return tuple(draw(st.lists(st.integers(0, 4), min_size=least, max_size=4)))
    shape = draw(st.lists(st.integers(1, 3), max_size=2))
    shape.insert(draw(st.integers(0, len(shape))), draw(st.integers(20, 300)))
    return tuple(shape)


@drawn
def relu(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None) -> Case:
    shape = _shape(draw, large)
    x, palette = draw_arrays(draw, dtype, shape, palettes=palettes)
    return Case((x,), {}, palette)


@drawn
def conv2d(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None, *, for_winograd: bool = False) -> Case:
    groups = draw(st.integers(1, 3))
    # Large cases fill a panel of filters, almost fill it, or begin the next one.
    c_group, oc_group = draw(st.integers(1, 3)), draw(choice(1, 12, 13, 14, 15, 20, 29) if large else choice(1, 2, 6))
    if for_winograd:
        KH, KW = draw(choice((3, 3), (5, 5), (3, 5), (5, 6), (6, 5), (3, 6), (6, 3), (3, 4), (4, 3)))  # winograd declines 4
    else:
        KH, KW = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        if draw(choice(False, False, False, False, True)):
            KH, KW = KH + 3, KW + 2  # up to seven rows
    # Winograd declines a few of its cases, too: those with dilation, and those with windows entirely in the padding.
    dilation = draw(choice(1, 1, 1, 1, 1, 1, 1, (1, 2))) if for_winograd else draw(int_or_pair(1, 2))
    word = draw(choice(None, None, "same", "valid"))
    # Some paddings are so wide that a window misses x altogether.
    wide = st.tuples(*(choice(0, k - 1, k) if for_winograd else st.integers(0, k + 1) for k in (KH, KW)))
    padding = word or draw(st.one_of(int_or_pair(0, min(2, KH, KW)), wide))
    stride = 1 if for_winograd or padding == "same" else draw(int_or_pair(1, 3))
    frame = (9, 9) if padding == "same" else (0, 0) if padding == "valid" else _both(padding)
    # Images are as small as the window allows, or up to four cells larger: some sizes are multiples of the stride, others are
    # not. Large cases often have more output pixels than one block of a sum over pixels: in many rows, or in a few long rows.
    cells = draw(choice(((14, 28), (14, 28)), ((0, 3), (120, 240)), None)) if large else ((0, 4), (0, 4))
    if cells:
        H, W = (
            max(1, reach * (k - 1) + 1 - 2 * p) + draw(st.integers(*more))
            for reach, k, p, more in zip(_both(dilation), (KH, KW), frame, cells, strict=True)
        )
    else:  # or the output pixels nearly fill a block, whose last vector then reaches past its end
        outputs = draw(choice((15, 17), (17, 15), (18, 14), (1, 255), (18, 28), *([(30, 34)] if for_winograd else [])))
        H, W = (
            out if padding == "same" else max(1, step * (out - 1) + reach * (k - 1) + 1 - 2 * p)
            for out, step, reach, k, p in zip(outputs, _both(stride), _both(dilation), (KH, KW), frame, strict=True)
        )
    shape = _batch(draw, groups * c_group, H, W)
    bias = (groups * oc_group,) if draw(st.booleans()) else None
    x, weight, bias, palette = draw_arrays(
        draw, dtype, shape, (groups * oc_group, c_group, KH, KW), bias, palettes=palettes, products=True
    )
    params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Case((x, weight, bias), params, palette)


def conv2d_for_winograd(dtype: Dtype, large: bool = False, palettes: Palettes = None) -> st.SearchStrategy[Case]:
    """Calls that winograd takes for the most part. Their windows are 3, 5 or 6 cells high and wide, and their stride is 1.

    A few have other windows, dilation, or windows that lie entirely outside x. Winograd declines these.
    """
    return conv2d(dtype, large, palettes, for_winograd=True)


@drawn
def linear(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None) -> Case:
    if large:
        # numba multiplies up to 16 rows in place. With more, one work item covers up to 112 features: of the output, or in
        # backward of the input. With few, it covers up to 512 of the input.
        leading = [draw(st.one_of(st.integers(1, 16), st.integers(17, 40)))]
        if draw(st.booleans()):
            IN, OUT = draw(st.integers(32, 150)), draw(st.one_of(st.integers(14, 40), st.integers(113, 240)))
        else:
            IN, OUT = draw(st.integers(513, 600)), draw(st.integers(14, 40))
    else:
        leading, IN, OUT = draw(st.lists(st.integers(0, 4), max_size=3)), draw(st.integers(1, 6)), draw(st.integers(1, 5))
    return _linear(draw, dtype, leading, OUT, IN, palettes)


@drawn
def linear_of_tiles(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None) -> Case:
    """Calls for the rung numba: with many rows and features, with just enough for its tiles, or with one too few."""
    if draw(st.booleans()):
        return draw(linear(dtype, True, palettes))
    NR = NR_VECTORS * VECTOR_BITS // (8 * dtype.itemsize)
    leading = draw(choice((1,), (2, 4), (16,), (17,)))
    OUT, IN = draw(choice(MR, MR - 1)), draw(choice(MR, NR, MR - 1, NR - 1))
    return _linear(draw, dtype, leading, OUT, IN, palettes)


def _linear(draw: DrawFn, dtype: Dtype, leading: Sequence[int], OUT: int, IN: int, palettes: Palettes) -> Case:
    bias = (OUT,) if draw(st.booleans()) else None
    x, weight, bias, palette = draw_arrays(draw, dtype, (*leading, IN), (OUT, IN), bias, palettes=palettes, products=True)
    return Case((x, weight, bias), {}, palette)


@drawn
def max_pool2d(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None) -> Case:
    kernel_size = draw(int_or_pair(1, 4))
    dilation = draw(int_or_pair(1, 2))
    kernel, reach = _both(kernel_size), _both(dilation)
    # torch allows padding of up to half a window.
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    # Large cases have large planes, or many planes. Many planes fill several vectors, of which the last is full or almost empty.
    many = large and draw(st.booleans())
    # Each side is at least as long as the distance between taps. In a shorter image a window may miss every cell, and torch's
    # index is then no cell's.
    H, W = (
        max(d, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 20 if large and not many else 4))
        for k, d, p in zip(kernel, reach, padding, strict=True)
    )
    C = draw(choice(16, 19) if many else st.integers(1, 2))
    shape = _batch(draw, C, H, W)
    if large and not many and draw(choice(False, False, False, True)):
        shape = (1, 258, 256)  # more cells than 16 bits can count
    x, palette = draw_arrays(draw, dtype, shape, palettes=palettes)
    params = {
        "kernel_size": kernel_size,
        "stride": draw(st.one_of(st.none(), int_or_pair(1, 3))),
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": draw(st.booleans()),
        "return_indices": draw(st.booleans()),
    }
    return Case((x,), params, palette)


@drawn
def adaptive_avg_pool2d(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None) -> Case:
    sides = st.integers(1, 20 if large else 6)
    shape = _batch(draw, draw(st.integers(1, 2)), draw(sides), draw(sides))
    x, palette = draw_arrays(draw, dtype, shape, palettes=palettes)
    size = st.integers(1, 7)
    output_size = draw(st.one_of(size, st.tuples(st.one_of(st.none(), size), st.one_of(st.none(), size))))
    return Case((x,), {"output_size": output_size}, palette)


@drawn
def local_response_norm(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None) -> Case:
    N, C = draw(st.integers(0, 3)), draw(st.integers(1, 7))
    shape = (N, C, *draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)), *([draw(st.integers(100, 300))] if large else []))
    x, palette = draw_arrays(draw, dtype, shape, palettes=palettes)
    params = {
        "size": draw(st.integers(1, 9)),  # odd and even, smaller and larger than C
        "alpha": draw(choice(1.0, 2.0, 0.3, 1e-4, 0.0, -0.3, math.inf)),  # 1e-4 alone would hardly reveal a wrong sum
        "beta": draw(choice(1.0, 0.75, 0.5, 1.3, 2.0, 0.0)),
        "k": draw(choice(1.0, 2.0, 0.1, 0.0, -1.5, math.inf)),
    }
    return Case((x,), params, palette)


@drawn
def softmax(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None) -> Case:
    shape = _shape(draw, large, least=1)
    x, palette = draw_arrays(draw, dtype, shape, palettes=palettes)
    return Case((x,), {"dim": draw(st.integers(-len(shape), len(shape) - 1))}, palette)


@drawn
def cross_entropy(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None) -> Case:
    C = draw(st.integers(1, 90 if large else 6))
    batch = draw(choice((3,), (4,), (1,), (0,), None))
    rest = tuple(draw(st.lists(st.integers(1, 3), max_size=2))) if batch else ()
    shape, positions = ((C,), ()) if batch is None else ((*batch, C, *rest), (*batch, *rest))
    logits, palette = draw_arrays(draw, dtype, shape, palettes=palettes)
    weight = draw(values(dtype, (C,), "after relu")) if draw(st.booleans()) else None
    smoothing = draw(choice(0.0, 0.1, 1.0))
    params = {"weight": weight, "reduction": draw(choice("mean", "sum", "none")), "label_smoothing": smoothing}
    if draw(choice(False, False, True)):
        target = draw(values(dtype, shape, "after relu"))
    else:
        params["ignore_index"] = ignored = draw(choice(-100, 0, 1, C, C + 7))
        # torch accepts uint8 only without further axes, and not with both weight and smoothing.
        bytes_too = not rest and (weight is None or smoothing == 0)
        kind = draw(choice(np.int64, np.uint8) if bytes_too else choice(np.int64))
        raw = draw(st.binary(min_size=math.prod(positions), max_size=math.prod(positions)))
        numbers = np.frombuffer(raw, np.uint8).astype(np.int64)
        # About one target in six is ignored, even if ``ignore_index`` is not a class.
        classes = np.where((numbers >= 216) & (kind == np.int64 or ignored >= 0), ignored, numbers % C)
        target = classes.astype(kind).reshape(positions)
    return Case((logits, target), params, palette)


@drawn
def dropout(draw: DrawFn, dtype: Dtype, large: bool = False, palettes: Palettes = None) -> Case:
    shape = _shape(draw, large)
    x, palette = draw_arrays(draw, dtype, shape, palettes=palettes)
    kept = draw(values(dtype, shape, "integers")) >= 0
    params = {
        "p": draw(choice(0.5, 0.1, 0.9, 0.0, 1.0, 1e-6, 0.001, 0.999)),
        "training": draw(st.booleans()),
        "mask": np.asarray(kept),
    }
    return Case((x,), params, palette)
