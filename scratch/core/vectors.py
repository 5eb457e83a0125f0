"""Words for vectors, which Python lacks: functions that are a few vector instructions on flat arrays each.

A processor works on a vector of neighbours in memory at once: 16 float32 of AVX-512, 8 of AVX2, 4 of NEON and SSE. A lane is one
place in a vector; what happens, happens in every lane. Where
neighbours have the same work to do, a plain loop over them is enough: the compiler makes vectors of it. Where it does not
see that, or does it badly, these words say it; they are emitted as LLVM code through :func:`numba.extending.intrinsic`.
``SCRATCH_VECTOR_BITS`` forces a width, to test the narrower ones here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, register_jitable

from scratch.core import environment
from scratch.core.jit import JIT_OFF, kernel


def _vector_bits() -> int:
    return environment.choice("SCRATCH_VECTOR_BITS", (128, 256, 512), "128, 256 or 512", _host_vector_bits)


def _host_vector_bits() -> int:
    features = llvm.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx2") else 128


VECTOR_BITS = _vector_bits()
LINE = 64  # bytes that come into the cache together
PARTS = 8  # vectors of partial results, as in :func:`total`: an addition takes several cycles, but others may begin meanwhile

Matrix = Sequence[Sequence[float]]
Flat = np.ndarray  # every array here is 1-D and C-contiguous; places in it are counted in elements


@register_jitable
def lanes(array: Flat) -> int:
    """How many of the array's elements one vector holds."""
    return VECTOR_BITS // (8 * array.itemsize)


@kernel
def transpose(source: Flat, source_at: int, offsets: Flat, columns: int, target: Flat, target_at: int, target_step: int) -> None:
    """(rows,columns) -> (columns,rows): a row begins at source_at + its offset; a column, in target, target_step behind the last.

    It goes by squares of whole vectors. The last of them is moved back to where it fits, and copies some numbers twice.
    """
    side, rows = lanes(source), len(offsets)
    if rows < side or columns < side:
        for i in range(rows):
            for j in range(columns):
                target[target_at + j * target_step + i] = source[source_at + offsets[i] + j]
        return
    for i in range(0, rows, side):
        row = min(i, rows - side)
        for j in range(0, columns, side):
            column = min(j, columns - side)
            to = target_at + column * target_step + row
            transpose_square(source, source_at + column, offsets, row, target, to, target_step)


@register_jitable
def dot(a: Flat, a_at: int, b: Flat, b_at: int, count: int) -> Any:
    """Σ a[a_at + i] · b[b_at + i], i < count.

    PARTS · lanes running sums go through both, are joined by pairs, and then come the last few elements that do not fill a
    vector. So the order depends on count and the vector's width, not on where the numbers lie.
    """
    whole = count - count % lanes(a)
    result = dot_of_vectors(a, a_at, b, b_at, whole)
    for i in range(whole, count):
        result += a[a_at + i] * b[b_at + i]
    return result


@register_jitable
def total(row: Flat) -> Any:
    """The sum of a row, in :func:`dot`'s order: rounding grows with n / (PARTS · lanes)."""
    whole = row.size - row.size % lanes(row)
    result = sum_of_vectors(row, whole)
    for i in range(whole, row.size):
        result += row[i]
    return result


@register_jitable
def largest(row: Flat) -> Any:
    """The maximum of a row; NaN does not count, and of nothing it is -inf."""
    whole = row.size - row.size % lanes(row)
    result = largest_of_vectors(row, whole)
    for i in range(whole, row.size):
        if row[i] > result:
            result = row[i]
    return result


@register_jitable
def fetch(array: Flat, first: int, count: int) -> None:
    """Ask for elements that are needed soon, while there is something else to do: they come into the second-level cache.

    The processor does so itself where it sees memory read from front to back, but not where work lies between one piece and
    the next. Nothing is read; elements behind the array's end are allowed.
    """
    for at in range(first, first + count, LINE // array.itemsize):
        fetch_line(array, at)
    fetch_line(array, first + count - 1)


@intrinsic
def _fetch_line(typing_context, array, at):
    def emit(context, builder, signature, arguments):
        (data,) = data_of(context, builder, signature, arguments, 0)
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
        at = builder.bitcast(builder.gep(data, [arguments[1]]), pointer)
        builder.call(prefetch, [at, number(0), number(2), number(1)])  # to read, second level, data
        return context.get_dummy_value()

    return types.void(array, types.intp), emit


@intrinsic
def _look(typing_context, flag):
    def emit(context, builder, signature, arguments):
        if llvm.get_process_triple().startswith(("x86_64", "i686")):
            pause = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, pause, "llvm.x86.sse2.pause"), [])
        (data,) = data_of(context, builder, signature, arguments, 0)
        return builder.load_atomic(data, "acquire", flag.dtype.bitwidth // 8)

    return flag.dtype(flag), emit


@intrinsic
def _multiply_add(typing_context, a, b, c):
    def emit(context, builder, signature, arguments):
        kind = arguments[0].type
        form = ir.FunctionType(kind, [kind] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, form, f"llvm.fmuladd.f{a.bitwidth}"), arguments)

    return a(a, a, a), emit


@intrinsic
def _copy_vector(typing_context, source, source_at, target, target_at):
    def emit(context, builder, signature, arguments):
        source, target = data_of(context, builder, signature, arguments, 0, 2)
        vector, itemsize = vector_of(context, signature.args[0])
        value = builder.load(vector_at(builder, vector, source, arguments[1]), align=itemsize)
        builder.store(value, vector_at(builder, vector, target, arguments[3]), align=itemsize)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), emit


@intrinsic
def _weave(typing_context, source, even_at, odd_at, addend, target, target_at, count):
    def emit(context, builder, signature, arguments):
        _, even_at, odd_at, addend, _, target_at, count = arguments
        source, target = data_of(context, builder, signature, arguments, 0, 4)
        vector, itemsize = vector_of(context, signature.args[0])
        lanes, number = vector.count, ir.IntType(32)
        added = spread(builder, vector, addend)
        even, odd = (
            builder.fadd(builder.load(vector_at(builder, vector, source, at), align=itemsize), added) for at in (even_at, odd_at)
        )
        form = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), number, ir.VectorType(ir.IntType(1), lanes)])
        store = cgutils.get_or_insert_function(builder.module, form, f"llvm.masked.store.v{lanes}f{8 * itemsize}.p0")
        wanted = spread(builder, ir.VectorType(count.type, lanes), count)

        def write(first):
            lane = ir.Constant(ir.VectorType(number, lanes), [(first + i) // 2 + i % 2 * lanes for i in range(lanes)])
            place = ir.Constant(wanted.type, [first + i for i in range(lanes)])
            at = vector_at(builder, vector, target, builder.add(target_at, count.type(first)))
            mask = builder.icmp_signed("<", place, wanted)
            builder.call(store, [builder.shuffle_vector(even, odd, lane), at, number(itemsize), mask])

        write(0)
        with builder.if_then(builder.icmp_signed(">", count, count.type(lanes))):
            write(lanes)
        return context.get_dummy_value()

    n = types.intp
    return types.void(source, n, n, source.dtype, target, n, n), emit


@intrinsic
def _dot_of_vectors(typing_context, a, a_at, b, b_at, count):
    def emit(context, builder, signature, arguments):
        _, a_at, _, b_at, count = arguments
        a, b = data_of(context, builder, signature, arguments, 0, 2)
        vector, itemsize = vector_of(context, signature.args[0])
        multiply_add = fused_multiply_add(builder, vector)

        def added(part, place):
            values = [
                builder.load(vector_at(builder, vector, data, builder.add(at, place)), align=itemsize)
                for data, at in ((a, a_at), (b, b_at))
            ]
            return builder.call(multiply_add, [*values, part])

        return reduced(builder, vector, count, 0.0, added, builder.fadd)

    n = types.intp
    return a.dtype(a, n, b, n, n), emit


@intrinsic
def _sum_of_vectors(typing_context, row, count):
    def emit(context, builder, signature, arguments):
        (data,) = data_of(context, builder, signature, arguments, 0)
        vector, itemsize = vector_of(context, signature.args[0])

        def added(part, place):
            return builder.fadd(part, builder.load(vector_at(builder, vector, data, place), align=itemsize))

        return reduced(builder, vector, arguments[1], 0.0, added, builder.fadd)

    return row.dtype(row, types.intp), emit


@intrinsic
def _largest_of_vectors(typing_context, row, count):
    def emit(context, builder, signature, arguments):
        (data,) = data_of(context, builder, signature, arguments, 0)
        vector, itemsize = vector_of(context, signature.args[0])

        def larger(one, other):
            return builder.select(builder.fcmp_ordered(">", one, other), one, other)

        def compared(part, place):
            return larger(builder.load(vector_at(builder, vector, data, place), align=itemsize), part)

        return reduced(builder, vector, arguments[1], -math.inf, compared, larger)

    return row.dtype(row, types.intp), emit


@intrinsic
def _transpose_square(typing_context, source, source_at, offsets, first, target, target_at, target_step):
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
        # Interleaving row i with row i + lanes/2, for every i, turns the bits of (row, lane) by one place. After log2(lanes)
        # turns the row's bits stand where the lane's stood: the transpose.
        for _ in range(lanes.bit_length() - 1):
            pairs = [(rows[i], rows[i + lanes // 2]) for i in range(lanes // 2)]
            rows = [interleave(x, y, half) for x, y in pairs for half in (0, 1)]
        for i, row in enumerate(rows):
            at = builder.add(target_at, builder.mul(target_step, index(i)))
            builder.store(row, vector_at(builder, vector, target, at), align=itemsize)
        return context.get_dummy_value()

    n = types.intp
    return types.void(source, n, offsets, n, target, n, n), emit


def _window_maximum(nan_wins: bool) -> Any:
    """The intrinsic of :data:`window_maximum` or :data:`window_maximum_of_numbers`."""

    @intrinsic
    def emitted(typing_context, x, first, row_step, rows, step, count, largest, index, at):
        def emit(context, builder, signature, arguments):
            _, first, row_step, rows, step, count, _, _, at = arguments
            x, largest, index = data_of(context, builder, signature, arguments, 0, 6, 7)
            n = first.type
            vector, itemsize = vector_of(context, signature.args[0])
            index_vector, _ = vector_of(context, signature.args[7])

            def loaded(number):
                return builder.load(vector_at(builder, vector, x, builder.mul(number, n(vector.count))), align=itemsize)

            def everywhere(number):
                return spread(builder, index_vector, builder.trunc(number, index_vector.element))

            def loop(count, *starts):
                """Begin a loop of ``count`` rounds.

                Returns its variables, phi nodes so that they stay in registers, and a function that ends it, given their next
                values.
                """
                before = builder.block
                head, body, after = (builder.append_basic_block(name) for name in ("loop", "body", "after"))
                builder.branch(head)
                builder.position_at_end(head)
                done, *variables = (builder.phi(start.type) for start in (n(0), *starts))
                for node, start in zip((done, *variables), (n(0), *starts), strict=True):
                    node.add_incoming(start, before)
                builder.cbranch(builder.icmp_signed("<", done, count), body, after)
                builder.position_at_end(body)

                def end(*following):
                    for node, value in zip((done, *variables), (builder.add(done, n(1)), *following), strict=True):
                        node.add_incoming(value, builder.block)
                    builder.branch(head)
                    builder.position_at_end(after)

                return *variables, end

            # Vectors are loaded by their number; the same number in every lane becomes the index of the lanes that it wins.
            begin, step_everywhere, row_step_everywhere = everywhere(first), everywhere(step), everywhere(row_step)
            row, row_everywhere, row_kept, row_index, end_rows = loop(rows, first, begin, loaded(first), begin)
            number, number_everywhere, kept, kept_index, end_columns = loop(count, row, row_everywhere, row_kept, row_index)
            value = loaded(number)
            wins = builder.fcmp_ordered(">", value, kept)
            if nan_wins:
                wins = builder.or_(wins, builder.fcmp_unordered("uno", value, value))
            end_columns(
                builder.add(number, step),
                builder.add(number_everywhere, step_everywhere),
                builder.select(wins, value, kept),
                builder.select(wins, number_everywhere, kept_index),
            )
            end_rows(builder.add(row, row_step), builder.add(row_everywhere, row_step_everywhere), kept, kept_index)
            builder.store(row_kept, vector_at(builder, vector, largest, at), align=itemsize)
            builder.store(row_index, vector_at(builder, index_vector, index, at), align=itemsize)
            return context.get_dummy_value()

        n = types.intp
        return types.void(x, n, n, n, n, n, largest, index, n), emit

    return emitted


def _sandwich(matrix: Matrix) -> Any:
    """The intrinsic of :func:`sandwich` for one matrix, whose zeros and ones cost nothing."""
    p, q = len(matrix), len(matrix[0])

    @intrinsic
    def emitted(typing_context, source, source_at, offsets, target, target_at, target_step):
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

    return emitted


# How they are emitted.


def data_of(context, builder, signature, arguments, *which):
    """The pointers to the first elements of those arguments that are arrays.

    Raises:
        TypeError: one of them is not :data:`Flat`: its neighbours in memory would be taken for its elements.
    """
    for i in which:
        if (signature.args[i].ndim, signature.args[i].layout) != (1, "C"):
            raise TypeError(f"words for vectors take 1-D, C-contiguous arrays, got {signature.args[i]}")
    return [context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in which]


def vector_of(context, array_type):
    """The machine's vector of an array's elements, and the size of one element in bytes."""
    itemsize = array_type.dtype.bitwidth // 8
    return ir.VectorType(context.get_value_type(array_type.dtype), VECTOR_BITS // (8 * itemsize)), itemsize


def vector_at(builder, vector, pointer, offset):
    """The pointer to the vector of elements that begins at the offset."""
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def fused_multiply_add(builder, vector):
    """The function a·b + c of three vectors, rounded once where the processor can."""
    name = f"llvm.fmuladd.v{vector.count}{'f32' if isinstance(vector.element, ir.FloatType) else 'f64'}"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)


def reduced(builder, vector, count, start, following, join):
    """One number made of ``count`` elements, which are whole vectors.

    PARTS partial results, vectors that are ``start`` in every lane, take a vector each, in turn; then they are joined to one,
    which takes those that are left: of 19 vectors and 8 parts, each takes 2 and the one 3. ``following(part, place)`` is what a
    part becomes by the vector at that place; ``join`` makes one value of two.
    """
    index = count.type
    place, parts = index(0), [ir.Constant(vector, [start] * vector.count)] * PARTS
    for at_once in (PARTS, 1):
        before = builder.block
        loop, step, after = (builder.append_basic_block(name) for name in ("loop", "step", "after"))
        builder.branch(loop)
        builder.position_at_end(loop)
        phis = [builder.phi(value.type) for value in (place, *parts)]
        for phi, value in zip(phis, (place, *parts), strict=True):
            phi.add_incoming(value, before)
        place, *parts = phis
        end = builder.add(place, index(at_once * vector.count))
        builder.cbranch(builder.icmp_signed("<=", end, count), step, after)
        builder.position_at_end(step)
        places = [builder.add(place, index(number * vector.count)) for number in range(at_once)]
        for phi, value in zip(phis, (end, *map(following, parts, places)), strict=True):
            phi.add_incoming(value, step)
        builder.branch(loop)
        builder.position_at_end(after)
        parts = [_joined(parts, join)]
    return _joined([builder.extract_element(parts[0], ir.IntType(32)(i)) for i in range(vector.count)], join)


def _joined(values, join):
    while len(values) > 1:
        values = [join(one, other) for one, other in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def spread(builder, vector, value):
    """The value in every lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count))


# The same in Python, for NUMBA_DISABLE_JIT=1: a debugger, and coverage, see the kernels' lines then.


def _fetch_line_in_python(array: Flat, at: int) -> None:
    pass


def _look_in_python(flag: Flat) -> Any:
    return flag[0]


def _multiply_add_in_python(a: Any, b: Any, c: Any) -> Any:
    return a * b + c


def _copy_vector_in_python(source: Flat, source_at: int, target: Flat, target_at: int) -> None:
    target[target_at:][: lanes(source)] = source[source_at:][: lanes(source)]


def _weave_in_python(source: Flat, even_at: int, odd_at: int, addend: float, target: Flat, target_at: int, count: int) -> None:
    woven = np.stack([source[even_at:][: lanes(source)], source[odd_at:][: lanes(source)]], 1).ravel()
    target[target_at : target_at + count] = woven[:count] + source.dtype.type(addend)


def _dot_of_vectors_in_python(a: Flat, a_at: int, b: Flat, b_at: int, count: int) -> Any:
    return np.dot(a[a_at:][:count], b[b_at:][:count])


def _sum_of_vectors_in_python(row: Flat, count: int) -> Any:
    return row[:count].sum()


def _largest_of_vectors_in_python(row: Flat, count: int) -> Any:
    return np.fmax.reduce(row[:count], initial=-np.inf)


def _transpose_square_in_python(
    source: Flat, source_at: int, offsets: Flat, first: int, target: Flat, target_at: int, target_step: int
) -> None:
    square = np.stack([source[source_at + offset :][: lanes(source)] for offset in offsets[first:][: lanes(source)]])
    for i, column in enumerate(square.T):
        target[target_at + i * target_step :][: lanes(source)] = column


def _window_maximum_in_python(
    x: Flat, first: int, row_step: int, rows: int, step: int, count: int, largest: Flat, index: Flat, at: int
) -> None:
    a, i = largest[at:][: lanes(x)], index[at:][: lanes(x)]
    a[:], i[:] = x[first * lanes(x) :][: lanes(x)], first
    for number in [first + row * row_step + k * step for row in range(rows) for k in range(count)]:
        b = x[number * lanes(x) :][: lanes(x)]
        wins = (b > a) | np.isnan(b)
        a[wins], i[wins] = b[wins], number


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


# The cache line with the element at that place, for :func:`fetch`.
fetch_line: Any = _fetch_line_in_python if JIT_OFF else _fetch_line
# The first element as other threads left it last, after a moment in which the core may serve its other hyperthread.
look: Any = _look_in_python if JIT_OFF else _look
# a·b + c of three floats of one type, rounded once where the processor can; a loop around it becomes vector code.
multiply_add: Any = _multiply_add_in_python if JIT_OFF else _multiply_add
# A vector from one place to another.
copy_vector: Any = _copy_vector_in_python if JIT_OFF else _copy_vector
# even[0] + addend, odd[0] + addend, even[1] + addend, … to the target: ``count`` numbers, at most two vectors of them.
weave: Any = _weave_in_python if JIT_OFF else _weave
# As :func:`dot`, :func:`total` and :func:`largest`, of ``count`` elements that are whole vectors.
dot_of_vectors: Any = _dot_of_vectors_in_python if JIT_OFF else _dot_of_vectors
sum_of_vectors: Any = _sum_of_vectors_in_python if JIT_OFF else _sum_of_vectors
largest_of_vectors: Any = _largest_of_vectors_in_python if JIT_OFF else _largest_of_vectors
# As :func:`transpose`, a square of whole vectors: those of the rows from ``first`` on.
transpose_square: Any = _transpose_square_in_python if JIT_OFF else _transpose_square
# Lane by lane the largest of a window's vectors, and its number, to the place ``at`` of largest and of index. x is counted in
# vectors here: a window has those of the numbers first + row·row_step + k·step, one row and one in a row at least. Of equals
# the earlier is the largest, but NaN always wins.
window_maximum: Any = _window_maximum_in_python if JIT_OFF else _window_maximum(nan_wins=True)
# The same where there is no NaN, in half the time: nothing but a comparison decides who wins.
window_maximum_of_numbers: Any = _window_maximum_in_python if JIT_OFF else _window_maximum(nan_wins=False)
