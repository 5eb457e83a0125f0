"""The book's pictures. Every number in them comes from the kernels that they explain; a docstring describes the picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import scratch
from docs._ext import networks
from docs._ext.svg import CELL, Axes, Drawing, Kind, number
from scratch import conv2d
from scratch.convolution import winograd_transforms
from scratch.core.ladder import Cache
from scratch.modules import Parameter


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


def _spotlight(*cells: tuple[int, int]) -> Kind:
    return lambda row, column: "hot" if (row, column) in cells else "plain"


def _title(drawing: Drawing, x: float, text: str, y: float = 12) -> None:
    drawing.text(x, y, text, anchor="start")


def window() -> Drawing:
    """A 5×5 image padded with zeros, a 3×3 window on it at row 2, column 4 of the padded image, and the output's cell (1,2)."""
    drawing = Drawing(640, 275)
    x = np.arange(1.0, 26).reshape(1, 1, 5, 5) % 7
    weight = np.array([[[[0, 1, 0], [1, -4.0, 1], [0, 1, 0]]]])
    out, _ = conv2d.forward(x, weight, stride=2, padding=1)
    oh, ow = 1, 2
    framed = np.pad(x[0, 0], 1)

    def kind(row: int, column: int) -> str:
        seen = 0 <= row - 2 * oh < 3 and 0 <= column - 2 * ow < 3
        return "hot" if seen else "plain" if 1 <= row <= 5 and 1 <= column <= 5 else "ghost"

    _title(drawing, 4, "x in its frame of zeros (padding 1)")
    drawing.grid(4, 30, framed, kind)
    _title(drawing, 290, "weight")
    drawing.grid(290, 98, weight[0, 0])
    drawing.text(266, 149, "×")
    _title(drawing, 460, "out (stride 2)")
    drawing.grid(460, 98, out[0, 0], _spotlight((oh, ow)))
    drawing.arrow((400, 149), (452, 149))
    return drawing


def im2col() -> Drawing:
    """A 3×3 image with four 2×2 windows. Each window is a column of a 4×4 matrix; the middle cell, 5, is in all four."""
    drawing = Drawing(640, 330)
    x = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    weight = np.array([[[[1, 0], [0, 1.0]]], [[[1, 1], [1, 1.0]]]])
    out, cache = conv2d.forward(x, weight)
    columns = conv2d.im2col(x, weight.shape, cache.saved[-1])[0]
    middle = x[0, 0, 1, 1]
    _title(drawing, 4, "x")
    drawing.grid(4, 28, x[0, 0], _spotlight((1, 1)))
    drawing.text(55, 146, "four windows", kind="small")
    drawing.arrow((120, 79), (268, 79))
    drawing.text(194, 66, "im2col", kind="small")
    _title(drawing, 280, "columns (KH·KW, OH·OW)")
    drawing.grid(280, 28, columns, lambda row, column: "hot" if columns[row, column] == middle else "plain")
    for column in range(4):
        drawing.text(280 + (column + 0.5) * CELL, 178, str(column + 1), kind="small")
    drawing.text(430, 178, "the window's number", kind="small", anchor="start")
    _title(drawing, 4, "weight (OC, KH·KW)", 222)
    drawing.grid(4, 236, weight.reshape(2, 4))
    drawing.text(210, 270, "@ columns  =")
    _title(drawing, 280, "out (OC, OH·OW)", 222)
    drawing.grid(280, 236, out.reshape(2, 4))
    return drawing


def _grad_x(grad_out: np.ndarray, cache: Cache) -> np.ndarray:
    grad_x, _, _ = conv2d.backward(grad_out, cache)
    assert grad_x is not None
    plane: np.ndarray = grad_x[0, 0]
    return plane


def col2im() -> Drawing:
    """Four 3×3 windows on a 4×4 image, each alone, then their sum: corners once, edges twice, the middle four times."""
    drawing = Drawing(640, 190)
    x, weight = np.zeros((1, 1, 4, 4)), np.ones((1, 1, 3, 3))
    out, cache = conv2d.forward(x, weight)
    cell, step = 22, 118
    for i, (oh, ow) in enumerate(np.ndindex(out.shape[2:])):
        one = np.zeros_like(out)
        one[0, 0, oh, ow] = 1
        covered = _grad_x(one, cache)
        drawing.text(8 + i * step + 2 * cell, 26, f"from out[{oh},{ow}]", kind="small")
        drawing.grid(8 + i * step, 44, covered, _where(covered > 0), cell=cell)
        drawing.text(8 + i * step + 4 * cell + 15, 44 + 2 * cell, "=" if i == 3 else "+")
    total = _grad_x(np.ones_like(out), cache)
    drawing.text(484 + 75, 12, "grad_x")
    drawing.grid(484 + 7, 28, total, lambda row, column: "hot" if total[row, column] == 4 else "plain", cell=34)
    return drawing


def _where(mask: np.ndarray, otherwise: str = "plain") -> Kind:
    return lambda row, column: "hot" if mask[row, column] else otherwise


def implicit_gemm() -> Drawing:
    """The product of weight and columns. The column matrix is dashed: only KC taps of a panel exist; below them a tile of out."""
    drawing = Drawing(640, 330)
    drawing.box(250, 20, 340, 130, "ghost")
    drawing.text(475, 75, "columns (K, pixels)", kind="small")
    drawing.text(475, 95, "never written", kind="small")
    drawing.box(310, 20, 50, 130, "ghost")
    drawing.box(310, 72, 50, 52, "hot")  # KC of the K taps
    drawing.text(335, 98, "panel", kind="small")
    drawing.box(250, 180, 340, 120, "plain")
    drawing.text(475, 285, "out (OC, pixels)", kind="small")
    drawing.box(310, 215, 50, 30, "hot")
    drawing.text(335, 230, "tile", kind="small")
    drawing.box(50, 180, 160, 120, "plain")
    drawing.text(130, 285, "weight (OC, K)", kind="small")
    drawing.box(50, 215, 160, 30, "plain")
    drawing.box(114, 215, 64, 30, "cool")  # the same taps
    drawing.text(146, 230, "MR × KC", kind="small")
    drawing.arrow((215, 230), (304, 230))
    drawing.arrow((335, 128), (335, 210))
    drawing.box(50, 40, 110, 80, "plain")
    drawing.text(105, 80, "x, padded", kind="small")
    drawing.arrow((164, 80), (304, 80))
    drawing.text(206, 68, "copied", kind="small")
    drawing.text(335, 315, "two vectors of pixels wide", kind="small")
    return drawing


def phases() -> Drawing:
    """An 8×8 image under 3×3 windows at stride 2. In a checkered pattern, cells are read by four taps, two, two, or one."""
    drawing = Drawing(560, 310)
    x, weight = np.zeros((1, 1, 17, 17)), np.ones((1, 1, 3, 3))
    out, cache = conv2d.forward(x, weight, stride=2)
    total = _grad_x(np.ones_like(out), cache)
    taps = total[4:12, 4:12]  # from the middle, away from the borders
    kinds = {4: "hot", 2: "cool", 1: "plain"}
    drawing.grid(4, 28, taps, lambda row, column: kinds[int(taps[row, column])])
    _title(drawing, 4, "how many outputs read this cell")
    for i, (rest, text) in enumerate(
        {"(0,0)": "four taps: kh, kw in {0,2}", "(0,1)": "two: kh in {0,2}, kw = 1", "(1,0)": "two: kh = 1, kw in {0,2}",
         "(1,1)": "one: kh = kw = 1"}.items()
    ):  # fmt: skip
        drawing.text(300, 70 + 50 * i, f"(h % 2, w % 2) = {rest}", anchor="start")
        drawing.text(300, 90 + 50 * i, text, kind="small", anchor="start")
    return drawing


def winograd() -> Drawing:
    """A 4×4 square of x and a 3×3 filter, each transformed to 4×4 and multiplied elementwise; the 16 products give 2×2
    outputs.
    """
    drawing = Drawing(730, 385)
    BT, AT, G = (np.array(matrix) for matrix in (winograd_transforms.BT, winograd_transforms.AT, winograd_transforms.G))
    x = np.array([[1, 2, 0, 1], [0, 3, 1, 2], [2, 1, 0, 1], [1, 0, 2, 3.0]])
    weight = np.array([[0, 2, 0], [2, -8, 2], [0, 2, 0.0]])
    cells, taps = BT @ x @ BT.T, G @ weight @ G.T
    out, _ = conv2d.forward(x[None, None], weight[None, None])
    if not np.array_equal(AT @ (cells * taps) @ AT.T, out[0, 0]):
        raise ValueError("winograd: the picture's transforms must give convolution's output")
    for top, title, before, name, after in ((28, "d, from x", x, "Bᵀ d B", cells), (233, "g, a filter", weight, "G g Gᵀ", taps)):
        _title(drawing, 4, title, top - 16)
        drawing.grid(4, top, before)
        drawing.arrow((150, top + 68), (240, top + 68))
        drawing.text(195, top + 54, name, kind="small")
        drawing.grid(250, top, after, lambda row, column: "cool")
    drawing.text(318, 199, "⊙")
    drawing.line([(392, 96), (420, 96), (420, 301), (392, 301)], "faint")
    drawing.arrow((420, 199), (446, 199))
    _title(drawing, 456, "16 products", 115)
    drawing.grid(456, 131, cells * taps + 0.0, lambda row, column: "hot")
    drawing.arrow((598, 199), (650, 199))
    drawing.text(624, 185, "Aᵀ · A", kind="small")
    _title(drawing, 658, "Y, to out", 149)
    drawing.grid(658, 165, out[0, 0])
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
    _title(drawing, 4, "x")
    drawing.grid(4, 28, x[0, 0], _spotlight(*winners))
    drawing.arrow((184, 113), (262, 113))
    drawing.text(223, 99, "forward", kind="small")
    _title(drawing, 275, "out")
    drawing.grid(275, 79, out[0, 0])
    _title(drawing, 420, "indices h·W + w")
    drawing.grid(420, 79, indices[0, 0])
    _title(drawing, 4, "grad_x", 232)
    drawing.grid(4, 248, grad_x[0, 0], _where(grad_x[0, 0] != 0))
    drawing.arrow((262, 333), (184, 333))
    drawing.text(223, 319, "backward", kind="small")
    _title(drawing, 275, "grad_out", 283)
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
        drawing.grid(4, 88 + ow * 42, [shares], _where(row[np.newaxis] > 0, "ghost"), cell=44)
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


STEP = 42  # the distance between bars


def _bars(drawing: Drawing, left: float, values: np.ndarray, label: str, unit: float, zero: float = 150) -> None:
    drawing.text(left + len(values) * STEP / 2, 14, label)
    drawing.line([(left - 4, zero), (left + len(values) * STEP, zero)], "faint")
    for i, value in enumerate(values):
        height = abs(value) * unit
        drawing.box(left + i * STEP, zero - height if value > 0 else zero, 30, height, "hot" if value > 0 else "cool")
        y = zero - height - 10 if value > 0 else zero + height + 11
        drawing.text(left + i * STEP + 15, y, number(round(float(value), 3)), kind="small")


def softmax() -> Drawing:
    """Bars: the logits 2, 1, 0, −1; the exponentials of their differences from the largest; and these divided by their sum."""
    drawing = Drawing(640, 220)
    x = np.array([2.0, 1, 0, -1])
    probabilities, _ = scratch.softmax.forward(x, dim=0)
    _bars(drawing, 10, x, "x", 45)
    _bars(drawing, 235, np.exp(x - x.max()), "exp(x − peak)", 100)
    _bars(drawing, 460, probabilities, "out: they add up to 1", 100)
    for left in (184, 410):
        drawing.arrow((left, 100), (left + 38, 100))
    return drawing


def log_softmax() -> Drawing:
    """Two lines over the distance to the largest logit: log_softmax keeps falling, the logarithm of softmax ends at −103."""
    drawing = Drawing(560, 250)
    distance = np.arange(0, 141, dtype=np.float32)
    rows = np.stack([np.zeros_like(distance), -distance], axis=1)
    right, _ = scratch.log_softmax.forward(rows)
    probabilities, _ = scratch.softmax.forward(rows)
    alive = probabilities[:, 1] > 0
    axes = Axes(drawing, (60, 20, 460, 180), (0, 140), (-140, 0))
    axes.ticks({0: "0", 50: "50", 100: "100", 140: "140"}, {0: "0", -50: "−50", -100: "−100", -140: "−140"})
    axes.plot(distance, right[:, 1], "cool broad")
    axes.plot(distance[alive], np.log(probabilities[alive, 1]), "hot thick")
    last = distance[alive][-1]
    drawing.text(
        *axes.at(float(last) - 4, -float(last) - 12), f"log(softmax) is −∞ beyond {last:.0f}", kind="small", anchor="end"
    )
    drawing.text(*axes.at(60, -32), "log_softmax", kind="small", anchor="start")
    drawing.text(290, 238, "how far the logit lies below the largest (float32)", kind="small")
    return drawing


def cross_entropy() -> Drawing:
    """Bars: four probabilities, the target's 1 for class 1, and the gradient, which is the first minus the second."""
    drawing = Drawing(640, 230)
    logits = np.array([[2.0, 1, 0, -1]])
    target = np.array([1])
    loss, cache = scratch.cross_entropy.forward(logits, target)
    (gradient,) = scratch.cross_entropy.backward(np.ones_like(loss), cache)
    probabilities, _ = scratch.softmax.forward(logits)
    _bars(drawing, 10, probabilities[0], "softmax", 85, 135)
    drawing.text(206, 100, "−")
    _bars(drawing, 235, np.eye(4)[target[0]], "target", 85, 135)
    drawing.text(430, 100, "=")
    _bars(drawing, 460, gradient[0], "grad_logits", 85, 135)
    return drawing


def sgd() -> Drawing:
    """A parameter over 25 steps, by both rules: together until the rate is cut at step 8, then the paper's pulls ahead."""
    drawing = Drawing(600, 260)
    steps, cut = 25, 8
    axes = Axes(drawing, (60, 15, 450, 205), (0, steps), (-1, 1))
    axes.ticks({0: "0", cut: "rate / 10", steps: f"{steps} steps"}, {-1: "−1", 0: "0", 1: "1"})
    axes.plot([0, steps], [0, 0], "faint")
    axes.plot([cut, cut], [-1, 1], "faint dashed")
    for update, kind in (("torch", "cool thick"), ("paper", "hot thick dashed")):
        w = Parameter(np.ones(1))
        optimizer = scratch.sgd.SGD([w], lr=0.05, momentum=0.9, update=update)
        path = [1.0]
        for step in range(steps):
            optimizer.lr = 0.005 if step >= cut else 0.05
            w.grad = w.data.copy()  # of the loss w²/2
            optimizer.step()
            path.append(float(w.data[0]))
        axes.plot(range(steps + 1), path, kind)
        x, y = axes.at(steps, path[-1])
        drawing.text(x + 8, y, update, kind="small", anchor="start")
    return drawing


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
    drawing = Drawing(620, 290)
    rng = np.random.default_rng(0)
    sizes = 2 ** np.arange(2, 17)
    u = np.finfo(np.float32).eps / 2
    worst: dict[str, list[float]] = {"in order": [], "in blocks": []}
    for n in sizes:
        x, w = rng.random((2, 30, n), np.float32)
        exact = (x.astype(np.float64) * w).sum(axis=1)
        for name, total in (("in order", np.cumsum(x * w, axis=1)[:, -1]), ("in blocks", (x * w).sum(axis=1))):
            worst[name].append(float(np.max(np.abs(total - exact) / exact) / u))
    axes = Axes(drawing, (70, 15, 430, 220), (2, 16), (-1.5, 5))
    axes.ticks({2: "4", 7: "128", 12: "4,096", 16: "65,536 = n"}, {0: "u", 2: "100 u", 4: "10,000 u"})
    axes.plot(np.log2(sizes), np.log10(sizes / (1 - sizes * u)), "plain thick")
    drawing.text(510, axes.at(16, 4.8)[1], "the bound", kind="small", anchor="start")
    for (name, errors), kind in zip(worst.items(), ("hot thick", "cool thick"), strict=True):
        axes.plot(np.log2(sizes), np.log10(errors), kind)
        drawing.text(510, axes.at(16, float(np.log10(errors[-1])))[1], name, kind="small", anchor="start")
    drawing.text(285, 280, "worst error of 30 sums of products, relative to the sum", kind="small")
    return drawing


PICTURES: dict[str, Callable[[], Drawing]] = {
    function.__name__: function
    for function in (
        relu, window, im2col, col2im, implicit_gemm, phases, winograd, max_pool, lrn_windows, average_windows, linear, dropout,
        softmax, log_softmax, cross_entropy, sgd, costs, image_sizes, rounding,
    )
}  # fmt: skip
