"""How a convolution's windows are laid out, multiplied and added up."""

from __future__ import annotations

import numpy as np

from docs._ext.svg import CELL, Drawing, spotlight, where
from scratch import conv2d
from scratch.convolution import winograd_transforms
from scratch.core.ladder import Cache


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

    drawing.title(4, "x in its frame of zeros (padding 1)")
    drawing.grid(4, 30, framed, kind)
    drawing.title(290, "weight")
    drawing.grid(290, 98, weight[0, 0])
    drawing.text(266, 149, "×")
    drawing.title(460, "out (stride 2)")
    drawing.grid(460, 98, out[0, 0], spotlight((oh, ow)))
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
    drawing.title(4, "x")
    drawing.grid(4, 28, x[0, 0], spotlight((1, 1)))
    drawing.text(55, 146, "four windows", kind="small")
    drawing.arrow((120, 79), (268, 79))
    drawing.text(194, 66, "im2col", kind="small")
    drawing.title(280, "columns (KH·KW, OH·OW)")
    drawing.grid(280, 28, columns, lambda row, column: "hot" if columns[row, column] == middle else "plain")
    for column in range(4):
        drawing.text(280 + (column + 0.5) * CELL, 178, str(column + 1), kind="small")
    drawing.text(430, 178, "the window's number", kind="small", anchor="start")
    drawing.title(4, "weight (OC, KH·KW)", 222)
    drawing.grid(4, 236, weight.reshape(2, 4))
    drawing.text(210, 270, "@ columns  =")
    drawing.title(280, "out (OC, OH·OW)", 222)
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
        drawing.grid(8 + i * step, 44, covered, where(covered > 0), cell=cell)
        drawing.text(8 + i * step + 4 * cell + 15, 44 + 2 * cell, "=" if i == 3 else "+")
    total = _grad_x(np.ones_like(out), cache)
    drawing.text(484 + 75, 12, "grad_x")
    drawing.grid(484 + 7, 28, total, lambda row, column: "hot" if total[row, column] == 4 else "plain", cell=34)
    return drawing


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
    drawing.title(4, "how many outputs read this cell")
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
        drawing.title(4, title, top - 16)
        drawing.grid(4, top, before)
        drawing.arrow((150, top + 68), (240, top + 68))
        drawing.text(195, top + 54, name, kind="small")
        drawing.grid(250, top, after, lambda row, column: "cool")
    drawing.text(318, 199, "⊙")
    drawing.line([(392, 96), (420, 96), (420, 301), (392, 301)], "faint")
    drawing.arrow((420, 199), (446, 199))
    drawing.title(456, "16 products", 115)
    drawing.grid(456, 131, cells * taps + 0.0, lambda row, column: "hot")
    drawing.arrow((598, 199), (650, 199))
    drawing.text(624, 185, "Aᵀ · A", kind="small")
    drawing.title(658, "Y, to out", 149)
    drawing.grid(658, 165, out[0, 0])
    return drawing
