"""Results in which scratch differs from torch on purpose: the second list of docs/deviations.md, all of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch

import scratch
from alexnet_from_scratch.proof.specs import SPECS
from parity_tests.deviations import DEVIATIONS
from torch_impl import dropout as torch_dropout

DEVIATIONS_TEXT = (Path(__file__).parents[1] / "docs" / "deviations.md").read_text()
CONVOLUTION, POOLING, NORMALIZATION = (
    next(spec for spec in SPECS if spec.name == name) for name in ("conv2d", "max_pool2d", "local_response_norm")
)


Test = TypeVar("Test", bound=Callable[..., Any])
SHOWN: set[str] = set()


def shows(name: str) -> Callable[[Test], Test]:
    """Marks the test that shows the deviation which docs/deviations.md calls ``name``."""
    SHOWN.add(name)
    return lambda test: test


def test_every_deviation_is_documented_and_shown():
    documented = re.findall(r"^- \*\*(.+)\.\*\*", DEVIATIONS_TEXT, re.MULTILINE)
    assert sorted(documented) == sorted(SHOWN | {deviation.name for deviation in DEVIATIONS})


@shows("A window without cells")
@pytest.mark.parametrize("rung", POOLING.rungs)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_window_without_cells_has_no_index_and_no_gradient(rung, axis):
    x = np.arange(19 * 4, dtype=np.float32).reshape(1, 19, *(1, 4)[:: 1 - 2 * axis])
    padding, dilation = (1, 0)[:: 1 - 2 * axis], (2, 1)[:: 1 - 2 * axis]
    params = {"kernel_size": (2, 2), "stride": 1, "padding": padding, "dilation": dilation, "return_indices": True}
    with scratch.use_rung(rung):
        (out, indices), cache = POOLING.scratch.forward(x, **params)
        (grad_x,) = POOLING.scratch.backward(np.ones_like(out), cache)
    assert np.all(out == -np.inf)
    assert np.all(indices == 4)
    assert np.all(grad_x == 0)
    (torch_out, torch_indices), _ = POOLING.torch.forward(torch.from_numpy(x), **params)
    assert torch.all(torch_out == -torch.inf)
    assert torch.any(torch_indices != 4)


@pytest.mark.parametrize("rung", POOLING.rungs)
def test_the_index_of_no_cell_is_not_the_first_cells(rung):
    """16 bits count the cells of this plane, but not one more."""
    x = np.ones((1, 1, 1, 1 << 16), np.float32)
    with scratch.use_rung(rung):
        (out, indices), cache = POOLING.scratch.forward(
            x, kernel_size=(2, 1), stride=1 << 14, padding=(1, 0), dilation=(2, 1), return_indices=True
        )
        (grad_x,) = POOLING.scratch.backward(np.ones_like(out), cache)
    assert np.all(indices == 1 << 16)
    assert np.all(grad_x == 0)


@shows("A convolution of no channels")
@pytest.mark.parametrize("rung", CONVOLUTION.rungs)
def test_a_convolution_of_no_channels_is_the_bias(rung):
    x, weight, bias = np.zeros((2, 0, 5, 4)), np.zeros((3, 0, 3, 3)), np.array([1.0, 2.0, 3.0])
    with scratch.use_rung(rung):
        out, cache = CONVOLUTION.scratch.forward(x, weight, bias)
        gradients = CONVOLUTION.scratch.backward(np.ones_like(out), cache)
    np.testing.assert_array_equal(out, np.broadcast_to(bias[:, np.newaxis, np.newaxis], (2, 3, 3, 2)))
    assert [gradient.shape for gradient in gradients] == [x.shape, weight.shape, bias.shape]
    np.testing.assert_array_equal(gradients[2], [12, 12, 12])
    torch_out, _ = CONVOLUTION.torch.forward(*(torch.from_numpy(array) for array in (x, weight, bias)))
    assert torch_out.shape == (2, 0, 3, 2)


@shows("The smallest exponents")
def test_an_exponent_too_small_for_float32_is_zero():
    x, params = np.ones((1, 1, 3), np.float32), {"size": 1, "alpha": 0.0, "k": -1.0, "beta": 1e-300}
    for rung in NORMALIZATION.rungs:
        with scratch.use_rung(rung):
            out, _ = NORMALIZATION.scratch.forward(x, **params)
        np.testing.assert_array_equal(out, x)
    torch_out, _ = NORMALIZATION.torch.forward(torch.from_numpy(x), **params)
    assert torch_out.isnan().any()


@shows("Writing between the passes")
def test_writing_between_the_passes_goes_unnoticed():
    x = np.array([1.0, 2.0])
    out, cache = scratch.relu.forward(x)
    out[0] = -1
    np.testing.assert_array_equal(scratch.relu.backward(np.ones(2), cache)[0], [0, 1])
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    torch_out = torch.relu(leaf)
    torch_out[0] = -1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch_out.sum().backward()


@shows("Other random numbers")
def test_a_seed_gives_another_mask_than_torch():
    _, ours = scratch.dropout.forward(np.ones(1000), rng=np.random.default_rng(0))
    _, theirs = torch_dropout.forward(torch.ones(1000), rng=torch.Generator().manual_seed(0))
    mask, torch_mask = scratch.dropout.kept(ours), torch_dropout.kept(theirs)
    assert mask is not None
    assert torch_mask is not None
    assert not np.array_equal(mask, torch_mask.numpy())
    out, _ = scratch.dropout.forward(np.ones(1000), mask=mask)
    torch_out, _ = torch_dropout.forward(torch.ones(1000, dtype=torch.float64), mask=torch.from_numpy(mask))
    np.testing.assert_array_equal(out, torch_out.numpy())
