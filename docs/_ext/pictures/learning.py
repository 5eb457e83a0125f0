"""From logits to the loss and its gradient, and what the optimizer makes of that."""

from __future__ import annotations

import numpy as np

import scratch
from docs._ext.svg import Axes, Drawing, number
from scratch.modules import Parameter

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
    axes.ticks({0: "0", cut: "rate / 10", steps: f"{steps} steps"}, {-1: "−1", 0: "0", 1: "w = 1"})
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
