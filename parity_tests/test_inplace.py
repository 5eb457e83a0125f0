"""ReLU in place: the same bits as out of place, in every layout; a network with such ReLUs computes the same as one without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import torch_impl.relu
from alexnet_from_scratch.proof import cases
from alexnet_from_scratch.proof.draws import FLOATS, LAYOUTS, fewer
from parity_tests.verdicts import SPEC
from scratch import modules, relu, use_rung
from scratch.alexnet import AlexNet
from scratch.modules import CrossEntropyLoss, Dropout, ReLU

WRITABLE = [name for name in LAYOUTS if name != "read-only"]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("rung", SPEC["relu"].rungs)
@fewer
@given(data=st.data())
def test_in_place_is_the_same(rung, dtype, data):
    (x,) = data.draw(cases.relu(dtype, large=data.draw(st.booleans()))).arrays
    given_array = LAYOUTS[data.draw(st.sampled_from(WRITABLE))](x)
    grad_out = np.arange(x.size, dtype=dtype).reshape(x.shape) + 1
    with use_rung(relu=rung):
        wanted, cache = relu.forward(x)
        wanted_grad = relu.backward(grad_out, cache)[0]
        out, cache = relu.forward(given_array, inplace=True)
    assert out is given_array
    np.testing.assert_array_equal(out, wanted, strict=False)
    np.testing.assert_array_equal(np.signbit(out), np.signbit(wanted))
    np.testing.assert_array_equal(relu.backward(grad_out, cache)[0], wanted_grad)


def test_torch_impl_writes_to_its_input_too():
    x = torch.tensor([-1.0, 2.0])
    out, cache = torch_impl.relu.forward(x, inplace=True)
    assert out is x
    assert x.tolist() == [0, 2]
    (grad_x,) = torch_impl.relu.backward(torch.ones(2), cache)
    assert grad_x is not None
    assert grad_x.tolist() == [0, 1]


def test_modules_write_to_their_input_where_torchs_do():
    sides: list[tuple[Any, Any]] = [(modules, np.array), (torch.nn, torch.tensor)]
    for side, made in sides:
        x = made([-1.0, 2.0])
        assert side.ReLU(inplace=True)(x) is x
        assert x.tolist() == [0, 2]
    x = np.array([-1.0, 2.0])
    assert np.array_equal(Dropout(0.5, inplace=True).eval()(x), [-1, 2])
    assert np.array_equal(x, [-1, 2])


def test_what_cannot_be_written_to_is_refused():
    x = LAYOUTS["read-only"](np.array([-1.0, 2.0]))
    with pytest.raises(ValueError, match=r"relu: x must be writable to work in place, got a read-only array of shape \(2,\)"):
        relu.forward(x, inplace=True)
    flag: Any = "yes"
    with pytest.raises(TypeError, match="relu: inplace must be True or False, got 'yes'"):
        relu.forward(np.ones(2), inplace=flag)


def test_a_network_computes_the_same():
    """To the last bit: loss, gradients and the photographs, which come before any ReLU and are not changed."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((3, 1, 28, 28), np.float32), np.array([0, 3, 9])
    before = images.copy()

    def results(inplace: bool) -> list[np.ndarray]:
        model, criterion = AlexNet("mini", 10, rng=np.random.default_rng(1)), CrossEntropyLoss()
        for _, module in model.named_modules():
            if isinstance(module, ReLU):
                assert module.inplace
                module.inplace = inplace
            elif isinstance(module, Dropout):
                module.p = 0.0
        loss = criterion(model(images), labels)
        grad_images = model.backward(criterion.backward(), need_input_grad=True)
        assert grad_images is not None
        return [np.asarray(loss), grad_images, *(p.grad for p in model.parameters() if p.grad is not None)]

    for ours, wanted in zip(results(True), results(False), strict=True):
        assert np.array_equal(ours, wanted)
    assert np.array_equal(images, before)
