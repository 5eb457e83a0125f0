"""Where conv2d's window goes: the geometry that all rungs share. Only this file checks it and works out OH and OW."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from scratch.core import checks

Gradients = tuple[np.ndarray | None, np.ndarray, np.ndarray | None]  # of x, weight and bias


class Geometry(NamedTuple):
    """Where the window goes: everything the loops need to know apart from the shapes of x and weight."""

    stride: tuple[int, int]
    top: int  # zeros around the image
    bottom: int
    left: int
    right: int
    dilation: tuple[int, int]
    groups: int
    OH: int
    OW: int


def geometry_of(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: Any
) -> Geometry:
    """Check every parameter against the shapes, and work out the output's size.

    ``x_shape`` is x's shape as the caller gave it, with or without N.
    """
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
        top, left = total[0] // 2, total[1] // 2  # if the total is odd, the extra zero goes to the bottom or right
        bottom, right = total[0] - top, total[1] - left
    else:
        top, left = bottom, right = checks.pair("conv2d", "padding", padding, low=0)
    padded = (H + top + bottom, W + left + right)
    room = (padded[0] - reach[0], padded[1] - reach[1])  # positions of the window at stride 1
    if min(room) < 1 or (min(H, W) == 0 and math.prod(N) * C):
        raise ValueError(
            f"conv2d: weight must fit into the padded image, got {shapes} with padding {(top, bottom, left, right)} "
            f"(top, bottom, left, right) and dilation {dilation}"
        )
    OH, OW = (room[0] - 1) // stride[0] + 1, (room[1] - 1) // stride[1] + 1
    # A stride larger than the image is never used; clamp it so that padded inputs stay small.
    stride = (min(stride[0], padded[0]), min(stride[1], padded[1]))
    return Geometry(stride, top, bottom, left, right, dilation, groups, OH, OW)
