"""2-D convolution (cross-correlation, as every framework means it), with stride, padding, dilation and groups.

    out[n,oc,oh,ow] = bias[oc] + Σ_{c,kh,kw} padded[n, c, oh·stride + kh·dilation, ow·stride + kw·dilation] · weight[oc,c,kh,kw]

where ``padded`` is ``x`` with zeros around it, and c runs over the C/groups input channels of oc's group. Backward, with
g = grad_out, is the same kind of sum over other axes:

    grad_weight[oc,c,kh,kw] = Σ_{n,oh,ow} g[n,oc,oh,ow] · padded[n, c, oh·stride + kh·dilation, ow·stride + kw·dilation]
    grad_padded[n,c,h,w]    = Σ g[n,oc,oh,ow] · weight[oc,c,kh,kw]   over all outputs and taps that read the cell (h,w) in forward
    grad_bias[oc]           = Σ_{n,oh,ow} g[n,oc,oh,ow]

and grad_x is grad_padded without the padding.

Shapes: x (N,C,H,W), weight (OC,C/groups,KH,KW), bias (OC,), out (N,OC,OH,OW).
Paper: Krizhevsky, Sutskever, Hinton 2012, section 3.5. Same as ``torch.nn.functional.conv2d``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from scratch.compiled import memory
from scratch.compiled.jit import kernel
from scratch.compiled.products import matmul
from scratch.compiled.threads import for_each
from scratch.convolution.geometry import Geometry, Gradients, geometry_of
from scratch.convolution.implicit_gemm import implicit_gemm_backward, implicit_gemm_forward
from scratch.convolution.winograd import winograd_backward, winograd_forward
from scratch.core import checks
from scratch.core.ladder import Cache, Ladder, Rung

__all__ = ["RUNGS", "backward", "forward"]


def forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> tuple[np.ndarray, Cache]:
    """Slide ``weight`` over ``x``.

    Args:
        x: (N,C,H,W) or (C,H,W), float32 or float64.
        weight: (OC,C/groups,KH,KW), of x's dtype.
        bias: (OC,), of x's dtype, or None.
        stride: step of the window, at least 1; an int or a pair (vertical, horizontal), as are padding and dilation.
        padding: zeros around the image; 'valid' is 0; 'same' keeps H and W and needs stride 1.
        dilation: distance between the window's taps, at least 1.
        groups: the number of blocks into which channels are split; outputs of a block read only inputs of that block.

    Returns:
        ``out`` (N,OC,OH,OW), or (OC,OH,OW) for unbatched x, and the cache for :func:`backward`.

    Raises:
        TypeError: an array is not float32 or float64, the dtypes differ, or a parameter has the wrong type.
        ValueError: shapes do not fit each other, a parameter is out of its range, or an array does not fit into memory.
    """
    batch, unbatched = checks.image("conv2d", "x", x)
    weight = checks.array("conv2d", "weight", weight, dtype=batch.dtype)
    if weight.ndim != 4:
        raise ValueError(f"conv2d: weight must have shape (OC,C/groups,KH,KW), got {weight.shape} with x {x.shape}")
    if bias is not None:
        bias = checks.array("conv2d", "bias", bias, dtype=batch.dtype)
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"conv2d: bias must have shape {weight.shape[:1]} for weight {weight.shape}, got {bias.shape}")
    geometry = geometry_of(x.shape, weight.shape, stride, padding, dilation, groups)
    N, C, H, W = batch.shape
    padded = (N, C, H + geometry.top + geometry.bottom, W + geometry.left + geometry.right)
    checks.room("conv2d", "padding", padding, "the padded image", padded, batch.dtype)
    checks.room("conv2d", "weight", weight, "the output", (N, len(weight), geometry.OH, geometry.OW), batch.dtype)
    return RUNGS.forward(batch, weight, bias, geometry, unbatched=unbatched)


def backward(grad_out: np.ndarray, cache: Cache, *, need_grad_x: bool = True) -> Gradients:
    """The gradients with respect to ``x``, ``weight`` and ``bias``.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.
        need_grad_x: False leaves grad_x out, about half of the work; a network's first layer does not need grad_x.

    Returns:
        ``(grad_x, grad_weight, grad_bias)``, each with its array's shape. grad_x is None if it is not needed, grad_bias if
        there is no bias.

    Raises:
        TypeError: ``grad_out`` has another dtype, ``cache`` is not conv2d's, or ``need_grad_x`` is not a bool.
        ValueError: ``grad_out`` has another shape.
    """
    need_grad_x = checks.flag("conv2d.backward", "need_grad_x", need_grad_x)
    grad_x, grad_weight, grad_bias = RUNGS.backward(grad_out, cache, need_grad_x=need_grad_x)
    return grad_x, grad_weight, grad_bias


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """The sum as written, one product after the other: the specification."""
    OC, C_group, KH, KW = weight.shape
    padded = _pad(x, geometry)
    out = np.zeros((len(x), OC, geometry.OH, geometry.OW), x.dtype)
    for n, oc, oh, ow in np.ndindex(out.shape):
        for c, kh, kw in np.ndindex(C_group, KH, KW):
            out[n, oc, oh, ow] += padded[n, *_cell(oc, c, oh, ow, kh, kw, weight.shape, geometry)] * weight[oc, c, kh, kw]
        if bias is not None:
            out[n, oc, oh, ow] += bias[oc]
    return out, (x, weight, bias is not None, geometry)


def naive_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    padded = _pad(x, geometry)
    grad_padded = np.zeros_like(padded)
    grad_weight = np.zeros_like(weight)
    grad_bias = np.zeros(len(weight), x.dtype)
    for n, oc, oh, ow in np.ndindex(grad_out.shape):
        g = grad_out[n, oc, oh, ow]
        # The same loop as forward's. What forward reads, backward adds to.
        for c, kh, kw in np.ndindex(weight.shape[1:]):
            cell = (n, *_cell(oc, c, oh, ow, kh, kw, weight.shape, geometry))
            grad_weight[oc, c, kh, kw] += g * padded[cell]
            grad_padded[cell] += g * weight[oc, c, kh, kw]
        grad_bias[oc] += g
    return _unpad(grad_padded, x, geometry) if need_grad_x else None, grad_weight, grad_bias if has_bias else None


def _cell(
    oc: int, c: int, oh: int, ow: int, kh: int, kw: int, weight_shape: tuple[int, ...], geometry: Geometry
) -> tuple[int, int, int]:
    """(channel, row, column) of the padded cell that the output (oc,oh,ow) reads through its tap (c,kh,kw)."""
    OC, C_group, _, _ = weight_shape
    group = oc // (OC // geometry.groups)
    row = oh * geometry.stride[0] + kh * geometry.dilation[0]
    column = ow * geometry.stride[1] + kw * geometry.dilation[1]
    return group * C_group + c, row, column


def _pad(x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(N,C,H,W) -> (N, C, top+H+bottom, left+W+right): the image with zeros around it."""
    return np.pad(x, ((0, 0), (0, 0), (geometry.top, geometry.bottom), (geometry.left, geometry.right)))


def _unpad(padded: np.ndarray, x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(N, C, top+H+bottom, left+W+right) -> (N,C,H,W): the gradient of the padding is dropped."""
    _, _, H, W = x.shape
    return np.ascontiguousarray(padded[:, :, geometry.top : geometry.top + H, geometry.left : geometry.left + W])


# --- im2col -----------------------------------------------------------------------------------------------------------


def im2col_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Copy each window's cells into a column of a matrix: then all sums are one matrix product, which BLAS does fast."""
    N, OC = len(x), len(weight)
    # (G, OC/G, C/G·KH·KW) @ (G, C/G·KH·KW, N·OH·OW) -> (G, OC/G, N·OH·OW)
    out = matmul(_weight_matrix(weight, geometry), im2col(x, weight.shape, geometry))
    # (OC, N, OH, OW) -> (N, OC, OH, OW)
    out = np.ascontiguousarray(out.reshape(OC, N, geometry.OH, geometry.OW).swapaxes(0, 1))
    if bias is not None:
        out += bias[:, np.newaxis, np.newaxis]
    return out, (x, weight, bias is not None, geometry)


def im2col_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    N, OC = grad_out.shape[:2]
    G = geometry.groups
    # (N,OC,OH,OW) -> (G, OC/G, N·OH·OW), the shape of forward's product
    g = grad_out.swapaxes(0, 1).reshape(G, OC // G, N * geometry.OH * geometry.OW)
    # out = weight @ columns, so grad_weight = g @ columnsᵀ and grad_columns = weightᵀ @ g
    grad_weight = matmul(g, im2col(x, weight.shape, geometry).swapaxes(1, 2)).reshape(weight.shape)
    grad_x = None
    if need_grad_x:
        grad_x = col2im(matmul(_weight_matrix(weight, geometry).swapaxes(1, 2), g), x, weight.shape, geometry)
    return grad_x, grad_weight, grad_out.sum(axis=(0, 2, 3)) if has_bias else None


def _weight_matrix(weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(OC,C/G,KH,KW) -> (G, OC/G, C/G·KH·KW): one row for each output channel, with its taps."""
    OC, C_group, KH, KW = weight.shape
    return weight.reshape(geometry.groups, OC // geometry.groups, C_group * KH * KW)


def im2col(x: np.ndarray, weight_shape: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """(N,C,H,W) -> (G, C/G·KH·KW, N·OH·OW): one column for each window, with its cells in the taps' order.

    A cell is copied into the column of every window that covers it, up to KH·KW of them: the price of im2col is memory.
    """
    N, C = x.shape[:2]
    _, C_group, KH, KW = weight_shape
    padded = _pad(x, geometry)
    columns = np.empty((C, KH, KW, N, geometry.OH, geometry.OW), x.dtype)
    for kh, kw in np.ndindex(KH, KW):
        # (N,C,OH,OW) -> (C,N,OH,OW): the cell that each window reads through the tap (kh,kw)
        columns[:, kh, kw] = padded[:, :, *_seen(kh, kw, geometry)].swapaxes(0, 1)
    return columns.reshape(geometry.groups, C_group * KH * KW, N * geometry.OH * geometry.OW)


def col2im(columns: np.ndarray, x: np.ndarray, weight_shape: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """(G, C/G·KH·KW, N·OH·OW) -> (N,C,H,W): im2col's transpose: each cell is the sum of all its copies."""
    N, C, H, W = x.shape
    _, _, KH, KW = weight_shape
    columns = columns.reshape(C, KH, KW, N, geometry.OH, geometry.OW)
    grad_padded = np.zeros((N, C, geometry.top + H + geometry.bottom, geometry.left + W + geometry.right), x.dtype)
    for kh, kw in np.ndindex(KH, KW):
        # Windows overlap, so this adds. For one tap no cell is read twice, so the whole slice is added to at once.
        grad_padded[:, :, *_seen(kh, kw, geometry)] += columns[:, kh, kw].swapaxes(0, 1)
    return _unpad(grad_padded, x, geometry)


def _seen(kh: int, kw: int, geometry: Geometry) -> tuple[slice, slice]:
    """The rows and columns of the padded image that the windows read through the tap (kh,kw): OH·OW cells."""
    return (
        slice(
            kh * geometry.dilation[0], kh * geometry.dilation[0] + (geometry.OH - 1) * geometry.stride[0] + 1, geometry.stride[0]
        ),
        slice(
            kw * geometry.dilation[1], kw * geometry.dilation[1] + (geometry.OW - 1) * geometry.stride[1] + 1, geometry.stride[1]
        ),
    )


# --- numba ------------------------------------------------------------------------------------------------------------


def numba_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Copy one image's columns at a time, in compiled loops: the columns are still in the cache when they are multiplied."""
    N, OC = len(x), len(weight)
    G = geometry.groups
    out = memory.empty((N, OC, geometry.OH, geometry.OW), x.dtype)
    rows = _weight_matrix(weight, geometry)
    columns = _columns_of_one_image(x, weight, geometry)
    by_group = columns.reshape(G, rows.shape[2], geometry.OH * geometry.OW)
    for n in range(N):
        for_each(_im2col_kernel, columns.shape[0], x[n], geometry, columns, values=columns[:1].size)
        # (G, OC/G, C/G·KH·KW) @ (G, C/G·KH·KW, OH·OW) -> (G, OC/G, OH·OW), in place: out[n] needs no transpose
        matmul(rows, by_group, out=out[n].reshape(G, OC // G, -1))
    if bias is not None:
        out += bias[:, np.newaxis, np.newaxis]
    return out, (x, weight, bias is not None, geometry)


def numba_backward(
    grad_out: np.ndarray, x: np.ndarray, weight: np.ndarray, has_bias: bool, geometry: Geometry, *, need_grad_x: bool
) -> Gradients:
    N, OC = grad_out.shape[:2]
    G = geometry.groups
    rows = _weight_matrix(weight, geometry)
    columns = _columns_of_one_image(x, weight, geometry)
    by_group = columns.reshape(G, rows.shape[2], geometry.OH * geometry.OW)
    grad_rows = np.zeros_like(rows)
    grad_x = np.zeros_like(x) if need_grad_x else None
    for n in range(N):
        g = grad_out[n].reshape(G, OC // G, -1)
        for_each(_im2col_kernel, columns.shape[0], x[n], geometry, columns, values=columns[:1].size)
        grad_rows += matmul(g, by_group.swapaxes(1, 2))
        if grad_x is not None:
            matmul(rows.swapaxes(1, 2), g, out=by_group)
            for_each(_col2im_kernel, columns.shape[0], columns, geometry, grad_x[n], values=columns[:1].size)
    return grad_x, grad_rows.reshape(weight.shape), grad_out.sum(axis=(0, 2, 3)) if has_bias else None


def _columns_of_one_image(x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    _, _, KH, KW = weight.shape
    return memory.empty((x.shape[1], KH, KW, geometry.OH, geometry.OW), x.dtype)


@kernel
def _im2col_kernel(first: int, last: int, image: np.ndarray, geometry: Geometry, columns: np.ndarray) -> None:
    """(C,H,W) -> (C,KH,KW,OH,OW), without a padded copy of the image: a work item is one channel."""
    _, H, W = image.shape
    _, KH, KW, OH, OW = columns.shape
    zero = image.dtype.type(0)
    for c in range(first, last):
        for kh in range(KH):
            for kw in range(KW):
                for oh in range(OH):
                    h = oh * geometry.stride[0] + kh * geometry.dilation[0] - geometry.top
                    for ow in range(OW):
                        w = ow * geometry.stride[1] + kw * geometry.dilation[1] - geometry.left
                        inside = 0 <= h < H and 0 <= w < W
                        columns[c, kh, kw, oh, ow] = image[c, h, w] if inside else zero


@kernel
def _col2im_kernel(first: int, last: int, columns: np.ndarray, geometry: Geometry, grad_image: np.ndarray) -> None:
    """(C,KH,KW,OH,OW) -> (C,H,W): add every copy to its cell. A work item is one channel, so threads never share a cell."""
    _, H, W = grad_image.shape
    _, KH, KW, OH, OW = columns.shape
    for c in range(first, last):
        for kh in range(KH):
            for kw in range(KW):
                for oh in range(OH):
                    h = oh * geometry.stride[0] + kh * geometry.dilation[0] - geometry.top
                    for ow in range(OW):
                        w = ow * geometry.stride[1] + kw * geometry.dilation[1] - geometry.left
                        if 0 <= h < H and 0 <= w < W:
                            grad_image[c, h, w] += columns[c, kh, kw, oh, ow]


# --- which rung the default takes -------------------------------------------------------------------------------------

# The last two rungs have a fixed cost at any size: they pad an image and pack a weight or grad_out, in forward and for each
# gradient; winograd also transforms the weight. "python -m benchmarks crossing" shows from which size on this pays.
PACKED = 1 << 22  # multiplications in forward, by the definition
TRANSFORMED = 1 << 25
# numba pays a fixed cost for every image. From this many images on, that exceeds the fixed cost of implicit_gemm.
IMAGES = 8
CHANNELS = 16  # with fewer channels, in or out, each transformed number is used too rarely


def _worth_packing(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> bool:
    return len(x) >= IMAGES or _multiplications(x, weight, geometry) >= PACKED


def _worth_transforming(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> bool:
    OC, C, _, _ = weight.shape
    return min(C, OC // geometry.groups) >= CHANNELS and _multiplications(x, weight, geometry) >= TRANSFORMED


def _multiplications(x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> int:
    return len(x) * geometry.OH * geometry.OW * weight.size


RUNGS = Ladder(
    "conv2d",
    Rung("naive", naive_forward, naive_backward),
    Rung("im2col", im2col_forward, im2col_backward),
    Rung("numba", numba_forward, numba_backward),
    Rung("implicit_gemm", implicit_gemm_forward, implicit_gemm_backward, _worth_packing),
    Rung("winograd", winograd_forward, winograd_backward, _worth_transforming),
)
