"""The innermost loop of every fast matrix product: a small tile of the result that lives in vector registers.

    c[r, j] (+)= Σ_k a[k, r] · b[k, j]        r < ROWS, j < COLUMNS

One step of k loads COLUMNS neighbours of b as a few vectors, spreads each of ROWS values of a over a vector, and multiplies
and adds. That is ROWS·COLUMNS multiply-adds for ROWS + COLUMNS loads, and the ratio is the whole point: with 14×32 float32
a step does 448 multiply-adds with 46 values loaded, so the arithmetic units never wait for memory.

b's COLUMNS must be neighbours; everything else may lie anywhere, at even distances: ``step`` is the distance from k to
k + 1, ``rows`` that from r to r + 1. What does not lie so is copied: :func:`copy_vector`, :func:`transpose_tile`.

Python has no words for registers, so the loop is emitted as LLVM vector code through :func:`numba.extending.intrinsic`.
It is short: the accumulators are the loop's phi nodes, and LLVM keeps each of them in a register from the first k to the
last. Every element's sum runs over k in order, so it has the same bits wherever in a tile it stands.

The tile's size follows from the machine's vectors: accumulators, COLUMNS of b and one spread value of a must fit into the
registers together. 14 rows by 2 vectors take 28 + 2 + 1 of 32 registers (AVX-512, NEON), 6 by 2 take 12 + 2 + 1 of 16
(AVX2, SSE). ``SCRATCH_VECTOR_BITS`` forces a width, to test the narrower ones here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic, register_jitable


def _vector_bits() -> int:
    forced = os.environ.get("SCRATCH_VECTOR_BITS")
    if forced is not None:
        if forced not in ("128", "256", "512"):
            raise ValueError(f"SCRATCH_VECTOR_BITS must be 128, 256 or 512, got {forced!r}")
        return int(forced)
    features = llvm.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx2") else 128


VECTOR_BITS = _vector_bits()
JIT_OFF: bool = bool(config.DISABLE_JIT)  # type: ignore[attr-defined]  # set when Numba is imported
VECTORS = 2  # of b, side by side
ROWS = 14 if VECTOR_BITS == 512 or llvm.get_host_cpu_features().get("neon") else 6


Matrix = Sequence[Sequence[float]]
Flat = np.ndarray  # every array here is 1-D and C-contiguous; places in it are counted in elements


@register_jitable
def lanes(array: Flat) -> int:
    """How many of the array's elements one vector holds."""
    return VECTOR_BITS // (8 * array.itemsize)


@intrinsic
def _multiply_tile(typing_context, K, a, a_at, a_step, a_rows, b, b_at, b_step, c, c_at, c_rows, add):
    def emit(context, builder, signature, arguments):
        K, _, a_at, a_step, a_rows, _, b_at, b_step, _, c_at, c_rows, add = arguments
        a, b, c = _data(context, builder, signature, arguments, 1, 5, 8)
        index = K.type
        vector, itemsize = _vector(context, signature.args[8])
        lanes = vector.count
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{lanes}f{8 * itemsize}"
        )
        first_lane_everywhere = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
        nothing = ir.Constant(vector, ir.Undefined)

        def spread(value):
            one = builder.insert_element(nothing, value, ir.IntType(32)(0))
            return builder.shuffle_vector(one, nothing, first_lane_everywhere)

        cells = [
            _vector_at(builder, vector, c, builder.add(c_at, builder.add(builder.mul(c_rows, index(r)), index(v * lanes))))
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
            builder.load(_vector_at(builder, vector, b, builder.add(b_k, index(v * lanes))), align=itemsize)
            for v in range(VECTORS)
        ]
        for r in range(ROWS):
            a_value = spread(builder.load(builder.gep(a, [builder.add(a_k, builder.mul(a_rows, index(r)))])))
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


@intrinsic
def _copy_vector(typing_context, source, source_at, target, target_at):
    def emit(context, builder, signature, arguments):
        source, target = _data(context, builder, signature, arguments, 0, 2)
        vector, itemsize = _vector(context, signature.args[0])
        value = builder.load(_vector_at(builder, vector, source, arguments[1]), align=itemsize)
        builder.store(value, _vector_at(builder, vector, target, arguments[3]), align=itemsize)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), emit


@intrinsic
def _transpose_tile(typing_context, source, source_at, offsets, first, target, target_at, target_rows):
    def emit(context, builder, signature, arguments):
        _, source_at, _, first, _, target_at, target_rows = arguments
        source, offsets, target = _data(context, builder, signature, arguments, 0, 2, 4)
        index = source_at.type
        vector, itemsize = _vector(context, signature.args[0])
        lanes = vector.count

        def interleave(x, y, half):
            lane = [half * lanes // 2 + i // 2 + (i % 2) * lanes for i in range(lanes)]
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), lanes), lane))

        rows = []
        for i in range(lanes):
            offset = builder.load(builder.gep(offsets, [builder.add(first, index(i))]))
            rows.append(builder.load(_vector_at(builder, vector, source, builder.add(source_at, offset)), align=itemsize))
        # Interleaving row i with row i + lanes/2, for every i, turns the bits of (row, lane) by one place. After log2(lanes)
        # turns the row's bits stand where the lane's stood: the transpose.
        for _ in range(lanes.bit_length() - 1):
            pairs = [(rows[i], rows[i + lanes // 2]) for i in range(lanes // 2)]
            rows = [interleave(x, y, half) for x, y in pairs for half in (0, 1)]
        for i, row in enumerate(rows):
            at = builder.add(target_at, builder.mul(target_rows, index(i)))
            builder.store(row, _vector_at(builder, vector, target, at), align=itemsize)
        return context.get_dummy_value()

    n = types.intp
    return types.void(source, n, offsets, n, target, n, n), emit


def _sandwich(matrix: Matrix) -> Any:
    """The intrinsic of :func:`sandwich` for one matrix, whose zeros and ones cost nothing."""
    p, q = len(matrix), len(matrix[0])

    @intrinsic
    def emitted(typing_context, source, source_at, offsets, target, target_at, target_step):
        def emit(context, builder, signature, arguments):
            _, source_at, _, _, target_at, target_step = arguments
            source, offsets, target = _data(context, builder, signature, arguments, 0, 2, 3)
            index = source_at.type
            vector, itemsize = _vector(context, signature.args[0])

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
                return builder.load(_vector_at(builder, vector, source, builder.add(source_at, offset)), align=itemsize)

            x = [[loaded(i * q + j) for j in range(q)] for i in range(q)]
            half = [[add(row, [x[i][j] for i in range(q)]) for j in range(q)] for row in matrix]
            for i in range(p):
                for j, row in enumerate(matrix):
                    at = builder.add(target_at, builder.mul(target_step, index(i * p + j)))
                    builder.store(add(row, half[i]), _vector_at(builder, vector, target, at), align=itemsize)
            return context.get_dummy_value()

        n = types.intp
        return types.void(source, n, offsets, target, n, n), emit

    return emitted


def _data(context, builder, signature, arguments, *which):
    """The pointers to the first elements of those arguments that are arrays."""
    return [context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in which]


def _vector(context, array_type):
    """The machine's vector of an array's elements, and the size of one element in bytes."""
    itemsize = array_type.dtype.bitwidth // 8
    return ir.VectorType(context.get_value_type(array_type.dtype), VECTOR_BITS // (8 * itemsize)), itemsize


def _vector_at(builder, vector, pointer, offset):
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


# The same in Python, for NUMBA_DISABLE_JIT=1: a debugger, and coverage, see the kernels' lines then.


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


def _copy_vector_in_python(source: Flat, source_at: int, target: Flat, target_at: int) -> None:
    target[target_at:][: lanes(source)] = source[source_at:][: lanes(source)]


def _transpose_tile_in_python(
    source: Flat, source_at: int, offsets: Flat, first: int, target: Flat, target_at: int, target_rows: int
) -> None:
    square = np.stack([source[source_at + offset :][: lanes(source)] for offset in offsets[first:][: lanes(source)]])
    for i, column in enumerate(square.T):
        target[target_at + i * target_rows :][: lanes(source)] = column


def _sandwich_in_python(matrix: Matrix) -> Any:
    L = np.array(matrix)

    def computed(source: Flat, source_at: int, offsets: Flat, target: Flat, target_at: int, target_step: int) -> None:
        L_typed = L.astype(source.dtype)
        vectors = np.stack([source[source_at + offset :][: lanes(source)] for offset in offsets])
        square = vectors.reshape(L.shape[1], L.shape[1], -1)
        for i, vector in enumerate(np.einsum("ik,klv,jl->ijv", L_typed, square, L_typed).reshape(len(L) ** 2, -1)):
            target[target_at + i * target_step :][: lanes(source)] = vector

    return computed


def sandwich(matrix: Matrix) -> Any:
    """A function (source, source_at, offsets, target, target_at, target_step) that computes L X Lᵀ for the p×q matrix L.

    It does so for a whole vector of X, q×q: their elements (i,j) are neighbours from source_at + offsets[i·q + j] on, and those
    of the results, p×p, from target_at + (i·p + j)·target_step on.
    """
    return _sandwich_in_python(matrix) if JIT_OFF else _sandwich(matrix)


multiply_tile: Any = _multiply_tile_in_python if JIT_OFF else _multiply_tile
copy_vector: Any = _copy_vector_in_python if JIT_OFF else _copy_vector
transpose_tile: Any = _transpose_tile_in_python if JIT_OFF else _transpose_tile
