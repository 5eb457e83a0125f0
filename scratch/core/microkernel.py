"""The innermost loop of every fast matrix product: a small tile of the result that lives in vector registers.

    c[r, j] (+)= Σ_k a[k, r] · b[k, j]        r < ROWS, j < COLUMNS = VECTORS·lanes, the numbers in a vector

One step of k loads COLUMNS neighbours of b as a few vectors, spreads each of ROWS values of a over a vector, and multiplies
and adds. That is ROWS·COLUMNS multiply-adds for ROWS + COLUMNS loads, and the ratio is the whole point: with 14×32 float32
a step does 448 multiply-adds with 46 values loaded, so the arithmetic units never wait for memory.

b's COLUMNS must be neighbours; everything else may lie anywhere, at even distances: ``step`` is the distance from k to
k + 1, ``rows`` that from r to r + 1. What does not lie so is copied, by the words of ``vectors.py``.

Python has no words for registers, so the loop is emitted as LLVM vector code through :func:`numba.extending.intrinsic`: a
function that runs once, while Numba compiles, and writes instructions instead of computing, so that its own loops, over r and v,
are unrolled. The function at the end of this file says the same in Python; read it first. The accumulators are the loop's phi
nodes (LLVM's word for variables that change from round to round), and LLVM keeps each of them in a register from the first k to
the last. Every element's sum runs over k in order, so it has the same bits wherever in a tile it stands.

The tile's size follows from the machine's vectors: accumulators, COLUMNS of b and one spread value of a must fit into the
registers together. 14 rows by 2 vectors take 28 + 2 + 1 of 32 registers (AVX-512, NEON), 6 by 2 take 12 + 2 + 1 of 16
(AVX2, SSE).
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from scratch.core.jit import JIT_OFF
from scratch.core.vectors import VECTOR_BITS, Flat, data_of, fused_multiply_add, lanes, spread, vector_at, vector_of

VECTORS = 2  # of b, side by side
ROWS = 14 if VECTOR_BITS == 512 or llvm.get_host_cpu_features().get("neon") else 6


@intrinsic
def _multiply_tile(typing_context, K, a, a_at, a_step, a_rows, b, b_at, b_step, c, c_at, c_rows, add):
    def emit(context, builder, signature, arguments):
        K, _, a_at, a_step, a_rows, _, b_at, b_step, _, c_at, c_rows, add = arguments
        a, b, c = data_of(context, builder, signature, arguments, 1, 5, 8)
        index = K.type
        vector, itemsize = vector_of(context, signature.args[8])
        lanes = vector.count
        multiply_add = fused_multiply_add(builder, vector)
        cells = [
            vector_at(builder, vector, c, builder.add(c_at, builder.add(builder.mul(c_rows, index(r)), index(v * lanes))))
            for r in range(ROWS)
            for v in range(VECTORS)
        ]

        # Start from what c holds where it is added to, else from zero.
        start = builder.block
        load, loop, step, store = (builder.append_basic_block(name) for name in ("load", "loop", "step", "store"))
        builder.cbranch(add, load, loop)
        builder.position_at_end(load)
        held = [builder.load(cell, align=itemsize) for cell in cells]
        builder.branch(loop)

        # One phi node for each accumulator, beside those for k and the two places: LLVM keeps all of them in registers.
        builder.position_at_end(loop)
        k, a_k, b_k = (builder.phi(index) for _ in range(3))
        for node, value in ((k, index(0)), (a_k, a_at), (b_k, b_at)):
            node.add_incoming(value, start)
            node.add_incoming(value, load)
        accumulators = [builder.phi(vector) for _ in cells]
        for accumulator, value in zip(accumulators, held, strict=True):
            accumulator.add_incoming(ir.Constant(vector, [0.0] * lanes), start)
            accumulator.add_incoming(value, load)
        builder.cbranch(builder.icmp_signed("<", k, K), step, store)

        builder.position_at_end(step)
        b_vectors = [
            builder.load(vector_at(builder, vector, b, builder.add(b_k, index(v * lanes))), align=itemsize)
            for v in range(VECTORS)
        ]
        for r in range(ROWS):
            a_value = spread(builder, vector, builder.load(builder.gep(a, [builder.add(a_k, builder.mul(a_rows, index(r)))])))
            for v in range(VECTORS):
                accumulator = accumulators[r * VECTORS + v]
                accumulator.add_incoming(builder.call(multiply_add, [a_value, b_vectors[v], accumulator]), step)
        for node, stride in ((k, index(1)), (a_k, a_step), (b_k, b_step)):
            node.add_incoming(builder.add(node, stride), step)
        builder.branch(loop)

        builder.position_at_end(store)
        for cell, accumulator in zip(cells, accumulators, strict=True):
            builder.store(accumulator, cell, align=itemsize)
        return context.get_dummy_value()

    n = types.intp
    return types.void(n, a, n, n, n, b, n, n, c, n, n, types.boolean), emit


# The same in Python, for NUMBA_DISABLE_JIT=1.


def _multiply_tile_in_python(
    K: int, a: Flat, a_at: int, a_step: int, a_rows: int, b: Flat, b_at: int, b_step: int, c: Flat, c_at: int, c_rows: int,
    add: bool,
) -> None:  # fmt: skip
    columns = VECTORS * lanes(c)
    for r in range(ROWS):
        row = c[c_at + r * c_rows :][:columns]
        total = row.copy() if add else np.zeros_like(row)
        for k in range(K):
            total += a[a_at + k * a_step + r * a_rows] * b[b_at + k * b_step :][:columns]
        row[:] = total


multiply_tile: Any = _multiply_tile_in_python if JIT_OFF else _multiply_tile
