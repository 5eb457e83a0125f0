"""The X-ray of conv2d."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np

from alexnet_from_scratch.xray.inputs import GRAD_OUT, PIXELS, cotangent
from alexnet_from_scratch.xray.page import STEPS, Panel, Section, Xray, compare
from alexnet_from_scratch.xray.photo import Photo
from alexnet_from_scratch.xray.tracing import PADDING, Number, Tape
from scratch import conv2d
from scratch.convolution.geometry import Geometry, geometry_of


def build(
    photo: Photo,
    *,
    size: int = 10,
    channels: int = 4,
    kernel: int = 3,
    stride: int = 2,
    padding: int = 1,
    dilation: int = 1,
    seed: int = 0,
) -> Xray:
    """The naive loops, and the same sums with im2col."""
    x = photo.pixels(size)[np.newaxis]
    weight = gabor(channels, 3, kernel)
    bias = np.linspace(-0.5, 0.5, channels).astype(np.float32)
    params: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    out, _ = conv2d.forward(x, weight, bias, **params)
    grad_out = cotangent(out.shape, seed)

    tape = Tape(STEPS)
    geometry = geometry_of(x.shape, weight.shape, stride, padding, dilation, 1)
    arrays = [tape.given("x", x), tape.given("weight", weight), tape.given("bias", bias)]
    g = tape.given("grad_out", grad_out)

    pad = conv2d._pad

    def named_pad(x: np.ndarray, geometry: Geometry) -> np.ndarray:
        padded = pad(x, geometry)
        for i, number in np.ndenumerate(padded):
            if not isinstance(number, Number):
                padded[i] = PADDING
        return padded

    def run(forward: Any, backward: Any) -> None:
        with patch.object(conv2d, "_pad", named_pad):
            made, saved = forward(*arrays, geometry)
            gradients = backward(g, *saved, need_grad_x=True)
        tape.made("out", made)
        for name, gradient in zip(("grad_x", "grad_weight", "grad_bias"), gradients, strict=True):
            tape.made(name, gradient)

    run(conv2d.naive_forward, conv2d.naive_backward)
    tape.rung = "im2col"
    im2col, col2im = conv2d.im2col, conv2d.col2im

    def matrix(name: str, columns: np.ndarray) -> np.ndarray:
        return tape.made(name, columns[0])[np.newaxis]  # of the only group

    with (
        patch.object(conv2d, "im2col", lambda *given: matrix("columns", im2col(*given))),
        patch.object(conv2d, "col2im", lambda columns, *rest: col2im(matrix("grad_columns", columns), *rest)),
    ):
        run(conv2d.im2col_forward, conv2d.im2col_backward)

    xray = Xray(
        "conv2d",
        "2-D convolution",
        "Every output is a sum of products: the window's cells times the weights. Backward visits the same cells, and adds to "
        "each where forward read it. Choose the rung: naive takes one window at a time; im2col first copies each window into a "
        "column, so that all sums are one matrix product. With each value you see the values of all rungs that take such a "
        "convolution. winograd takes it if the sides of its windows are 3, 5 or 6 and its stride is 1.",
        {"kernel": f"{kernel}×{kernel}", **params, "groups": 1},
        tape,
        [
            Section(
                "Forward",
                "Point at an output: its window lights up in x, together with the weights that multiplied it. In the rung im2col "
                "the window is a column.",
                [
                    Panel("x", "N C H W", PIXELS, row=True),
                    Panel(
                        "weight", "OC C KH KW", "Waves that respond to edges: one direction for each output channel.", row=True
                    ),
                    Panel("out", "N OC OH OW", row=True),
                    Panel("bias", "OC"),
                    Panel(
                        "columns",
                        "C·KH·KW OH·OW",
                        "im2col: a column is a window; a cell of x is in several columns.",
                        rung="im2col",
                    ),
                ],
            ),
            Section(
                "Backward",
                "Point at a pixel of grad_x: every output that read this pixel of x sends it gradient × weight. In the weight "
                "turned by 180° the taps are arranged like the gradients that they multiply: grad_x is a convolution of grad_out "
                "with the turned kernel (with a stride, grad_out has zeros in between). Point at a cell of grad_weight: it is "
                "the sum over every pair of an input and a gradient that this weight joined.",
                [
                    Panel("grad_out", "N OC OH OW", GRAD_OUT, row=True),
                    Panel("weight", "OC C KH KW", row=True, turned=True),
                    Panel("grad_x", "N C H W", row=True),
                    Panel(
                        "grad_columns",
                        "C·KH·KW OH·OW",
                        "weightᵀ · grad_out; col2im adds up the copies of each cell.",
                        between=True,
                        rung="im2col",
                    ),
                    Panel("grad_weight", "OC C KH KW"),
                    Panel("grad_bias", "OC"),
                ],
            ),
        ],
    )
    compare(xray, "conv2d", (x, weight, bias), params, ["out"], grad_out, ["grad_x", "grad_weight", "grad_bias"])
    return xray


def gabor(OC: int, C: int, kernel: int) -> np.ndarray:
    """(OC,C,kernel,kernel): waves under a bell curve, rotated by half a turn over the output channels, weaker in some of the C
    channels.
    """
    at = (np.arange(kernel) - (kernel - 1) / 2) / max(1, kernel / 2)
    angle = np.pi * np.arange(OC)[:, np.newaxis, np.newaxis] / OC
    along = np.cos(angle) * at + np.sin(angle) * at[:, np.newaxis]  # (OC,kernel,kernel)
    waves = np.sin(2.2 * along + 0.3) * np.exp(-(at**2) - at[:, np.newaxis] ** 2)
    strength = (1 + np.cos(np.arange(C) - 1 + angle[:, 0])) / C  # (OC,C)
    weight: np.ndarray = waves[:, np.newaxis] * strength[:, :, np.newaxis, np.newaxis]
    return weight.astype(np.float32)
