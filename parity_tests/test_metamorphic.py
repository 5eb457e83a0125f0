"""Properties that need no oracle: how the result must change when the input changes in a known way.

With small integers sums are exact, so most of them hold to the bit; the others are compared in float64, within the reference's
bound for the operation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scratch
from alexnet_from_scratch.proof import cases
from alexnet_from_scratch.proof.bounds import Rounding
from alexnet_from_scratch.proof.draws import Case, fewer, values
from alexnet_from_scratch.proof.parity import in_bounds
from alexnet_from_scratch.proof.specs import RUNGS, SPECS

FLOAT64 = np.dtype(np.float64)
INTEGERS = ("integers",)
SPEC = {spec.name: spec for spec in SPECS}


def rungs(*names: str) -> Any:
    return pytest.mark.parametrize(("spec", "rung"), [row for row in RUNGS if row[0].name in names], ids=str)


def out_of(spec: Any, rung: str, case: Case) -> Any:
    with scratch.use_rung(rung):
        out, _ = spec.scratch.forward(*case.arrays, **case.params)
    return out


@rungs("conv2d", "linear")
@fewer
@given(data=st.data())
def test_linear_in_the_input(spec, rung, data):
    """f(a + 2b) + f(0) = f(a) + 2 f(b) - f(0) … with the bias counted once."""
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=INTEGERS))
    x, *rest = case.arrays
    other = data.draw(values(FLOAT64, x.shape, "integers"))

    def f(array: np.ndarray) -> np.ndarray:
        return out_of(spec, rung, replace(case, arrays=(array, *rest)))

    np.testing.assert_array_equal(f(x + 2 * other), f(x) + 2 * (f(other) - f(np.zeros_like(x))))


@rungs("conv2d", "max_pool2d")
@fewer
@given(data=st.data())
def test_moving_the_image_by_the_stride_moves_the_output_by_one(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=INTEGERS))
    params = {**case.params, "padding": 0, "ceil_mode": False} if spec is SPEC["max_pool2d"] else {**case.params, "padding": 0}
    stride = params["kernel_size"] if params["stride"] is None else params["stride"]
    rows = stride[0] if isinstance(stride, tuple) else stride
    x, *rest = case.arrays
    x = np.tile(x, (16 // x.shape[-2] + 1, 16 // x.shape[-1] + 1))  # so that every window fits without padding
    params.pop("return_indices", None)
    whole = out_of(spec, rung, Case((x, *rest), params, "integers"))
    moved = out_of(spec, rung, Case((x[..., rows:, :], *rest), params, "integers"))
    np.testing.assert_array_equal(moved, whole[..., 1:, :])


@rungs("conv2d")
@fewer
@given(data=st.data())
def test_groups_are_blocks(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=INTEGERS))
    groups = case.params["groups"]
    x, weight, bias = case.arrays
    blocks = [
        out_of(spec, rung, Case((part, filters, b), {**case.params, "groups": 1}, "integers"))
        for part, filters, b in zip(
            np.split(x, groups, -3),
            np.split(weight, groups),
            [None] * groups if bias is None else np.split(bias, groups),
            strict=True,
        )
    ]
    np.testing.assert_array_equal(out_of(spec, rung, case), np.concatenate(blocks, -3))


@rungs("conv2d")
@fewer
@given(data=st.data())
def test_padding_is_zeros_around_the_image(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=INTEGERS))
    rows, columns = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    x, weight, bias = case.arrays
    reach = (np.array(weight.shape[2:]) - 1) * case.params["dilation"] + 1
    x = np.tile(x, np.ceil(reach / x.shape[-2:]).astype(int))  # so that every window fits
    case = Case((x, weight, bias), {**case.params, "padding": (rows, columns)}, "integers")
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(rows, rows), (columns, columns)])
    explicit = Case((padded, weight, bias), {**case.params, "padding": 0}, "integers")
    np.testing.assert_array_equal(out_of(spec, rung, case), out_of(spec, rung, explicit))


@rungs("conv2d")
@fewer
@given(data=st.data())
def test_a_convolution_of_one_cell_is_a_linear_layer(spec, rung, data):
    linear = data.draw(cases.linear(FLOAT64, palettes=INTEGERS))
    x, weight, bias = linear.arrays
    rows = x.reshape(int(np.prod(x.shape[:-1])), x.shape[-1])
    one_cell = Case((rows[..., None, None], weight[..., None, None], bias), {}, "integers")
    expected = out_of(SPEC["linear"], "naive", Case((rows, weight, bias), {}, "integers"))
    np.testing.assert_array_equal(out_of(spec, rung, one_cell)[..., 0, 0], expected)


@rungs("conv2d", "max_pool2d", "adaptive_avg_pool2d", "local_response_norm")
@fewer
@given(data=st.data())
def test_the_order_of_the_batch_does_not_matter(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=INTEGERS))
    x, *rest = case.arrays
    if x.ndim == 3 and spec.name != "local_response_norm":
        x = x[np.newaxis]
    x = np.concatenate([x, 2 * x, x + 1])
    case = Case((x, *rest), {name: value for name, value in case.params.items() if name != "return_indices"}, case.palette)
    order = data.draw(st.permutations(range(len(x))))
    permuted = replace(case, arrays=(x[order], *rest))
    np.testing.assert_array_equal(out_of(spec, rung, permuted), out_of(spec, rung, case)[order])


@rungs("max_pool2d")
@fewer
@given(data=st.data())
def test_pooling_is_monotonous_and_commutes_with_what_is(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=INTEGERS))
    case = replace(case, params={**case.params, "return_indices": False})
    (x,) = case.arrays
    rise = data.draw(values(FLOAT64, x.shape, "after relu"))
    before, after = out_of(spec, rung, case), out_of(spec, rung, replace(case, arrays=(x + rise,)))
    assert np.all(after >= before)
    np.testing.assert_array_equal(out_of(spec, rung, replace(case, arrays=(2 * x + 1,))), 2 * before + 1)


@rungs("adaptive_avg_pool2d")
@fewer
@given(data=st.data())
def test_averages_lie_between_the_extremes_and_keep_a_constant(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=("integers", "reals", "wide")))
    (x,) = case.arrays
    out = out_of(spec, rung, replace(case, arrays=(np.full_like(x, 3.0),)))
    np.testing.assert_array_equal(out, 3)
    one = out_of(spec, rung, Case((x,), {"output_size": x.shape[-2:]}, case.palette))
    np.testing.assert_array_equal(one, x)  # as many outputs as cells


@rungs("local_response_norm")
@fewer
@given(data=st.data())
def test_without_alpha_normalization_is_a_factor(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=("integers", "reals")))
    (x,) = case.arrays
    case = replace(case, params={**case.params, "alpha": 0.0, "k": 1.0})
    np.testing.assert_array_equal(out_of(spec, rung, case), x)


@rungs("softmax", "log_softmax")
@fewer
@given(data=st.data())
def test_adding_a_constant_changes_no_probability(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=INTEGERS))
    (x,) = case.arrays
    np.testing.assert_array_equal(out_of(spec, rung, replace(case, arrays=(x + 8,))), out_of(spec, rung, case))


@rungs("softmax")
@fewer
@given(data=st.data())
def test_probabilities_add_up_to_one(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=INTEGERS))
    (x,) = case.arrays
    dim = case.params["dim"]
    if not x.size:
        return
    (reference,), _ = spec.reference(Rounding(FLOAT64), x, dim=dim)
    total = Rounding(FLOAT64).exact(out_of(spec, rung, case)).sum(dim)
    room = replace(reference.sum(dim), value=np.ones_like(total.value))
    assert np.all(in_bounds(total.value, room) <= 1)


@rungs("cross_entropy")
@fewer
@given(data=st.data())
def test_the_sum_of_losses_is_the_sum(spec, rung, data):
    case = data.draw(spec.cases_of(rung)(FLOAT64, palettes=INTEGERS))
    each, total = (out_of(spec, rung, replace(case, params={**case.params, "reduction": how})) for how in ("none", "sum"))
    bound = Rounding(FLOAT64).exact(each).sum()
    assert in_bounds(np.asarray(total), bound).max() <= 2
