"""Small integers: every product and every sum is exact in float32, whatever the order, so results must be equal to the bit.

The sums may be long here: an error bound cannot see that one product among thousands is missing, but equality can.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scratch
from alexnet_from_scratch.proof.draws import FLOATS
from alexnet_from_scratch.proof.parity import to_numpy, to_torch
from alexnet_from_scratch.proof.specs import SPECS, Spec

BY_NAME = {spec.name: spec for spec in SPECS}
SUMS = [(BY_NAME[name], rung) for name in ("conv2d", "linear", "max_pool2d") for rung in BY_NAME[name].rungs if rung != "naive"]


def assert_equal_bits(
    spec: Spec, rung: str, device: str, arrays: list[np.ndarray], params: dict[str, Any], integers: np.random.Generator
) -> None:
    tensors = [to_torch(array, device) for array in arrays]
    expected, torch_cache = spec.torch.forward(*tensors, **params)
    with scratch.use_rung(rung):
        out, cache = spec.scratch.forward(*arrays, **params)
    np.testing.assert_array_equal(out, to_numpy(expected))
    grad_out = integers.integers(-4, 5, out.shape).astype(out.dtype)
    gradients = spec.scratch.backward(grad_out, cache)
    torch_gradients = spec.torch.backward(to_torch(grad_out, device), torch_cache)
    for ours, theirs in zip(gradients, torch_gradients, strict=True):
        np.testing.assert_array_equal(ours, to_numpy(theirs))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("spec", "rung"), SUMS, ids=str)
@given(data=st.data())
def test_long_sums_of_integers_are_exact(spec, rung, dtype, device, data):
    # Too many numbers to draw one by one: a failure shrinks in its sizes, and its seed repeats it.
    integers = np.random.default_rng(data.draw(st.integers(0, 2**32), label="seed"))

    def draw(*shape: int) -> np.ndarray:
        return integers.integers(-4, 5, shape).astype(dtype)

    N, C, H, W = (data.draw(st.integers(low, high)) for low, high in [(1, 3), (1, 40), (5, 14), (5, 14)])
    if spec.name == "conv2d":
        groups = data.draw(st.sampled_from([1, 2, 4]))
        C, OC = -(-C // groups) * groups, data.draw(st.integers(1, 6)) * groups
        for_winograd = rung == "winograd" and data.draw(st.booleans(), label="what winograd takes")
        taps = st.sampled_from([3, 5]) if for_winograd else st.integers(1, 5)
        KH, KW = data.draw(taps), data.draw(taps)
        arrays = [draw(N, C, H, W), draw(OC, C // groups, KH, KW), draw(OC)]
        pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))
        params = {
            "stride": 1 if for_winograd else data.draw(pairs),
            "padding": data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
            "groups": groups,
        }
    elif spec.name == "linear":
        arrays, params = [draw(N * H, C * W), draw(H * 4, C * W), draw(H * 4)], {}
    else:
        arrays, params = [draw(N, C, H, W)], {"kernel_size": data.draw(st.integers(2, 4)), "stride": 2, "padding": 1}
    assert_equal_bits(spec, rung, device, arrays, params, integers)
