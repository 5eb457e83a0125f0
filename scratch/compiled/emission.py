"""How a word is emitted: the vector width, the decorator :class:`word`, and helpers that write LLVM instructions.

A word is a function made of a few vector instructions that Python has no name for (``vectors.py`` has the words that several
operations share). Each word is written twice, one form under the other. Its meaning, in Python, says what it computes. Its
emitter writes instructions instead of computing; Numba calls it once while it compiles (:func:`numba.extending.intrinsic`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from scratch.compiled import environment
from scratch.compiled.jit import JIT_OFF

# How many partial results :func:`reduced` keeps. An addition takes several cycles; meanwhile those of other parts start.
PARTS = 8

Flat = np.ndarray  # a word's arrays are 1-D and C-contiguous; positions count elements


def _vector_bits() -> int:
    return environment.choice("SCRATCH_VECTOR_BITS", (128, 256, 512), "128, 256 or 512", _host_vector_bits)


def _host_vector_bits() -> int:
    features = llvm.get_host_cpu_features()
    return 512 if features.get("avx512f") else 256 if features.get("avx2") else 128


VECTOR_BITS = _vector_bits()  # SCRATCH_VECTOR_BITS forces a width, to test the narrower ones on any machine


class word:  # noqa: N801 - a decorator
    """Put ``@word`` above the meaning and ``@NAME.emitted`` above the emitter that follows, as with a property and its setter.

    NAME is then the emitter, as an intrinsic. With NUMBA_DISABLE_JIT=1, NAME is the meaning, so a debugger or coverage sees the
    kernels' lines.
    """

    def __init__(self, meaning: Callable[..., Any]) -> None:
        self.meaning = meaning

    def emitted(self, emitter: Callable[..., Any]) -> Any:
        """The function that kernels call. Its attribute ``meaning`` is the function in Python."""
        function: Any = self.meaning if JIT_OFF else intrinsic(emitter)
        function.meaning = self.meaning
        return function


def data_of(context, builder, signature, arguments, *which):
    """The pointers to the first elements of those arguments that are arrays.

    Raises:
        TypeError: one of them is not :data:`Flat`. Words read contiguous memory, which would not hold that array's elements.
    """
    for i in which:
        if (signature.args[i].ndim, signature.args[i].layout) != (1, "C"):
            raise TypeError(f"words for vectors take 1-D, C-contiguous arrays, got {signature.args[i]}")
    return [context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in which]


def vector_of(context, array_type):
    """The vector type for an array's elements, and the size of one element in bytes."""
    itemsize = array_type.dtype.bitwidth // 8
    return ir.VectorType(context.get_value_type(array_type.dtype), VECTOR_BITS // (8 * itemsize)), itemsize


def vector_at(builder, vector, pointer, offset):
    """The pointer to the vector of elements that begins at the offset."""
    return builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())


def prefetched(builder, data, at):
    """Prefetch the cache line of the element at that position into the second-level cache."""
    pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    form = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
    instruction = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0")
    # The numbers say: prefetch for reading, into the second level, data.
    builder.call(instruction, [builder.bitcast(builder.gep(data, [at]), pointer), number(0), number(2), number(1)])


def fused_multiply_add(builder, vector):
    """The function a·b + c of three vectors, rounded only once if the processor can do so."""
    name = f"llvm.fmuladd.v{vector.count}{'f32' if isinstance(vector.element, ir.FloatType) else 'f64'}"
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)


def store_first(builder, value, cell, count, itemsize):
    """Store the first ``count`` lanes of a vector."""
    vector, number = value.type, ir.IntType(32)
    form = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), number, ir.VectorType(ir.IntType(1), vector.count)])
    store = cgutils.get_or_insert_function(builder.module, form, f"llvm.masked.store.v{vector.count}f{8 * itemsize}.p0")
    wanted = spread(builder, ir.VectorType(count.type, vector.count), count)
    lane = ir.Constant(wanted.type, list(range(vector.count)))
    builder.call(store, [value, cell, number(itemsize), builder.icmp_signed("<", lane, wanted)])


def spread(builder, vector, value):
    """A vector with the value in every lane."""
    nothing = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count))


def loop(builder, count, *starts):
    """Begin a loop of ``count`` rounds.

    Returns its variables, which are phi nodes so that they stay in registers, and a function that ends the loop, given their next
    values. After the loop, the variables have their last values.
    """
    n, before = count.type, builder.block
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


def reduced(builder, vector, count, start, following, join):
    """Reduce ``count`` elements, which fill whole vectors, to one number.

    There are PARTS running results, vectors that begin as ``start`` in every lane. In each round every part takes one vector.
    Then the parts are joined into one, which takes the vectors that are left: with 19 vectors and 8 parts, each part takes 2 and
    the joined one 3. ``following(part, position)`` returns the part after it took the vector at that position; ``join`` joins
    two values.
    """
    index = count.type
    position, parts = index(0), [ir.Constant(vector, [start] * vector.count)] * PARTS
    for at_once in (PARTS, 1):
        before = builder.block
        loop, step, after = (builder.append_basic_block(name) for name in ("loop", "step", "after"))
        builder.branch(loop)
        builder.position_at_end(loop)
        phis = [builder.phi(value.type) for value in (position, *parts)]
        for phi, value in zip(phis, (position, *parts), strict=True):
            phi.add_incoming(value, before)
        position, *parts = phis
        end = builder.add(position, index(at_once * vector.count))
        builder.cbranch(builder.icmp_signed("<=", end, count), step, after)
        builder.position_at_end(step)
        positions = [builder.add(position, index(number * vector.count)) for number in range(at_once)]
        for phi, value in zip(phis, (end, *map(following, parts, positions)), strict=True):
            phi.add_incoming(value, step)
        builder.branch(loop)
        builder.position_at_end(after)
        parts = [_joined(parts, join)]
    return _joined([builder.extract_element(parts[0], ir.IntType(32)(i)) for i in range(vector.count)], join)


def _joined(values, join):
    while len(values) > 1:
        values = [join(one, other) for one, other in zip(values[::2], values[1::2], strict=True)]
    return values[0]
