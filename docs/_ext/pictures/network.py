"""The network's costs, its image size, and how its sums round."""

from __future__ import annotations

import numpy as np

from docs._ext import networks
from docs._ext.svg import Axes, Drawing
from scratch import conv2d


def costs() -> Drawing:
    """Bars for each layer with weights: multiply-adds sit in the convolutions, parameters in the fully connected layers."""
    stages = [stage for stage in networks.stages("one_tower") if stage.parameters]
    drawing = Drawing(600, 40 + 30 * len(stages))
    parameters, macs = (sum(getattr(stage, name) for stage in stages) for name in ("parameters", "macs"))
    drawing.text(70, 12, "multiply-adds", anchor="start")
    drawing.text(320, 12, "parameters", anchor="start")
    names = [f"conv{i}" for i in range(1, 6)] + [f"fc{i}" for i in range(6, 9)]
    for i, (name, stage) in enumerate(zip(names, stages, strict=True)):
        y = 30 + 30 * i
        drawing.text(4, y + 11, name, anchor="start")
        for left, share, kind in ((70, stage.macs / macs, "hot"), (320, stage.parameters / parameters, "cool")):
            drawing.box(left, y, max(1.0, 300 * share), 22, kind)
            drawing.text(left + 300 * share + 8, y + 11, f"{share:.1%}", kind="small", anchor="start")
    return drawing


def image_sizes() -> Drawing:
    """The right end of a row of pixels. 224 alone: 54 windows, one pixel unused. With 2 zeros: 55. 227: 55, none left."""
    drawing = Drawing(620, 300)
    cell, shown = 16, 30
    for i, (size, padding) in enumerate([(224, 0), (224, 2), (227, 0)]):
        x, weight = np.zeros((1, 1, size)), np.zeros((1, 1, 1, 11))
        out, _ = conv2d.forward(x, weight, stride=4, padding=(0, padding))
        windows = out.shape[2]
        first, end = 4 * (windows - 1) - padding, 4 * (windows - 1) - padding + 11
        y = 30 + 95 * i
        drawing.text(4, y - 12, f"{size} pixels, padding {padding}: {windows} windows", anchor="start")
        start = size + padding - shown
        for j in range(shown):
            pixel = start + j
            kind = "hot" if first <= pixel < end else "ghost" if pixel >= size else "plain"
            drawing.box(4 + j * cell, y, cell, 24, kind)
        left = size + padding - end
        drawing.text(
            4 + shown * cell + 10, y + 12, f"{left} left over" if left else "none left over", kind="small", anchor="start"
        )
        drawing.text(4 + (first - start + 5.5) * cell, y + 38, "the last window", kind="small")
    return drawing


def rounding() -> Drawing:
    """Errors of float32 sums of n products, n from 4 to 65,536. All are far below the bound, sums in blocks lowest."""
    drawing = Drawing(620, 300)
    rng = np.random.default_rng(0)
    sizes = 2 ** np.arange(2, 17)
    u = np.finfo(np.float32).eps / 2
    worst: dict[str, list[float]] = {"in order": [], "in blocks": []}
    for n in sizes:
        x, w = rng.random((2, 30, n), np.float32)
        exact = (x.astype(np.float64) * w).sum(axis=1)
        for name, total in (("in order", np.cumsum(x * w, axis=1)[:, -1]), ("in blocks", (x * w).sum(axis=1))):
            worst[name].append(float(np.max(np.abs(total - exact) / exact) / u))
    axes = Axes(drawing, (70, 45, 430, 220), (2, 16), (-1.5, 5))
    axes.ticks({2: "4", 7: "128", 12: "4,096", 16: "65,536 = n"}, {0: "u", 2: "100 u", 4: "10,000 u"})
    axes.plot(np.log2(sizes), np.log10(sizes / (1 - sizes * u)), "plain thick")
    drawing.text(510, axes.at(16, 4.8)[1], "the bound", kind="small", anchor="start")
    for (name, errors), kind in zip(worst.items(), ("hot thick", "cool thick"), strict=True):
        axes.plot(np.log2(sizes), np.log10(errors), kind)
        drawing.text(510, axes.at(16, float(np.log10(errors[-1])))[1], name, kind="small", anchor="start")
    drawing.text(4, 15, "worst error of 30 sums of n products, relative to the sum", kind="small", anchor="start")
    return drawing
