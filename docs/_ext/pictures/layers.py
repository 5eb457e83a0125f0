"""What the other layers do with one small input."""

from __future__ import annotations

import numpy as np

import scratch
from docs._ext.svg import Axes, Drawing, spotlight, where


def relu() -> Drawing:
    """Two graphs over x. Left: out is 0 for negative x, and x itself above. Right: the gate of the gradient, 0 then 1."""
    drawing = Drawing(600, 210)
    x = np.linspace(-3, 3, 121)
    out, cache = scratch.relu.forward(x)
    (gate,) = scratch.relu.backward(np.ones_like(x), cache)
    for left, values, label, top in ((40, out, "out", 3.0), (345, gate, "grad_x / grad_out", 1.5)):
        axes = Axes(drawing, (left, 25, 235, 150), (-3, 3), (0, top))
        axes.ticks({-3: "−3", 0: "0", 3: "3"}, {0: "0", 1: "1"})
        below = x <= 0
        axes.plot(x[below], values[below], "hot thick")
        axes.plot(x[~below], values[~below], "hot thick")
        drawing.text(left + 117, 12, label)
        drawing.text(left + 235, 203, "x", kind="small")
    return drawing


def max_pool() -> Drawing:
    """A 5×5 image under four overlapping 3×3 windows; the winners are marked. A cell that wins two windows gets both
    gradients.
    """
    drawing = Drawing(640, 430)
    x = np.array([[1, 0, 3, 2, 1], [0, 2, 1, 0, 3], [4, 1, 5, 2, 0], [0, 7, 2, 1, 6], [1, 0, 4, 6, 2.0]])[None, None]
    (out, indices), cache = scratch.max_pool2d.forward(x, kernel_size=3, stride=2, return_indices=True)
    grad_out = np.array([[1, 10], [20, 50.0]])[None, None]
    (grad_x,) = scratch.max_pool2d.backward(grad_out, cache)
    winners = {divmod(int(index), 5) for index in indices.ravel()}
    drawing.title(4, "x")
    drawing.grid(4, 28, x[0, 0], spotlight(*winners))
    drawing.arrow((184, 113), (262, 113))
    drawing.text(223, 99, "forward", kind="small")
    drawing.title(275, "out")
    drawing.grid(275, 79, out[0, 0])
    drawing.title(420, "indices h·W + w")
    drawing.grid(420, 79, indices[0, 0])
    drawing.title(4, "grad_x", 232)
    drawing.grid(4, 248, grad_x[0, 0], where(grad_x[0, 0] != 0))
    drawing.arrow((262, 333), (184, 333))
    drawing.text(223, 319, "backward", kind="small")
    drawing.title(275, "grad_out", 283)
    drawing.grid(275, 299, grad_out[0, 0])
    return drawing


def lrn_windows() -> Drawing:
    """Ten channels. Above: the window of channel 4 with size 4 holds 2 to 5. Below: channel 4's gradient comes from 3 to 6."""
    drawing = Drawing(560, 200)
    C, c, size = 10, 4, 4
    x = np.ones((1, C, 1))
    # Row i: which elements of grad_x respond to a gradient at channel i alone.
    table = np.empty((C, C))
    for i in range(C):
        out, cache = scratch.local_response_norm.forward(x, size=size, alpha=1.0)
        one = np.zeros_like(out)
        one[0, i] = 1
        (grad_x,) = scratch.local_response_norm.backward(one, cache)
        table[i] = grad_x[0, :, 0]
    channels = [str(i) for i in range(C)]
    drawing.text(4, 14, f"forward, size {size}: the channels in the scale of out[{c}]", anchor="start")
    drawing.grid(4, 30, [channels], lambda _, i: "hot" if table[c, i] != 0 else "plain", cell=40)
    drawing.text(4, 110, f"backward: the channels whose scale holds x[{c}]", anchor="start")
    drawing.grid(4, 126, [channels], lambda _, i: "cool" if table[i, c] != 0 else "plain", cell=40)
    for y in (50, 146):
        drawing.text(4 + (c + 0.5) * 40, y + 31, "▲", kind="small")
    return drawing


def average_windows() -> Drawing:
    """Seven cells under three windows: the first holds cells 0 to 2, the second 2 to 4, the third 4 to 6."""
    drawing = Drawing(480, 220)
    cells, outputs = 7, 3
    out, cache = scratch.adaptive_avg_pool2d.forward(np.zeros((1, 1, cells)), output_size=(1, outputs))
    drawing.text(4, 14, f"{cells} cells, {outputs} outputs", anchor="start")
    drawing.grid(4, 30, [[str(w) for w in range(cells)]], cell=44)
    for ow in range(outputs):
        one = np.zeros_like(out)
        one[0, 0, ow] = 1
        (grad_x,) = scratch.adaptive_avg_pool2d.backward(one, cache)
        row = grad_x[0, 0]
        shares = [f"1/{1 / share:.0f}" if share else None for share in row]
        drawing.grid(4, 88 + ow * 42, [shares], where(row[np.newaxis] > 0, "ghost"), cell=44)
        drawing.text(330, 110 + ow * 42, f"out[{ow}] is their mean", anchor="start", kind="small")
    return drawing


def linear() -> Drawing:
    """fc6 to scale: a weight of 4,096 by 9,216, and next to it 32 images, a thin strip."""
    drawing = Drawing(600, 260)
    scale = 40
    IN, OUT, rows = 9216 / scale, 4096 / scale, max(2, 32 / scale)
    drawing.text(20 + IN / 2, 60, "weight (OUT, IN) = (4096, 9216)", kind="small")
    drawing.box(20, 76, IN, OUT, "plain")
    drawing.text(300, 127, "·")
    drawing.box(340, 12, rows, IN, "hot")
    drawing.text(352, 60, "xᵀ (IN, 32)", kind="small", anchor="start")
    drawing.text(440, 127, "=")
    drawing.box(490, 76, rows, OUT, "cool")
    drawing.text(502, 127, "outᵀ (OUT, 32)", kind="small", anchor="start")
    drawing.text(300, 252, "to scale: reading the weight is the work", kind="small")
    return drawing


def dropout() -> Drawing:
    """A row of eight values, a mask that keeps five of them, and the output: dropped values are 0, the others are doubled."""
    drawing = Drawing(520, 300)
    x = np.arange(1.0, 9)
    mask = np.array([1, 0, 1, 1, 0, 0, 1, 1], bool)
    out, cache = scratch.dropout.forward(x, p=0.5, mask=mask)
    (grad_x,) = scratch.dropout.backward(np.ones_like(x), cache)
    for i, (name, row) in enumerate(
        {"x": x, "mask": mask.astype(int), "out = x · mask / (1−p)": out, "grad_x for grad_out = 1": grad_x}.items()
    ):
        drawing.text(4, 14 + 74 * i, name, anchor="start")
        drawing.grid(4, 28 + 74 * i, [row], lambda _, c: "plain" if mask[c] else "ghost", cell=40)
    return drawing
