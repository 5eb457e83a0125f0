"""linear's products for a few rows: read the weight once, from front to back, as fast as memory delivers it.

With a few rows of x, each number of the weight is used only a few times, so nothing pays that first moves the weight elsewhere.
A tile of the result stays in registers or in L1 while rows of the weight stream past, each read in long runs. Long runs matter:
the processor then reads ahead by itself.

forward   weight (OUT,IN) · x' (IN, rows)   sums along a row of the weight: a vector of partial sums for each result
grad_x    g (rows,OUT) · weight (OUT,IN)    sums across the rows of the weight: each row, times a number of g, is added

Rows of x and g are taken ROWS at a time; missing ones are zeros, and their results are not used.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir
from numba import types

from scratch.compiled import memory
from scratch.compiled.blocks import KC
from scratch.compiled.emission import Flat, data_of, fused_multiply_add, loop, prefetched, spread, vector_at, vector_of, word
from scratch.compiled.jit import kernel
from scratch.compiled.microkernel import MR, NR_VECTORS
from scratch.compiled.threads import for_each
from scratch.compiled.vectors import AHEAD, lanes, multiply_add

WEIGHTS = 3  # rows of weight in a tile of forward
# Rows of x or g at a time: WEIGHTS·ROWS vectors of sums, WEIGHTS of weight and one of x fit into the registers together.
ROWS = MR * NR_VECTORS // WEIGHTS // 4 * 4
STEPS = KC // 4  # vectors in one running sum: the error grows with its length and with the number of blocks
PAIR = 2  # rows of weight that grad_x adds at once
RUN = 2048  # bytes of a row of weight that grad_x reads at once: ROWS rows of its result take half of the smallest L1


def product_of_few_rows(x: np.ndarray, weight: np.ndarray, out: np.ndarray) -> None:
    """Fill out (rows,OUT) = x (rows,IN) · weight' (IN,OUT), for a weight of at least WEIGHTS rows."""
    rows, OUT = out.shape
    IN = weight.shape[1]
    groups = math.ceil(rows / ROWS)
    padded = memory.workspace(groups * ROWS * IN, x.dtype)
    padded[: rows * IN], padded[rows * IN :] = x.ravel(), 0

    def run(first: int, last: int) -> None:
        sums = memory.workspace(groups * WEIGHTS * ROWS * lanes(x), x.dtype)
        _product_kernel(first, last, padded, weight.ravel(), sums, out)

    for_each(run, math.ceil(OUT / WEIGHTS), values=groups * WEIGHTS * IN)


@kernel
def _product_kernel(first: int, last: int, x: np.ndarray, weight: np.ndarray, sums: np.ndarray, out: np.ndarray) -> None:
    """A work item is WEIGHTS rows of weight; the last is moved back until it is full, and computes some results again.

    x (groups·ROWS, IN), weight (OUT,IN) and sums (groups, WEIGHTS, ROWS, lanes) are flat.
    """
    rows, OUT = out.shape
    IN, width = weight.size // OUT, lanes(x)
    whole = IN - IN % width
    for i in range(first, last):
        o = min(i * WEIGHTS, OUT - WEIGHTS)
        sums[:] = 0
        for k in range(0, whole, STEPS * width):
            for top in range(0, rows, ROWS):  # weight[o, k], x[top, k] -> sums[top / ROWS]
                steps = min(STEPS, (whole - k) // width)
                row_products(steps, weight, o * IN + k, IN, x, top * IN + k, IN, sums, top * WEIGHTS * width)
        for row in range(rows):
            for w in range(WEIGHTS):
                at = (row // ROWS * WEIGHTS + w) * ROWS + row % ROWS  # sums[row // ROWS, w, row % ROWS]
                parts = sums[at * width : (at + 1) * width]
                half = width // 2
                while half > 0:  # the lanes' sums are joined in pairs
                    for lane in range(half):
                        parts[lane] += parts[lane + half]
                    half //= 2
                total = parts[0]
                for k in range(whole, IN):
                    total = multiply_add(weight[(o + w) * IN + k], x[row * IN + k], total)
                out[row, o + w] = total


@word
def row_products(
    steps: int, weight: Flat, weight_at: int, weight_row: int, x: Flat, x_at: int, x_row: int, sums: Flat, sums_at: int
) -> None:
    """sums[w, r, lane] += Σ_k weight[w, k, lane] · x[r, k, lane], w < WEIGHTS, r < ROWS, k < ``steps``.

    (WEIGHTS, steps, lanes), (ROWS, steps, lanes) -> (WEIGHTS, ROWS, lanes). ``weight_row`` and ``x_row`` count the elements from
    one row to the next. The sum over k begins at zero and is added at the end. The weight, which may come from memory, is
    prefetched.
    """
    L = lanes(sums)
    for w in range(WEIGHTS):
        for r in range(ROWS):
            products = weight[weight_at + w * weight_row :][: steps * L] * x[x_at + r * x_row :][: steps * L]
            sums[sums_at + (w * ROWS + r) * L :][:L] += products.reshape(steps, L).sum(0)


@row_products.emitted
def row_products(typing_context, steps, weight, weight_at, weight_row, x, x_at, x_row, sums, sums_at):
    def emit(context, builder, signature, arguments):
        steps, _, weight_at, weight_row, _, x_at, x_row, _, sums_at = arguments
        weight, x, sums = data_of(context, builder, signature, arguments, 1, 4, 7)
        index = steps.type
        vector, itemsize = vector_of(context, signature.args[7])
        lanes = vector.count
        multiply_add = fused_multiply_add(builder, vector)

        def loaded(data, at, row, number):
            first = builder.add(at, builder.mul(row, index(number)))
            return builder.load(vector_at(builder, vector, data, first), align=itemsize)

        zero = ir.Constant(vector, [0.0] * lanes)
        weight_k, x_k, *accumulators, end = loop(builder, steps, weight_at, x_at, *[zero] * (WEIGHTS * ROWS))
        ahead = builder.add(weight_k, index(AHEAD // itemsize))
        for w in range(WEIGHTS):
            prefetched(builder, weight, builder.add(ahead, builder.mul(weight_row, index(w))))
        weights = [loaded(weight, weight_k, weight_row, w) for w in range(WEIGHTS)]
        totals = []
        for r in range(ROWS):
            value = loaded(x, x_k, x_row, r)
            for w in range(WEIGHTS):
                totals.append(builder.call(multiply_add, [weights[w], value, accumulators[r * WEIGHTS + w]]))
        end(builder.add(weight_k, index(lanes)), builder.add(x_k, index(lanes)), *totals)

        for number, accumulator in enumerate(accumulators):
            r, w = divmod(number, WEIGHTS)
            cell = vector_at(builder, vector, sums, builder.add(sums_at, index((w * ROWS + r) * lanes)))
            builder.store(builder.fadd(builder.load(cell, align=itemsize), accumulator), cell, align=itemsize)
        return context.get_dummy_value()

    n = types.intp
    return types.void(n, weight, n, n, x, n, n, sums, n), emit


def grad_x_of_few_rows(g: np.ndarray, weight: np.ndarray, result: np.ndarray) -> None:
    """Fill result (rows,IN) = g (rows,OUT) · weight (OUT,IN), for a weight of at least a vector of columns."""
    rows, OUT = g.shape
    groups = math.ceil(rows / ROWS)
    factors = memory.workspace(groups * OUT * ROWS, g.dtype)  # (groups, OUT, ROWS)
    for group in range(groups):
        some = g[group * ROWS :][:ROWS]
        padded = factors[group * OUT * ROWS :][: OUT * ROWS].reshape(OUT, ROWS)
        padded[:, : len(some)], padded[:, len(some) :] = some.T, 0
    columns = RUN // g.itemsize

    def run(first: int, last: int) -> None:
        block = memory.workspace(groups * ROWS * (columns + lanes(g)), g.dtype)
        _grad_x_kernel(first, last, factors, weight.ravel(), block, result)

    for_each(run, math.ceil(result.shape[1] / columns), values=groups * OUT * columns)


@kernel
def _grad_x_kernel(first: int, last: int, factors: np.ndarray, weight: np.ndarray, block: np.ndarray, result: np.ndarray) -> None:
    """A work item is a run of columns. The sums over KC rows of weight are kept in a block, in L1, and then added to the result.

    factors (groups, OUT, ROWS), weight (OUT,IN) and block (groups·ROWS, length) are flat. The last vector of a run that does not
    fill it is moved back, into columns of its own at the end of the block.
    """
    rows, IN = result.shape
    OUT, width = weight.size // IN, lanes(result)
    groups = (rows + ROWS - 1) // ROWS
    length = block.size // (groups * ROWS)
    columns = length - width
    for i in range(first, last):
        left = i * columns
        count = min(columns, IN - left)
        whole = count - count % width
        for row in range(rows):
            result[row, left : left + count] = 0
        for begin in range(0, OUT, KC):
            block[:] = 0
            end = min(begin + KC, OUT)
            for o in range(begin, end, PAIR):
                for group in range(groups):
                    at, target = (group * OUT + o) * ROWS, group * ROWS * length  # factors[group, o], block[group·ROWS]
                    add_rows(whole // width, factors, at, weight, o * IN + left, IN, block, target, length, end - o)
                    if whole < count:  # weight[o, IN - width] -> block[group·ROWS, columns]
                        add_rows(1, factors, at, weight, o * IN + IN - width, IN, block, target + columns, length, end - o)
            for row in range(rows):
                for j in range(whole):
                    result[row, left + j] += block[row * length + j]
                for j in range(count - whole):  # the last columns of the vector that was moved back
                    result[row, left + whole + j] += block[(row + 1) * length - (count - whole) + j]


@word
def add_rows(
    steps: int, factors: Flat, factors_at: int, weight: Flat, weight_at: int, weight_row: int,
    block: Flat, block_at: int, block_row: int, count: int,
) -> None:  # fmt: skip
    """block[r, :] += Σ_o factors[o, r] · weight[o, :], r < ROWS, o < min(``count``, PAIR), for ``steps`` vectors of columns.

    (PAIR, ROWS), (PAIR, steps·lanes) -> (ROWS, steps·lanes). ``weight_row`` and ``block_row`` count the elements from one row to
    the next. The next rows of the weight are prefetched.
    """
    length = steps * lanes(block)
    for r in range(ROWS):
        for o in range(min(count, PAIR)):
            row = weight[weight_at + o * weight_row :][:length]
            block[block_at + r * block_row :][:length] += factors[factors_at + o * ROWS + r] * row


@add_rows.emitted
def add_rows(
    typing_context, steps, factors, factors_at, weight, weight_at, weight_row, block, block_at, block_row, count
):  # fmt: skip
    def emit(context, builder, signature, arguments):
        steps, _, factors_at, _, weight_at, weight_row, _, block_at, block_row, count = arguments
        factors, weight, block = data_of(context, builder, signature, arguments, 1, 3, 6)
        index = steps.type
        vector, itemsize = vector_of(context, signature.args[6])
        multiply_add = fused_multiply_add(builder, vector)

        def rows(number):
            """The instructions for that many rows of weight."""
            spreads = [
                spread(builder, vector, builder.load(builder.gep(factors, [builder.add(factors_at, index(i))])))
                for i in range(number * ROWS)
            ]
            j, end = loop(builder, steps, index(0))
            weights = []
            for o in range(number):
                at = builder.add(builder.add(weight_at, j), builder.mul(weight_row, index(o)))
                prefetched(builder, weight, builder.add(at, builder.mul(weight_row, index(PAIR))))
                weights.append(builder.load(vector_at(builder, vector, weight, at), align=itemsize))
            for r in range(ROWS):
                at = builder.add(builder.add(block_at, j), builder.mul(block_row, index(r)))
                cell = vector_at(builder, vector, block, at)
                total = builder.load(cell, align=itemsize)
                for o in range(number):
                    total = builder.call(multiply_add, [spreads[o * ROWS + r], weights[o], total])
                builder.store(total, cell, align=itemsize)
            end(builder.add(j, index(vector.count)))

        with builder.if_else(builder.icmp_signed(">=", count, index(PAIR))) as (pair, single):
            with pair:
                rows(PAIR)
            with single:
                rows(1)
        return context.get_dummy_value()

    n = types.intp
    return types.void(n, factors, n, weight, n, n, block, n, n, n), emit
