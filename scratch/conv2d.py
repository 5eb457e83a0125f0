"""2-D convolution (cross-correlation, as every framework means it), with stride, padding, dilation and groups.

    out[n,oc,oh,ow] = bias[oc] + Σ_{c,kh,kw} padded[n, c, oh·stride + kh·dilation, ow·stride + kw·dilation] · weight[oc,c,kh,kw]

where ``padded`` is ``x`` in a frame of zeros and c runs over the C/groups input channels of oc's group. Backward, with
g = grad_out, is the same sum read in the two other directions:

    grad_weight[oc,c,kh,kw] = Σ_{n,oh,ow} g[n,oc,oh,ow] · padded[n, c, oh·stride + kh·dilation, ow·stride + kw·dilation]
    grad_padded[n,c,h,w]    = Σ g[n,oc,oh,ow] · weight[oc,c,kh,kw]   over all that read the cell (h,w) in forward
    grad_bias[oc]           = Σ_{n,oh,ow} g[n,oc,oh,ow]

and grad_x is grad_padded without its frame.

Shapes: x (N,C,H,W), weight (OC,C/groups,KH,KW), bias (OC,), out (N,OC,OH,OW).
Paper: Krizhevsky, Sutskever, Hinton 2012, section 3.5. Same as ``torch.nn.functional.conv2d``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from scratch.conv2d_implicit_gemm import implicit_gemm_backward, implicit_gemm_forward
from scratch.conv2d_winograd import winograd_backward, winograd_forward
from scratch.core import checks
from scratch.core.jit import kernel
from scratch.core.ladder import Cache, Ladder, Rung
from scratch.core.threads import for_each

Gradients = tuple[np.ndarray | None, np.ndarray, np.ndarray | None]


class Geometry(NamedTuple):
    """Where the window goes: all that the loops need to know beside the shapes of x and weight."""

    stride: tuple[int, int]
    top: int  # zeros around the image
    bottom: int
    left: int
    right: int
    dilation: tuple[int, int]
    groups: int
    OH: int
    OW: int


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
        stride: step of the window, at least 1; like the next two an int, or a pair (vertical, horizontal).
        padding: zeros around the image; 'valid' is 0; 'same' keeps H and W and takes stride 1 only.
        dilation: distance between the window's taps, at least 1.
        groups: the channels are split into so many blocks that do not see each other.

    Returns:
        ``out`` (N,OC,OH,OW), or (OC,OH,OW) for unbatched x, and the cache for :func:`backward`.

    Raises:
        TypeError: an array is not float32 or float64, the dtypes differ, or a parameter has the wrong type.
        ValueError: shapes that do not fit each other, a parameter out of its range, or more than memory holds.
    """
    batch, unbatched = checks.image("conv2d", "x", x)
    weight = checks.array("conv2d", "weight", weight, dtype=batch.dtype)
    if weight.ndim != 4:
        raise ValueError(f"conv2d: weight must have shape (OC,C/groups,KH,KW), got {weight.shape} with x {x.shape}")
    if bias is not None:
        bias = checks.array("conv2d", "bias", bias, dtype=batch.dtype)
        if bias.shape != weight.shape[:1]:
            raise ValueError(f"conv2d: bias must have shape {weight.shape[:1]} for weight {weight.shape}, got {bias.shape}")
    geometry = _geometry(x.shape, weight.shape, stride, padding, dilation, groups)
    N, C, H, W = batch.shape
    padded = (N, C, H + geometry.top + geometry.bottom, W + geometry.left + geometry.right)
    checks.room("conv2d", "padding", padding, "the padded image", padded, batch.dtype)
    checks.room("conv2d", "weight", weight, "the output", (N, len(weight), geometry.OH, geometry.OW), batch.dtype)
    return RUNGS.forward(batch, weight, bias, geometry, unbatched=unbatched)


def backward(grad_out: np.ndarray, cache: Cache, *, need_grad_x: bool = True) -> Gradients:
    """The gradients of :func:`forward`'s arrays.

    Args:
        grad_out: gradient of the loss with respect to ``out``, of its shape and dtype.
        cache: what :func:`forward` returned.
        need_grad_x: False leaves grad_x out, half of the work: a network's first layer has no use for it.

    Returns:
        ``(grad_x, grad_weight, grad_bias)``, each of its array's shape; None for an absent bias or an unneeded grad_x.

    Raises:
        TypeError: ``grad_out`` has another dtype, or ``cache`` is not conv2d's.
        ValueError: ``grad_out`` has another shape.
    """
    grad_x, grad_weight, grad_bias = RUNGS.backward(grad_out, cache, need_grad_x=need_grad_x)
    return grad_x, grad_weight, grad_bias


def _geometry(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: Any
) -> Geometry:
    """Check every parameter against the shapes, x's as it came, and work out the output's size, here and nowhere else."""
    shapes = f"x {x_shape} and weight {weight_shape}"
    stride = checks.pair("conv2d", "stride", stride, low=1)
    dilation = checks.pair("conv2d", "dilation", dilation, low=1)
    groups = checks.integer("conv2d", "groups", groups, low=1)
    *N, C, H, W = x_shape
    OC, C_group, KH, KW = weight_shape
    if OC == 0 or KH == 0 or KW == 0:
        raise ValueError(f"conv2d: weight must have OC, KH and KW of at least 1, got {weight_shape}")
    if C_group * groups != C:
        raise ValueError(f"conv2d: weight must have C/groups = {C}/{groups} channels, got {C_group} for {shapes}")
    if OC % groups:
        raise ValueError(f"conv2d: groups must divide the {OC} output channels, got groups={groups} for {shapes}")
    reach = (dilation[0] * (KH - 1), dilation[1] * (KW - 1))  # from the window's first tap to its last
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"conv2d: padding must be ints, 'same' or 'valid', got {checks.shown(padding)}")
        if padding == "same" and stride != (1, 1):
            raise ValueError(f"conv2d: stride must be 1 with padding 'same', got {stride}")
        total = reach if padding == "same" else (0, 0)
        top, left = total[0] // 2, total[1] // 2  # an odd zero goes to the bottom and the right
        bottom, right = total[0] - top, total[1] - left
    else:
        top, left = bottom, right = checks.pair("conv2d", "padding", padding, low=0)
    padded = (H + top + bottom, W + left + right)
    room = (padded[0] - reach[0], padded[1] - reach[1])  # places for the window at stride 1
    if min(room) < 1 or (min(H, W) == 0 and math.prod(N) * C):
        raise ValueError(
            f"conv2d: weight must fit into the padded image, got {shapes} with padding {(top, bottom, left, right)} "
            f"(top, bottom, left, right) and dilation {dilation}"
        )
    OH, OW = (room[0] - 1) // stride[0] + 1, (room[1] - 1) // stride[1] + 1
    # A step beyond the image is taken by no window; cut short it needs no room in the faster rungs' frames.
    stride = (min(stride[0], padded[0]), min(stride[1], padded[1]))
    return Geometry(stride, top, bottom, left, right, dilation, groups, OH, OW)


# --- naive ------------------------------------------------------------------------------------------------------------


def naive_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """The sum as it is written, one product after the other: the specification."""
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
        # The same walk as forward's. What was read there is added to here.
        for c, kh, kw in np.ndindex(weight.shape[1:]):
            cell = (n, *_cell(oc, c, oh, ow, kh, kw, weight.shape, geometry))
            grad_weight[oc, c, kh, kw] += g * padded[cell]
            grad_padded[cell] += g * weight[oc, c, kh, kw]
        grad_bias[oc] += g
    return _unpad(grad_padded, x, geometry) if need_grad_x else None, grad_weight, grad_bias if has_bias else None


def _cell(
    oc: int, c: int, oh: int, ow: int, kh: int, kw: int, weight_shape: tuple[int, ...], geometry: Geometry
) -> tuple[int, int, int]:
    """The padded image's (channel, row, column) that the output (oc,oh,ow) reads through its tap (c,kh,kw)."""
    OC, C_group, _, _ = weight_shape
    group = oc // (OC // geometry.groups)
    row = oh * geometry.stride[0] + kh * geometry.dilation[0]
    column = ow * geometry.stride[1] + kw * geometry.dilation[1]
    return group * C_group + c, row, column


def _pad(x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(N,C,H,W) -> (N, C, top+H+bottom, left+W+right): the image in its frame of zeros."""
    return np.pad(x, ((0, 0), (0, 0), (geometry.top, geometry.bottom), (geometry.left, geometry.right)))


def _unpad(padded: np.ndarray, x: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(N, C, top+H+bottom, left+W+right) -> (N,C,H,W): what fell on the frame is nobody's gradient."""
    _, _, H, W = x.shape
    return np.ascontiguousarray(padded[:, :, geometry.top : geometry.top + H, geometry.left : geometry.left + W])


# --- im2col -----------------------------------------------------------------------------------------------------------


def im2col_forward(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry
) -> tuple[np.ndarray, tuple[Any, ...]]:
    """Write each window's cells into a column, once: then all the sums are one matrix product, which BLAS does best."""
    N, OC = len(x), len(weight)
    # (G, OC/G, C/G·KH·KW) @ (G, C/G·KH·KW, N·OH·OW) -> (G, OC/G, N·OH·OW)
    out = _weight_matrix(weight, geometry) @ im2col(x, weight.shape, geometry)
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
    # (N,OC,OH,OW) -> (G, OC/G, N·OH·OW), the shape in which forward's product came out
    g = grad_out.swapaxes(0, 1).reshape(G, OC // G, N * geometry.OH * geometry.OW)
    # out = weight @ columns, so grad_weight = g @ columnsᵀ and grad_columns = weightᵀ @ g
    grad_weight = (g @ im2col(x, weight.shape, geometry).swapaxes(1, 2)).reshape(weight.shape)
    grad_x = None
    if need_grad_x:
        grad_x = col2im(_weight_matrix(weight, geometry).swapaxes(1, 2) @ g, x, weight.shape, geometry)
    return grad_x, grad_weight, grad_out.sum(axis=(0, 2, 3)) if has_bias else None


def _weight_matrix(weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    """(OC,C/G,KH,KW) -> (G, OC/G, C/G·KH·KW): one row for each output channel, its taps side by side."""
    OC, C_group, KH, KW = weight.shape
    return weight.reshape(geometry.groups, OC // geometry.groups, C_group * KH * KW)


def im2col(x: np.ndarray, weight_shape: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """(N,C,H,W) -> (G, C/G·KH·KW, N·OH·OW): one column for each window, holding its cells in the taps' order.

    A cell stands in as many columns as windows cover it, up to KH·KW times: the price of the trick is memory.
    """
    N, C = x.shape[:2]
    _, C_group, KH, KW = weight_shape
    padded = _pad(x, geometry)
    columns = np.empty((C, KH, KW, N, geometry.OH, geometry.OW), x.dtype)
    for kh, kw in np.ndindex(KH, KW):
        # (N,C,OH,OW) -> (C,N,OH,OW): the cell that every window sees through the tap (kh,kw)
        columns[:, kh, kw] = padded[:, :, *_seen(kh, kw, geometry)].swapaxes(0, 1)
    return columns.reshape(geometry.groups, C_group * KH * KW, N * geometry.OH * geometry.OW)


def col2im(columns: np.ndarray, x: np.ndarray, weight_shape: tuple[int, ...], geometry: Geometry) -> np.ndarray:
    """(G, C/G·KH·KW, N·OH·OW) -> (N,C,H,W): im2col's transpose, each cell the sum of all the places it was copied to."""
    N, C, H, W = x.shape
    _, _, KH, KW = weight_shape
    columns = columns.reshape(C, KH, KW, N, geometry.OH, geometry.OW)
    grad_padded = np.zeros((N, C, geometry.top + H + geometry.bottom, geometry.left + W + geometry.right), x.dtype)
    for kh, kw in np.ndindex(KH, KW):
        # Windows overlap, so this adds; within one tap no cell is seen twice, so the slice may be added to at once.
        grad_padded[:, :, *_seen(kh, kw, geometry)] += columns[:, kh, kw].swapaxes(0, 1)
    return _unpad(grad_padded, x, geometry)


def _seen(kh: int, kw: int, geometry: Geometry) -> tuple[slice, slice]:
    """The padded image's rows and columns that the windows see through the tap (kh,kw), OH·OW cells."""
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
    """Image by image, the columns copied by compiled loops: one image's columns stay in the cache until they are multiplied."""
    N, OC = len(x), len(weight)
    G = geometry.groups
    out = np.empty((N, OC, geometry.OH, geometry.OW), x.dtype)
    rows = _weight_matrix(weight, geometry)
    columns = _columns_of_one_image(x, weight, geometry)
    by_group = columns.reshape(G, rows.shape[2], geometry.OH * geometry.OW)
    for n in range(N):
        for_each(_im2col_kernel, columns.shape[0], x[n], geometry, columns, values=columns[:1].size)
        # (G, OC/G, C/G·KH·KW) @ (G, C/G·KH·KW, OH·OW) -> (G, OC/G, OH·OW), in place: out[n] needs no transpose
        np.matmul(rows, by_group, out=out[n].reshape(G, OC // G, -1))
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
        grad_rows += g @ by_group.swapaxes(1, 2)
        if grad_x is not None:
            np.matmul(rows.swapaxes(1, 2), g, out=by_group)
            for_each(_col2im_kernel, columns.shape[0], columns, geometry, grad_x[n], values=columns[:1].size)
    return grad_x, grad_rows.reshape(weight.shape), grad_out.sum(axis=(0, 2, 3)) if has_bias else None


def _columns_of_one_image(x: np.ndarray, weight: np.ndarray, geometry: Geometry) -> np.ndarray:
    _, _, KH, KW = weight.shape
    return np.empty((x.shape[1], KH, KW, geometry.OH, geometry.OW), x.dtype)


@kernel
def _im2col_kernel(first: int, last: int, image: np.ndarray, geometry: Geometry, columns: np.ndarray) -> None:
    """(C,H,W) -> (C,KH,KW,OH,OW), the frame of zeros never written: a piece is one channel."""
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
    """(C,KH,KW,OH,OW) -> (C,H,W): every copy added to the cell it came from. Channels do not meet, so threads neither."""
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


# --- which of them the default takes ----------------------------------------------------------------------------------

# The last two have a fixed price, whatever the size: they put the image into a frame and pack the weight, forward and for each
# gradient; winograd also transforms the weight. "python -m benchmarks crossing" shows from where on that pays.
FRAMED = 1 << 22  # multiplications, forward, by the definition
TRANSFORMED = 1 << 25
IMAGES = 8  # numba's price is one for each image: of so many together it is the higher
CHANNELS = 16  # with fewer, in or out, a transformed number serves too few products


def _worth_framing(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, geometry: Geometry) -> bool:
    return len(x) >= IMAGES or _multiplications(x, weight, geometry) >= FRAMED


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
    Rung("implicit_gemm", implicit_gemm_forward, implicit_gemm_backward, _worth_framing),
    Rung("winograd", winograd_forward, winograd_backward, _worth_transforming),
)
