"""max_pool2d's vector word: a window's maximum and the index of its cell, in every lane of a vector at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from scratch.compiled.emission import Flat, data_of, loop, spread, vector_at, vector_of, word
from scratch.compiled.vectors import lanes


def _window_maximum(nan_wins: bool) -> Any:
    @word
    def maximum(
        x: Flat, first: int, row_step: int, rows: int, step: int, count: int, largest: Flat, index: Flat, at: int
    ) -> None:
        """Write to largest[at:], lane by lane, the largest of a window's vectors, and to index[at:] its number.

        Numbers count vectors of x. The window has the vectors first + row·row_step + k·step: at least one row, and at least one
        in each row. If several are equal the earliest wins, but NaN always wins.
        """
        a, i = largest[at:][: lanes(x)], index[at:][: lanes(x)]
        a[:], i[:] = x[first * lanes(x) :][: lanes(x)], first
        for number in [first + row * row_step + k * step for row in range(rows) for k in range(count)]:
            b = x[number * lanes(x) :][: lanes(x)]
            wins = (b > a) | np.isnan(b)
            a[wins], i[wins] = b[wins], number

    @maximum.emitted
    def maximum(typing_context, x, first, row_step, rows, step, count, largest, index, at):
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

            # Vectors are loaded by number. The same number in every lane becomes the index of the lanes where this vector wins.
            begin, step_everywhere, row_step_everywhere = everywhere(first), everywhere(step), everywhere(row_step)
            row, row_everywhere, row_kept, row_index, end_rows = loop(builder, rows, first, begin, loaded(first), begin)
            number, number_everywhere, kept, kept_index, end_columns = loop(
                builder, count, row, row_everywhere, row_kept, row_index
            )
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

    return maximum


window_maximum = _window_maximum(nan_wins=True)
# For windows without NaN, in half the time: one comparison decides.
window_maximum_of_numbers = _window_maximum(nan_wins=False)
