"""PyTorch's own samples of conv2d, by the tolerances of torch.testing: what ``docs/numerics.md`` says of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import scratch
import torch_impl
from alexnet_from_scratch.proof.draws import Case, layouts, memories
from alexnet_from_scratch.proof.parity import ASSERTIONS, examine, to_torch
from parity_tests.verdicts import SPEC
from scratch import conv2d

# sample_inputs_conv2d in torch 2.13's torch/testing/_internal/common_methods_invocations.py: x, weight, bias, parameters.
SAMPLES: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None, dict[str, Any]], ...] = (
    ((1, 3, 4, 4), (3, 3, 3, 3), (3,), {"stride": (2, 2), "padding": 2}),
    ((2, 4, 8, 8), (2, 2, 3, 3), (2,), {"stride": (3, 2), "padding": (2, 1), "groups": 2, "dilation": (4, 4)}),
    ((1, 4, 5, 5), (1, 4, 2, 3), (1,), {"stride": 2, "padding": 1, "dilation": (2, 3)}),
    ((1, 2, 4, 3), (4, 2, 3, 4), None, {"stride": 2, "padding": 1}),
    ((1, 4, 5, 5), (1, 4, 2, 3), (1,), {"stride": 2, "padding": "valid"}),
    ((1, 4, 5, 5), (1, 4, 2, 3), (1,), {"stride": 1, "padding": "same", "dilation": 3}),
    ((2, 4, 6, 6), (4, 1, 3, 3), (4,), {"groups": 4}),
    ((2, 4, 6, 6), (8, 1, 3, 3), (8,), {"groups": 4}),
    ((2, 4, 6, 6), (8, 1, 3, 3), None, {"groups": 4}),
    ((2, 4, 6, 6), (4, 1, 3, 3), (4,), {"groups": 4, "stride": (3, 2)}),
    ((2, 4, 6, 6), (4, 1, 3, 3), (4,), {"groups": 4, "padding": (1, 1)}),
    ((2, 4, 5, 5), (4, 1, 2, 2), (4,), {"groups": 4, "dilation": (2, 2)}),
    ((2, 4, 6, 5), (6, 2, 3, 2), (6,), {"groups": 2}),
    ((1, 4, 5, 5), (3, 4, 3, 3), None, {}),
)


def samples(seed: int) -> list[Case]:
    """Calls like those that PyTorch tests its conv2d with, in float32: numbers from -9 to 9, with a batch axis and without."""
    rng = np.random.default_rng(seed)

    def array(shape: tuple[int, ...] | None) -> np.ndarray | None:
        return None if shape is None else rng.uniform(-9, 9, shape).astype(np.float32)

    return [
        Case((array(shape), array(weight), array(bias)), params, "reals")
        for x, weight, bias, params in SAMPLES
        for shape in (x, x[1:])
    ]


def by_torch(case: Case, grad_out: np.ndarray, dtype: torch.dtype) -> list[torch.Tensor]:
    """The output and the gradients."""
    arrays: list[Any] = [None if array is None else torch.from_numpy(array).to(dtype) for array in case.arrays]
    out, cache = torch_impl.conv2d.forward(*arrays, **case.params)
    gradients = torch_impl.conv2d.backward(torch.from_numpy(grad_out).to(dtype), cache)
    return [out, *(gradient for gradient in gradients if gradient is not None)]


def by_scratch(case: Case, grad_out: np.ndarray, rung: str) -> list[torch.Tensor]:
    with scratch.use_rung(rung):
        out, cache = conv2d.forward(*case.arrays, **case.params)
        gradients = conv2d.backward(grad_out, cache)
    return [torch.from_numpy(array) for array in (out, *gradients) if array is not None]


def test_torch_itself_misses_its_tolerances_and_winograd_more_often():
    """Against float64. Each miss of Winograd is within its own bound."""
    missed = Counter[str]()
    for seed in range(5):
        for case in samples(seed):
            shape = torch_impl.conv2d.forward(*(to_torch(array, "cpu") for array in case.arrays), **case.params)[0].shape
            grad_out = np.random.default_rng(seed).uniform(-9, 9, shape).astype(np.float32)
            wanted = by_torch(case, grad_out, torch.float64)
            results = {rung: by_scratch(case, grad_out, rung) for rung in ("im2col", "numba", "implicit_gemm", "winograd")}
            results["torch"] = by_torch(case, grad_out, torch.float32)
            for name, found in results.items():
                pairs = zip(found, wanted, strict=True)
                missed[name] += not all(torch.allclose(one.double(), right, rtol=1.3e-6, atol=1e-5) for one, right in pairs)

            def draw(strategy: st.SearchStrategy[Any], grad_out: np.ndarray = grad_out) -> Any:
                return {layouts: "C", memories: "reused", st.booleans(): False}.get(strategy, grad_out)

            evidence = examine(SPEC["conv2d"], case, draw, rung="winograd")
            for assertion in ASSERTIONS:
                assertion(evidence)
    assert missed["torch"] > 0, missed
    for rung in ("im2col", "numba", "implicit_gemm"):
        assert missed[rung] <= 2 * missed["torch"], missed
    assert missed["winograd"] > 2 * missed["torch"], missed
