"""The small transforms of F(2×2,3×3), and vector words that compute them for a whole vector of tiles at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from scratch.compiled.emission import Flat, data_of, spread, store_first, vector_at, vector_of, word
from scratch.compiled.vectors import lanes

Matrix = Sequence[Sequence[float]]

BT = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
AT = ((1, 1, 1, 0), (0, 1, -1, -1))
G = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
A, GT = (tuple(zip(*matrix, strict=True)) for matrix in (AT, G))

SQUARE = tuple(itertools.product(range(4), range(4)))  # the elements (i,j) of a transformed tile
ELEMENTS = len(SQUARE)


def sandwich(matrix: Matrix) -> Any:
    """The word (see ``emission.py``) that computes L X Lᵀ for the p×q matrix L. Factors of 0 and 1 cost nothing."""
    p, q = len(matrix), len(matrix[0])
    L = np.array(matrix)

    @word
    def product(source: Flat, source_at: int, offsets: Flat, target: Flat, target_at: int, target_step: int) -> None:
        """L X Lᵀ for each lane of a vector.

        X is q×q: its element (i,j) is the vector at source_at + offsets[i·q + j]. The result is p×p: its element (i,j) is the
        vector at target_at + (i·p + j)·target_step.
        """
        vectors = np.stack([source[source_at + offset :][: lanes(source)] for offset in offsets])
        X, L_typed = vectors.reshape(q, q, -1), L.astype(source.dtype)
        for i, vector in enumerate(np.einsum("ik,klv,jl->ijv", L_typed, X, L_typed).reshape(p * p, -1)):
            target[target_at + i * target_step :][: lanes(source)] = vector

    @product.emitted
    def product(typing_context, source, source_at, offsets, target, target_at, target_step):
        def emit(context, builder, signature, arguments):
            _, source_at, _, _, target_at, target_step = arguments
            source, offsets, target = data_of(context, builder, signature, arguments, 0, 2, 3)
            index = source_at.type
            vector, itemsize = vector_of(context, signature.args[0])

            def add(factors, values):
                total = None
                for factor, value in zip(factors, values, strict=True):
                    if factor == 0:
                        continue
                    if abs(factor) != 1:
                        value = builder.fmul(value, ir.Constant(vector, [abs(factor)] * vector.count))
                    if total is None:
                        total = value if factor > 0 else builder.fneg(value)
                    else:
                        total = (builder.fadd if factor > 0 else builder.fsub)(total, value)
                return total

            def loaded(i):
                offset = builder.load(builder.gep(offsets, [index(i)]))
                return builder.load(vector_at(builder, vector, source, builder.add(source_at, offset)), align=itemsize)

            x = [[loaded(i * q + j) for j in range(q)] for i in range(q)]
            half = [[add(row, [x[i][j] for i in range(q)]) for j in range(q)] for row in matrix]
            for i in range(p):
                for j, row in enumerate(matrix):
                    at = builder.add(target_at, builder.mul(target_step, index(i * p + j)))
                    builder.store(add(row, half[i]), vector_at(builder, vector, target, at), align=itemsize)
            return context.get_dummy_value()

        n = types.intp
        return types.void(source, n, offsets, target, n, n), emit

    return product


input_transform = sandwich(BT)
weight_transform = sandwich(G)
output_transform = sandwich(AT)
grad_transform = sandwich(A)
grad_weight_transform = sandwich(GT)


@word
def interleave(source: Flat, even_at: int, odd_at: int, addend: float, target: Flat, target_at: int, count: int) -> None:
    """Write even[0] + addend, odd[0] + addend, even[1] + addend, …: ``count`` numbers, at most two vectors of them."""
    pairs = np.stack([source[even_at:][: lanes(source)], source[odd_at:][: lanes(source)]], 1).ravel()
    target[target_at : target_at + count] = pairs[:count] + source.dtype.type(addend)


@interleave.emitted
def interleave(typing_context, source, even_at, odd_at, addend, target, target_at, count):
    def emit(context, builder, signature, arguments):
        _, even_at, odd_at, addend, _, target_at, count = arguments
        source, target = data_of(context, builder, signature, arguments, 0, 4)
        vector, itemsize = vector_of(context, signature.args[0])
        lanes, number = vector.count, ir.IntType(32)
        added = spread(builder, vector, addend)
        even, odd = (
            builder.fadd(builder.load(vector_at(builder, vector, source, at), align=itemsize), added) for at in (even_at, odd_at)
        )

        def write(first):
            lane = ir.Constant(ir.VectorType(number, lanes), [(first + i) // 2 + i % 2 * lanes for i in range(lanes)])
            at = vector_at(builder, vector, target, builder.add(target_at, count.type(first)))
            store_first(builder, builder.shuffle_vector(even, odd, lane), at, builder.sub(count, count.type(first)), itemsize)

        write(0)
        with builder.if_then(builder.icmp_signed(">", count, count.type(lanes))):
            write(lanes)
        return context.get_dummy_value()

    n = types.intp
    return types.void(source, n, n, source.dtype, target, n, n), emit
