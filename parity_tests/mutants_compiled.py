"""Mistakes in compiled rungs: at the edges of tiles, panels and blocks, in transforms, and in which calls a rung takes.

None of them lets a kernel read or write outside its arrays, or leaves a result unwritten: the contents of such memory are random.
"""

from __future__ import annotations

from parity_tests.mutants import Mutant, planting

NUMBA = "# --- numba"

IMPLICIT_GEMM = (
    *planting(
        "conv2d",
        "implicit_gemm",
        ("the bias is added twice", "panel[r * pitch + steps] = bias", "panel[r * pitch + steps] = 2 * bias"),
        (
            "a full panel's last row repeats the one before",
            "row = min(top + r, count - 1)",
            "row = min(top + min(r, MR - 2), count - 1)",
        ),
        ("every panel has the first one's rows", "row = min(top + r, count - 1)", "row = min(r, count - 1)"),
        ("every group reads the first group's channels", "channel_at = group * (layout.image // groups)", "channel_at = 0"),
        ("a panel's stretches begin at its first pixel", "stretches.j[panel, i] = j", "stretches.j[panel, i] = 0"),
        ("cells that share a window use the first one's taps", "which[member, tap + q]", "which[0, tap + q]"),
        module="scratch.convolution.implicit_gemm_correlate",
    ),
    *planting(
        "conv2d",
        "implicit_gemm",
        ("grad_x's taps run backwards down the window", "which = kh[:, None, :, None]", "which = kh[:, None, ::-1, None]"),
        (
            "cells that share a window down are written to the row of the first",
            "(h0[:, None] - h0[0]) * W",
            "(h0[:, None] - h0[:, None]) * W",
        ),
        (
            "infinite weights are taken: 0 · ∞ in the padded input",
            "x.size == 0 or not (np.isfinite(weight.sum()) or np.isfinite(weight).all())",
            "x.size == 0",
        ),
        module="scratch.convolution.implicit_gemm",
    ),
    *planting(
        "conv2d",
        "implicit_gemm",
        (
            "the pixels after a block's last whole vector are dropped",
            "        vectors = plan_copies(n * P + p",
            "        count -= count % width\n        vectors = plan_copies(n * P + p",
        ),
        ("a block of pixels overwrites what the blocks before it gave", "MR, True)", "MR, False)"),
        ("every group is multiplied with the first one's g", "(n * OC + group * OC_group) * P", "n * OC * P"),
        (
            "the next group is multiplied with the g of the one before",
            "if i == first or tap == 0:",
            "if i == first:",
        ),
        (
            "an image's blocks of pixels begin where full ones would, but share the pixels evenly",
            "block % blocks * P // blocks",
            "block % blocks * KC",
        ),
        module="scratch.convolution.implicit_gemm_grad_weight",
    ),
)

WINOGRAD = (
    *planting(
        "conv2d",
        "winograd",
        ("the filter's transform has a wrong sign", "(0.5, -0.5, 0.5)", "(0.5, 0.5, 0.5)"),
        ("the filter's transform is not halved", "(0.5, 0.5, 0.5)", "(1.0, 1.0, 1.0)"),
        ("the output's transform has a wrong sign", "(0, 1, -1, -1))", "(0, 1, -1, 1))"),
        module="scratch.convolution.winograd_transforms",
    ),
    *planting(
        "conv2d",
        "winograd",
        ("grad_x's filters are not turned round", "order[::-1, ::-1])", "order)"),
        (
            "the pieces are in another order than their products are looked for in",
            "low(tap[0]) == narrow(tap[1])",
            "narrow(tap[1])",
        ),
        module="scratch.convolution.winograd_tiles",
    ),
    *planting(
        "conv2d",
        "winograd",
        ("a tile's second row goes without the bias", "2 * NR + right, addend, flat_out", "2 * NR + right, 0 * addend, flat_out"),
        ("each piece of a larger window reads the first one's patch", "tiles.patches[k // C]", "tiles.patches[0]"),
        ("infinities are taken, and reach outputs that do not see them", "pad(x, layout, limit)", "pad(x, layout)"),
        module="scratch.convolution.winograd_correlate",
    ),
    *planting(
        "conv2d",
        "winograd",
        (
            "a piece's taps beyond the window are not zero",
            "if tap >= 0 else zeros",
            "if tap >= 0 else c * size * whole",
        ),
        ("the last panel of filters begins where the one before it does", "min(top + r, M - 1)", "min(r, M - 1)"),
        module="scratch.convolution.winograd_filters",
    ),
    *planting(
        "conv2d",
        "winograd",
        (
            "grad_weight leaves out the tiles at the lower edge of an odd output",
            "math.ceil(geometry.OH / 2), math.ceil(geometry.OW / 2)",
            "max(1, geometry.OH // 2), math.ceil(geometry.OW / 2)",
        ),
        ("a block of tiles overwrites what the blocks before it gave", "M - m * MR, True)", "M - m * MR, False)"),
        (
            "grad_weight multiplies two pieces' vectors only where the first one's products are",
            "pieces.needed[piece].any(1)",
            "pieces.needed[piece[:, 0]]",
        ),
        module="scratch.convolution.winograd_grad_weight",
    ),
)

# The generic test seldom or never has the case that shows one of these; a test of its own does.
RARE_CELL = planting(
    "max_pool2d",
    "numba",
    ("NaN is not looked for in a plane's last cell", "cells[: size * L]", "cells[: (size - 1) * L]"),
    after=NUMBA,
)
WIDE_PADDING = planting(
    "conv2d",
    "implicit_gemm",
    (
        "rows of outputs below the image have no room",
        "bottom = max(0, (geometry.top + H - 1) // sh - geometry.OH + 1)",
        "bottom = (geometry.top + H - 1) // sh - geometry.OH + 1",
    ),
    module="scratch.convolution.implicit_gemm",
)
NO_CELL = planting(
    "max_pool2d",
    "numba",
    ("the gradient of a window without a cell goes to the cell after the last", "if index < cells:", "if index <= cells:"),
    after=NUMBA,
)
FULL_BLOCK = planting(
    "conv2d",
    "winograd",
    (
        "the last element's last channel has no room for what the last vector writes too much",
        "ELEMENTS * (M_whole + 1) * KC",
        "(ELEMENTS * (M_whole + 1) - 1) * KC",
    ),
    module="scratch.convolution.winograd_grad_weight",
)
# Only an output one pixel or one tile wide takes a vector for each pixel or tile. The plans are arrays that kernels make, so no
# guard words are around them.
FULL_PLAN = tuple(
    mutant
    for rung, module, most in (
        ("implicit_gemm", "implicit_gemm_correlate", "most * NR"),
        ("implicit_gemm", "implicit_gemm_grad_weight", "KC"),
        ("winograd", "winograd_correlate", "NR"),
        ("winograd", "winograd_grad_weight", "KC"),
    )
    for mutant in planting(
        "conv2d",
        rung,
        (f"{module} has room for one vector too few in a plan", f"new_copies({most})", f"new_copies({most} - 1)"),
        module=f"scratch.convolution.{module}",
    )
)
# Calls of the generic test are too small for these: test_blocks.py has larger ones.
SEVERAL_BLOCKS = (
    *planting(
        "conv2d",
        "implicit_gemm",
        ("a block of taps overwrites what the blocks before it gave", "count - top, k > 0", "count - top, False"),
        ("a block of taps reads the columns of the first one", "taps[k + j]", "taps[j]"),
        ("the bias is in every block", "steps + last_block, weights", "steps + 1, weights"),
        module="scratch.convolution.implicit_gemm_correlate",
    ),
    *planting(
        "conv2d",
        "winograd",
        ("a block of channels overwrites what the blocks before it gave", "rows - m * MR, k > begin", "rows - m * MR, False"),
        ("every share of the channels is the first one", "channel, channels = begin * MR,", "channel, channels = 0,"),
        module="scratch.convolution.winograd_correlate",
    ),
)
SEVERAL_PARTS = planting(
    "linear",
    "numba",
    ("a part of a row is as long as the row", "min(begin + run_steps, IN), KC", "IN, KC"),
    ("a row ends with its first part", "range(0, IN, run_steps)", "range(0, run_steps, run_steps)"),
    ("all tiles get the first one's sums", "(t * batch_panels + b) * STRIPE", "b * STRIPE"),
    after=NUMBA,
)

OTHERS = (
    *planting(
        "conv2d",
        "numba",
        ("col2im assigns instead of adding", "grad_image[c, h, w] += columns", "grad_image[c, h, w] = columns"),
        after=NUMBA,
    ),
    *planting(
        "linear",
        "numba",
        ("a single row is multiplied by the first row of weight", "dot(weight, o * IN,", "dot(weight, 0,"),
        ("a block of the sum overwrites those before", "NR, STRIPE, k > 0", "NR, STRIPE, False"),
        ("a block of grad_x's sum overwrites those before", "tiles, tile, NR, MR, k > 0", "tiles, tile, NR, MR, False"),
        (
            "the last tile of columns begins after its first one",
            "    column = min(t * MR, here - MR)",
            "    column = t * MR % (here - MR + 1)",
        ),
        (
            "the last panel of features is an early one",
            "min(panel * NR, K - NR)",
            "panel * NR % (K - NR + 1)",
        ),
        ("every work item multiplies the first rows of weight", "weight, o * IN + k, 1", "weight, t * STRIPE * IN + k, 1"),
        ("the batch's second panel gets the first one's tiles", "batch_panels + row // NR) * STRIPE", "batch_panels) * STRIPE"),
        ("every piece writes to the first columns", "column = left + min(t * MR, here - MR)", "column = min(t * MR, here - MR)"),
        after=NUMBA,
    ),
    *planting(
        "linear",
        "numba",
        ("of a few rows each is multiplied like the first", "top * IN + k, IN, sums", "k, IN, sums"),
        ("every block of a row is the first", "weight, o * IN + k, IN,", "weight, o * IN, IN,"),
        ("the features after a row's last whole vector are dropped", "range(whole, IN):", "range(whole, whole):"),
        ("half of the lanes' sums are lost", "half = width // 2", "half = width // 4"),
        ("the second group of rows gets the first one's sums", "row // ROWS * WEIGHTS + w", "w"),
        (
            "the sum over rows of weight is only its last block's",
            "result[row, left + j] += block",
            "result[row, left + j] = block",
        ),
        ("a block begins with the sums of the one before", "            block[:] = 0\n", "            block[:ROWS] = 0\n"),
        ("the second group of rows has the first one's factors", "(group * OUT + o) * ROWS, group", "o * ROWS, group"),
        ("an odd row of weight is left out", "range(begin, end, PAIR)", "range(begin, end - 1, PAIR)"),
        (
            "the columns after the last whole vector are another's",
            "(row + 1) * length - (count - whole)",
            "row * length + columns",
        ),
        ("g is read from its last column on", "= some.T, 0", "= some.T[::-1], 0"),
        module="scratch.fully_connected.few_rows",
    ),
    *planting(
        "local_response_norm",
        "numba",
        ("no channel after the last whole four is added", "while i < len(rows):", "while i < 0:"),
        ("channels stay in the window beyond the last", "            squares[slot, p] = 0", "            squares[slot, p] += 0"),
        ("the roots' short cut is for another beta", "inverse = one / (root * fourth_root)", "inverse = one / root"),
        after=NUMBA,
    ),
    *planting(
        "max_pool2d",
        "numba",
        (
            "a window that ends at the image's edge goes without its last column",
            "(cells - 1 - start) // dilation + 1)",
            "(cells - 1 - start) // dilation)",
        ),
        (
            "a window that begins at the image's edge, or before it, goes without its first column",
            "(dilation - 1 - start) // dilation",
            "(2 * dilation - 1 - start) // dilation",
        ),
        ("a window's rows are neighbours, whatever the dilation", "DH * W, rows[oh]", "W, rows[oh]"),
        ("NaN is compared like a number", "math.isfinite(total(cells[: size * L]))", "True"),
        after=NUMBA,
    ),
    *planting(
        "max_pool2d",
        "numba",
        ("the last of equal cells wins", 'fcmp_ordered(">", value, kept)', 'fcmp_ordered(">=", value, kept)'),
        ("NaN gives way to any number", 'fcmp_unordered("uno", value, value)', 'fcmp_unordered("uno", kept, kept)'),
        (
            "every row of a window begins anew",
            "row, row_everywhere, row_kept, row_index\n",
            "row, row_everywhere, loaded(row), row_everywhere\n",
        ),
        (
            "the second row's indices continue the first's",
            "(row_everywhere, row_step_everywhere)",
            "(row_everywhere, step_everywhere)",
        ),
        module="scratch.pooling.window_maximum",
    ),
    *planting(
        "max_pool2d",
        "numba",
        (
            "of planes too small for a square of vectors every cell is the first",
            "source[source_at + offsets[i] + j]",
            "source[source_at + offsets[i]]",
        ),
        module="scratch.compiled.vectors",
    ),
    *planting(
        "adaptive_avg_pool2d",
        "numba",
        ("a row of windows begins with the sums of the one above", "down[w] = 0", "down[w] = 0 if oh == 0 else down[w]"),
        after=NUMBA,
    ),
    *planting(
        "softmax",
        "numba",
        ("the last class has no part in backward's sum", "out[row], 0, C)", "out[row], 0, C - 1)"),
        after=NUMBA,
    ),
    *planting(
        "sgd",
        "numba",
        ("nesterov steps by the velocity alone", "rate * (d + momentum * v[i] if nesterov else v[i])", "rate * v[i]"),
        after=NUMBA,
    ),
)

MUTANTS: tuple[Mutant, ...] = (*IMPLICIT_GEMM, *WINOGRAD, *OTHERS)
