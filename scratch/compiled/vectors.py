"""Vector words, which Python lacks: functions of a few vector instructions on flat arrays, shared by the operations.

A processor works on a vector of contiguous elements at once: 16 float32 with AVX-512, 8 with AVX2, 4 with NEON and SSE. A lane is
one element's position in a vector. If all elements need the same work, a plain loop is enough: the compiler vectorizes it. These
words are for work that it does not vectorize, or vectorizes badly. Read a word's meaning in Python first. Its emitter, under it,
writes the same as instructions (``emission.py`` has the decorator and the helpers). A word that only one operation needs is in
that operation's file.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import register_jitable

from scratch.compiled.emission import (
    VECTOR_BITS,
    Flat,
    data_of,
    fused_multiply_add,
    prefetched,
    reduced,
    store_first,
    vector_at,
    vector_of,
    word,
)
from scratch.compiled.jit import kernel

LINE = 64  # bytes of a cache line, the unit that the cache loads
# Bytes by which a sum over a long row prefetches ahead: two pages. The processor prefetches by itself, but it stops at the end of
# a page, since it does not know where the next page is in memory.
AHEAD = 2 << 12


@register_jitable
def lanes(array: Flat) -> int:
    """How many of the array's elements one vector holds."""
    return VECTOR_BITS // (8 * array.itemsize)


# --- one element ------------------------------------------------------------------------------------------------------


@word
def multiply_add(a: Any, b: Any, c: Any) -> Any:
    """a·b + c of three floats of one type, rounded only once if the processor can do so; a loop over it is vectorized."""
    return a * b + c


@multiply_add.emitted
def multiply_add(typing_context, a, b, c):
    def emit(context, builder, signature, arguments):
        kind = arguments[0].type
        form = ir.FunctionType(kind, [kind] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, form, f"llvm.fmuladd.f{a.bitwidth}"), arguments)

    return a(a, a, a), emit


@word
def load_acquire(flag: Flat) -> Any:
    """Load the first element. Then everything that the storing thread had written before is visible, too (a load-acquire).

    On x86 the core first pauses for a moment. Meanwhile it may run its other hyperthread.
    """
    return flag[0]


@load_acquire.emitted
def load_acquire(typing_context, flag):
    def emit(context, builder, signature, arguments):
        if llvm.get_process_triple().startswith(("x86_64", "i686")):
            pause = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, pause, "llvm.x86.sse2.pause"), [])
        (data,) = data_of(context, builder, signature, arguments, 0)
        return builder.load_atomic(data, "acquire", flag.dtype.bitwidth // 8)

    return flag.dtype(flag), emit


# --- prefetch ---------------------------------------------------------------------------------------------------------


@register_jitable
def prefetch(array: Flat, first: int, count: int) -> None:
    """Prefetch elements that are needed soon: they are loaded into L2 while other work goes on.

    The processor does so by itself when memory is read from front to back, but not when other work comes between one part and
    the next. A prefetch reads no value, so positions after the array's end are allowed.
    """
    for at in range(first, first + count, LINE // array.itemsize):
        prefetch_line(array, at)
    prefetch_line(array, first + count - 1)


@word
def prefetch_line(array: Flat, at: int) -> None:
    """Prefetch the cache line that holds the element at that position."""


@prefetch_line.emitted
def prefetch_line(typing_context, array, at):
    def emit(context, builder, signature, arguments):
        (data,) = data_of(context, builder, signature, arguments, 0)
        prefetched(builder, data, arguments[1])
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


# --- copies -----------------------------------------------------------------------------------------------------------


@word
def copy_vector(source: Flat, source_at: int, target: Flat, target_at: int) -> None:
    """Copy one vector."""
    target[target_at:][: lanes(source)] = source[source_at:][: lanes(source)]


@copy_vector.emitted
def copy_vector(typing_context, source, source_at, target, target_at):
    def emit(context, builder, signature, arguments):
        source, target = data_of(context, builder, signature, arguments, 0, 2)
        vector, itemsize = vector_of(context, signature.args[0])
        value = builder.load(vector_at(builder, vector, source, arguments[1]), align=itemsize)
        builder.store(value, vector_at(builder, vector, target, arguments[3]), align=itemsize)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), emit


@kernel
def stream(source: Flat, source_at: int, target: Flat, target_at: int, count: int) -> None:
    """Copy ``count`` elements past the caches. The target must be aligned to a vector, and whole vectors are written.

    For buffers that one thread writes and all threads read. A cache line that several cores hold must be taken back from all of
    them before it is written, which costs tens of nanoseconds; a line that is written past the caches is simply replaced.
    """
    for i in range(0, count, lanes(source)):
        stream_vector(source, source_at + i, target, target_at + i)
    stream_end()


@word
def stream_vector(source: Flat, source_at: int, target: Flat, target_at: int) -> None:
    """Copy one vector past the caches."""
    target[target_at:][: lanes(source)] = source[source_at:][: lanes(source)]


@stream_vector.emitted
def stream_vector(typing_context, source, source_at, target, target_at):
    def emit(context, builder, signature, arguments):
        source, target = data_of(context, builder, signature, arguments, 0, 2)
        vector, itemsize = vector_of(context, signature.args[0])
        value = builder.load(vector_at(builder, vector, source, arguments[1]), align=itemsize)
        store = builder.store(value, vector_at(builder, vector, target, arguments[3]), align=vector.count * itemsize)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), emit


@word
def stream_end() -> None:
    """From here on, all threads see what was written past the caches."""


@stream_end.emitted
def stream_end(typing_context):
    def emit(context, builder, signature, arguments):
        if llvm.get_process_triple().startswith(("x86_64", "i686")):
            fence = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, fence, "llvm.x86.sse.sfence"), [])
        else:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), emit


@word
def copy_few(source: Flat, source_at: int, target: Flat, target_at: int, count: int) -> None:
    """Copy ``count`` numbers, one vector at most. Nothing is written after them, but a whole vector is read."""
    few = min(count, lanes(source))
    target[target_at:][:few] = source[source_at:][:few]


@copy_few.emitted
def copy_few(typing_context, source, source_at, target, target_at, count):
    def emit(context, builder, signature, arguments):
        _, source_at, _, target_at, count = arguments
        source, target = data_of(context, builder, signature, arguments, 0, 2)
        vector, itemsize = vector_of(context, signature.args[0])
        value = builder.load(vector_at(builder, vector, source, source_at), align=itemsize)
        cell = vector_at(builder, vector, target, target_at)
        with builder.if_else(builder.icmp_signed(">=", count, count.type(vector.count)), likely=True) as (whole, part):
            with whole:
                builder.store(value, cell, align=itemsize)
            with part:
                store_first(builder, value, cell, count, itemsize)
        return context.get_dummy_value()

    n = types.intp
    return types.void(source, n, target, n, n), emit


@kernel
def transpose(source: Flat, source_at: int, offsets: Flat, columns: int, target: Flat, target_at: int, target_step: int) -> None:
    """(rows,columns) -> (columns,rows).

    Row i begins at source_at + offsets[i] in the source. Column j begins at target_at + j·target_step in the target. The work is
    done in squares of whole vectors. The last square of a row or column is moved back until it fits, so some numbers are copied
    twice.
    """
    side, rows = lanes(source), len(offsets)
    if rows < side or columns < side:
        for i in range(rows):
            for j in range(columns):
                target[target_at + j * target_step + i] = source[source_at + offsets[i] + j]  # [j, i] = [i, j]
        return
    for i in range(0, rows, side):
        row = min(i, rows - side)
        for j in range(0, columns, side):
            column = min(j, columns - side)
            to = target_at + column * target_step + row  # target[column, row]
            transpose_square(source, source_at + column, offsets, row, target, to, target_step)


@word
def transpose_square(
    source: Flat, source_at: int, offsets: Flat, first: int, target: Flat, target_at: int, target_step: int
) -> None:
    """As :func:`transpose`, for one square of whole vectors: ``lanes`` rows from ``first`` on."""
    square = np.stack([source[source_at + offset :][: lanes(source)] for offset in offsets[first:][: lanes(source)]])
    for i, column in enumerate(square.T):
        target[target_at + i * target_step :][: lanes(source)] = column


@transpose_square.emitted
def transpose_square(typing_context, source, source_at, offsets, first, target, target_at, target_step):
    def emit(context, builder, signature, arguments):
        _, source_at, _, first, _, target_at, target_step = arguments
        source, offsets, target = data_of(context, builder, signature, arguments, 0, 2, 4)
        index = source_at.type
        vector, itemsize = vector_of(context, signature.args[0])
        lanes = vector.count

        def interleave(x, y, half):
            lane = [half * lanes // 2 + i // 2 + (i % 2) * lanes for i in range(lanes)]
            return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), lanes), lane))

        rows = []
        for i in range(lanes):
            offset = builder.load(builder.gep(offsets, [builder.add(first, index(i))]))
            rows.append(builder.load(vector_at(builder, vector, source, builder.add(source_at, offset)), align=itemsize))
        # Interleaving row i with row i + lanes/2, for every i, rotates the bits of (row, lane) by one. After log2(lanes) rounds
        # row and lane are exchanged: the transpose.
        for _ in range(lanes.bit_length() - 1):
            pairs = [(rows[i], rows[i + lanes // 2]) for i in range(lanes // 2)]
            rows = [interleave(x, y, half) for x, y in pairs for half in (0, 1)]
        for i, row in enumerate(rows):
            at = builder.add(target_at, builder.mul(target_step, index(i)))
            builder.store(row, vector_at(builder, vector, target, at), align=itemsize)
        return context.get_dummy_value()

    n = types.intp
    return types.void(source, n, offsets, n, target, n, n), emit


# --- sums and maxima --------------------------------------------------------------------------------------------------


@register_jitable
def dot(a: Flat, a_at: int, b: Flat, b_at: int, count: int) -> Any:
    """Σ a[a_at + i] · b[b_at + i], i < count.

    PARTS · lanes running sums go through both arrays; ``a``, which may come from memory, is prefetched. Then the sums are joined
    in pairs, and the last few elements, which do not fill a vector, are added. So the order of the sum depends on count and the
    vector's width, not on positions in memory.
    """
    whole = count - count % lanes(a)
    result = dot_of_vectors(a, a_at, b, b_at, whole)
    for i in range(whole, count):
        result += a[a_at + i] * b[b_at + i]
    return result


@word
def dot_of_vectors(a: Flat, a_at: int, b: Flat, b_at: int, count: int) -> Any:
    """As :func:`dot`, for ``count`` elements that fill whole vectors."""
    return np.dot(a[a_at:][:count], b[b_at:][:count])


@dot_of_vectors.emitted
def dot_of_vectors(typing_context, a, a_at, b, b_at, count):
    def emit(context, builder, signature, arguments):
        _, a_at, _, b_at, count = arguments
        a, b = data_of(context, builder, signature, arguments, 0, 2)
        vector, itemsize = vector_of(context, signature.args[0])
        multiply_add = fused_multiply_add(builder, vector)

        ahead = a_at.type(AHEAD // itemsize)

        def added(part, position):
            prefetched(builder, a, builder.add(builder.add(a_at, position), ahead))
            values = [
                builder.load(vector_at(builder, vector, data, builder.add(at, position)), align=itemsize)
                for data, at in ((a, a_at), (b, b_at))
            ]
            return builder.call(multiply_add, [*values, part])

        return reduced(builder, vector, count, 0.0, added, builder.fadd)

    n = types.intp
    return a.dtype(a, n, b, n, n), emit


@register_jitable
def total(row: Flat) -> Any:
    """The sum of a row, in :func:`dot`'s order: rounding grows with n / (PARTS · lanes)."""
    whole = row.size - row.size % lanes(row)
    result = sum_of_vectors(row, whole)
    for i in range(whole, row.size):
        result += row[i]
    return result


@word
def sum_of_vectors(row: Flat, count: int) -> Any:
    """As :func:`total`, for the first ``count`` elements, which fill whole vectors."""
    return row[:count].sum()


@sum_of_vectors.emitted
def sum_of_vectors(typing_context, row, count):
    def emit(context, builder, signature, arguments):
        (data,) = data_of(context, builder, signature, arguments, 0)
        vector, itemsize = vector_of(context, signature.args[0])

        def added(part, position):
            return builder.fadd(part, builder.load(vector_at(builder, vector, data, position), align=itemsize))

        return reduced(builder, vector, arguments[1], 0.0, added, builder.fadd)

    return row.dtype(row, types.intp), emit


@register_jitable
def largest(row: Flat) -> Any:
    """The maximum of a row. NaN does not count; the maximum of nothing is -inf."""
    whole = row.size - row.size % lanes(row)
    result = largest_of_vectors(row, whole)
    for i in range(whole, row.size):
        if row[i] > result:
            result = row[i]
    return result


@word
def largest_of_vectors(row: Flat, count: int) -> Any:
    """As :func:`largest`, for the first ``count`` elements, which fill whole vectors."""
    return np.fmax.reduce(row[:count], initial=-np.inf)


@largest_of_vectors.emitted
def largest_of_vectors(typing_context, row, count):
    def emit(context, builder, signature, arguments):
        (data,) = data_of(context, builder, signature, arguments, 0)
        vector, itemsize = vector_of(context, signature.args[0])

        def larger(one, other):
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)

        def compared(part, position):
            return larger(builder.load(vector_at(builder, vector, data, position), align=itemsize), part)

        return reduced(builder, vector, arguments[1], -math.inf, compared, larger)

    return row.dtype(row, types.intp), emit
