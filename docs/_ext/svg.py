"""Drawings in SVG that take their colours from the page, so that they work in dark mode; see ``_static/book.css``."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

CELL = 34  # height and width of a cell in a grid
LEAST = 0.8  # a drawing is never made smaller than this, so that its letters can be read; it then scrolls by itself
Point = tuple[float, float]
Kind = Callable[[int, int], str]


class Drawing:
    """Shapes on a canvas. A ``kind`` is a class in the style sheet: hot, cool, faint, plain, ghost."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._shapes: list[str] = []

    def text(self, x: float, y: float, text: str, *, kind: str = "", anchor: str = "middle") -> None:
        """A line of text, with its middle (or start or end) at x and its half height at y."""
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}" dominant-baseline="central">'
            f"{html.escape(text)}</text>"
        )

    def title(self, x: float, text: str, y: float = 12) -> None:
        """What the shapes below it are."""
        self.text(x, y, text, anchor="start")

    def box(self, x: float, y: float, width: float, height: float, kind: str = "plain") -> None:
        """A rectangle with its top left corner at (x,y)."""
        self._shapes.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{kind}"/>')

    def line(self, points: Sequence[Point], kind: str = "plain") -> None:
        """A line from point to point."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._shapes.append(f'<polyline points="{path}" class="{kind}"/>')

    def arrow(self, start: Point, end: Point, kind: str = "plain") -> None:
        """A line with an arrowhead at its end."""
        angle = math.atan2(end[1] - start[1], end[0] - start[0])
        self.line([start, end], kind)
        head = [(end[0] - 8 * math.cos(angle + turn), end[1] - 8 * math.sin(angle + turn)) for turn in (-0.45, 0.45)]
        self.line([head[0], end, head[1]], kind)

    def grid(self, x: float, y: float, values: Any, kind: Kind = lambda row, column: "plain", *, cell: float = CELL) -> None:
        """A matrix, cell by cell; cells that are None stay empty."""
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                self.box(x + column * cell, y + row * cell, cell, cell, kind(row, column))
                if value is not None:
                    self.text(x + (column + 0.5) * cell, y + (row + 0.5) * cell, number(value))

    def svg(self, description: str) -> str:
        """The drawing as an element of a page, with the description for readers who cannot see it."""
        return (
            f'<svg viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" '
            f'style="min-width: {LEAST * self.width:.0f}px" role="img" '
            f'aria-label="{html.escape(" ".join(description.split()))}">{"".join(self._shapes)}</svg>'
        )


class Axes:
    """A frame with two scales to plot in."""

    def __init__(self, drawing: Drawing, frame: tuple[float, float, float, float], x: Point, y: Point) -> None:
        self.drawing, self.x, self.y = drawing, x, y
        self.left, self.top, self.width, self.height = frame
        drawing.line([(self.left, self.top), (self.left, self.top + self.height)], "faint")
        drawing.line([(self.left, self.top + self.height), (self.left + self.width, self.top + self.height)], "faint")

    def at(self, x: float, y: float) -> Point:
        """The values' position on the canvas."""
        right = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + right * self.width, self.top + (1 - up) * self.height

    def plot(self, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray, kind: str) -> None:
        """A line through the values."""
        self.drawing.line([self.at(a, b) for a, b in zip(x, y, strict=True)], kind)

    def ticks(self, x: dict[float, str], y: dict[float, str]) -> None:
        """Labels along the two scales."""
        for value, label in x.items():
            self.drawing.text(self.at(value, 0)[0], self.top + self.height + 14, label, kind="small")
        for value, label in y.items():
            self.drawing.text(self.left - 8, self.at(0, value)[1], label, kind="small", anchor="end")


def number(value: Any) -> str:
    """The value, written as short as possible."""
    return value if isinstance(value, str) else f"{float(value):.4g}".replace("-", "−")


def spotlight(*cells: tuple[int, int]) -> Kind:
    """These cells of a grid are hot."""
    return lambda row, column: "hot" if (row, column) in cells else "plain"


def where(mask: np.ndarray, otherwise: str = "plain") -> Kind:
    """The cells of a grid for which the mask is true are hot."""
    return lambda row, column: "hot" if mask[row, column] else otherwise
