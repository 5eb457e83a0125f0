"""The micro-kernel: the innermost loop of every fast matrix product, on a small tile of the result that stays in registers.

Contract (as BLIS, Van Zee and van de Geijn 2015, documents its own)::

    c[r, j] = Σ_k a[k, r] · b[k, j]              add is False: c is overwritten
    c[r, j] = c[r, j] + (Σ_k a[k, r] · b[k, j])  add is True          0 ≤ r < MR, 0 ≤ j < NR, 0 ≤ k < K

A tile has MR rows and NR = NR_VECTORS·lanes columns; NR follows from the dtype. K counts the steps of this call: one block of a
longer sum. All three arrays are flat:

    a[k, r]  at  a_at + k·a_step + r·a_rows        any distances
    b[k, j]  at  b_at + k·b_step + j               NR contiguous elements
    c[r, j]  at  c_at + r·c_rows + j               NR contiguous elements

Callers pack b into panels (K, NR), so that the loop reads it from front to back. They pack a in one of two ways. Packed as
(K, MR), a is read from front to back, too. Packed as (MR, K), the MR rows of a are read side by side:

    packed panel of a (K, MR)                  packed panel of b (K, NR)
    k = 0   a[0,0] a[0,1] … a[0,MR-1]          b[0,0] b[0,1] … … … b[0,NR-1]
    k = 1   a[1,0] a[1,1] … a[1,MR-1]          b[1,0] b[1,1] … … … b[1,NR-1]
    ⋮       a_step = MR, a_rows = 1            b_step = NR

    packed panel of a (MR, K)
    r = 0   a[0,0] a[1,0] … a[K-1,0]
    r = 1   a[0,1] a[1,1] … a[K-1,1]
    ⋮       a_step = 1, a_rows = the length of a row

Edges: ``rows`` counts the rows of the result from this tile's first on; it may exceed MR. If it is at most MR/2, only the first
MR/2 rows of the tile are computed and written. Otherwise all MR rows are. If the result ends within a tile, the rest of the
panels may hold anything, since no element of the result depends on it. So callers keep tiles in a buffer and copy what they need.

Order: each element's sum runs over k in order from zero, one multiply-add after the other, fused where the processor can; c is
added last. So the exact value of a result element does not depend on where in the tile it lies. A caller splits a long sum into
blocks of k and calls once per block (``blocks.py`` has the size, KC). Then no running sum is longer than a block, and the
rounding error grows with the length of a block and the number of blocks, not with their product.

Why MR × NR: one step of k loads NR elements of b as NR_VECTORS vectors, broadcasts each of MR values of a to a vector, and
multiplies and adds. That is MR·NR multiply-adds for MR + NR loaded values. With 14×32 float32 a step does 448 multiply-adds with
46 values, so the arithmetic units never wait for memory. The accumulators, NR_VECTORS vectors of b and one of a must fit into the
registers together: 14 × 2 vectors take 28 + 2 + 1 of 32 registers (AVX-512, NEON), 6 × 2 take 12 + 2 + 1 of 16 (AVX2, SSE).
"""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types

from scratch.compiled.emission import VECTOR_BITS, Flat, data_of, fused_multiply_add, loop, spread, vector_at, vector_of, word
from scratch.compiled.vectors import lanes

NR_VECTORS = 2  # vectors of b next to each other: NR = NR_VECTORS·lanes


def _rows(bits: int, triple: str) -> int:
    """The rows of a tile, by the number of vector registers: 32 on aarch64 and with AVX-512, else 16.

    Args:
        bits: the width of a vector.
        triple: LLVM's name of the process's architecture and system. For Apple's processors, LLVM knows this name, but no
            features.
    """
    return 14 if bits == 512 or triple.startswith(("aarch64", "arm64")) else 6


MR = _rows(VECTOR_BITS, llvm.get_process_triple())
HALF = MR // 2  # rows of the upper half of a tile


@word
def micro_kernel(
    K: int, a: Flat, a_at: int, a_step: int, a_rows: int, b: Flat, b_at: int, b_step: int, c: Flat, c_at: int, c_rows: int,
    rows: int, add: bool,
) -> None:  # fmt: skip
    """One tile, (MR,K) · (K,NR) -> (MR,NR): see the contract at the top of the file."""
    NR = NR_VECTORS * lanes(c)
    for r in range(HALF if rows <= HALF else MR):
        total = np.zeros(NR, c.dtype)
        for k in range(K):
            total += a[a_at + k * a_step + r * a_rows] * b[b_at + k * b_step :][:NR]
        row = c[c_at + r * c_rows :][:NR]
        row[:] = row + total if add else total


@micro_kernel.emitted
def micro_kernel(typing_context, K, a, a_at, a_step, a_rows, b, b_at, b_step, c, c_at, c_rows, rows, add):
    def emit(context, builder, signature, arguments):
        K, _, a_at, a_step, a_rows, _, b_at, b_step, _, c_at, c_rows, rows, add = arguments
        a, b, c = data_of(context, builder, signature, arguments, 1, 5, 8)
        index = K.type
        vector, itemsize = vector_of(context, signature.args[8])
        lanes = vector.count
        multiply_add = fused_multiply_add(builder, vector)

        def tile(rows):
            """The instructions for a tile of that many rows."""
            zero = ir.Constant(vector, [0.0] * lanes)
            a_k, b_k, *accumulators, end = loop(builder, K, a_at, b_at, *[zero] * (rows * NR_VECTORS))
            b_vectors = [
                builder.load(vector_at(builder, vector, b, builder.add(b_k, index(v * lanes))), align=itemsize)
                for v in range(NR_VECTORS)
            ]
            totals = []
            for r in range(rows):
                a_value = builder.load(builder.gep(a, [builder.add(a_k, builder.mul(a_rows, index(r)))]))
                for v in range(NR_VECTORS):
                    factors = [spread(builder, vector, a_value), b_vectors[v]]
                    totals.append(builder.call(multiply_add, [*factors, accumulators[r * NR_VECTORS + v]]))
            end(builder.add(a_k, a_step), builder.add(b_k, b_step), *totals)

            cells = [
                vector_at(builder, vector, c, builder.add(c_at, builder.add(builder.mul(c_rows, index(r)), index(v * lanes))))
                for r in range(rows)
                for v in range(NR_VECTORS)
            ]
            with builder.if_else(add) as (added, overwritten):
                with added:
                    for cell, accumulator in zip(cells, accumulators, strict=True):
                        total = builder.fadd(builder.load(cell, align=itemsize), accumulator)
                        builder.store(total, cell, align=itemsize)
                with overwritten:
                    for cell, accumulator in zip(cells, accumulators, strict=True):
                        builder.store(accumulator, cell, align=itemsize)

        with builder.if_else(builder.icmp_signed("<=", rows, index(HALF))) as (upper, whole):
            with upper:
                tile(HALF)
            with whole:
                tile(MR)
        return context.get_dummy_value()

    n = types.intp
    return types.void(n, a, n, n, n, b, n, n, c, n, n, n, types.boolean), emit
