"""PyTorch's own samples of conv2d, by the tolerances of torch.testing: what ``docs/numerics.md`` says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import scratch
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


def samples() -> list[Case]:
    """The samples that PyTorch tests its conv2d with, in float32: numbers from -9 to 9, with a batch axis and without."""
    torch.manual_seed(0)
    cases = []
    for x, weight, bias, params in SAMPLES:
        for shape in (x, x[1:]):
            arrays = (
                None if each is None else torch.testing.make_tensor(each, device="cpu", dtype=torch.float32).numpy()
                for each in (shape, weight, bias)
            )
            cases.append(Case(tuple(arrays), params, "a sample"))
    return cases


def test_direct_rungs_meet_torchs_tolerances_and_winograd_its_own_bound():
    cases, missed = samples(), dict.fromkeys(conv2d.RUNGS, 0)
    rng = np.random.default_rng(0)
    for case in cases:
        leaves = [None if array is None else to_torch(array, "cpu").requires_grad_() for array in case.arrays]
        wanted = torch.nn.functional.conv2d(*leaves, **case.params)
        grad_out = rng.uniform(-1, 1, wanted.shape).astype(np.float32)
        gradients = torch.autograd.grad(wanted, [leaf for leaf in leaves if leaf is not None], torch.from_numpy(grad_out))
        for rung in conv2d.RUNGS:
            with scratch.use_rung(rung):
                out, cache = conv2d.forward(*case.arrays, **case.params)
                found = [out, *(gradient for gradient in conv2d.backward(grad_out, cache) if gradient is not None)]
            pairs = zip(found, (wanted.detach(), *gradients), strict=True)
            missed[rung] += not all(
                torch.allclose(torch.from_numpy(ours), other, rtol=1.3e-6, atol=1e-5) for ours, other in pairs
            )

        def draw(strategy: st.SearchStrategy[Any], grad_out: np.ndarray = grad_out) -> Any:
            fixed = {layouts: "C", memories: "reused", st.booleans(): False}
            return fixed.get(strategy, grad_out)

        evidence = examine(SPEC["conv2d"], case, draw, rung="winograd")
        for assertion in ASSERTIONS:
            assertion(evidence)
    assert len(cases) > 20
    assert not any(missed[rung] for rung in missed if rung != "winograd"), missed
    assert 0 < missed["winograd"] < len(cases) / 2, missed
