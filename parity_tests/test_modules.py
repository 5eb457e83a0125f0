"""scratch.modules compared with torch.nn: values and gradients, names, starting values, dropout's masks.

The operations under the modules are proven by ``test_operations.py``; here it is enough that each module calls the right one
with the right arguments and puts every gradient where it belongs. So one float64 case for each argument is enough. "Equal" allows
64 roundings of the largest element, more than the number of terms in the longest sum here.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

import scratch.modules
import scratch.sgd
import torch_impl.modules

modules: Any = scratch.modules  # Any: what the types forbid must also raise
Conv2d, Linear, ReLU, MaxPool2d = modules.Conv2d, modules.Linear, modules.ReLU, modules.MaxPool2d
Flatten, Dropout, Sequential, CrossEntropyLoss = modules.Flatten, modules.Dropout, modules.Sequential, modules.CrossEntropyLoss

# Class, arguments, input shape. Every argument has a non-default value somewhere.
LAYERS = [
    ("Conv2d", (3, 8, 3), {"padding": 1}, (2, 3, 6, 5)),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "groups": 2, "bias": False}, (2, 4, 7, 5)),
    ("Conv2d", (2, 3, 3), {"padding": "same", "dilation": 2}, (2, 2, 5, 7)),
    ("Conv2d", (2, 3, 3, 2, 1, (1, 2), 1, True, "zeros"), {}, (2, 7, 8)),
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3, False), {}, (2, 4, 5)),
    ("ReLU", (), {}, (2, 3, 4)),
    ("LocalResponseNorm", (5,), {}, (2, 7, 3, 4)),
    ("LocalResponseNorm", (2, 1.5, 0.5, 2.0), {}, (2, 7, 3, 4)),
    ("MaxPool2d", (3,), {}, (2, 3, 8, 7)),
    ("MaxPool2d", ((3, 2), (2, 1), (1, 0), (1, 2)), {"ceil_mode": True}, (2, 3, 8, 7)),
    ("AdaptiveAvgPool2d", (2,), {}, (2, 3, 5, 7)),
    ("AdaptiveAvgPool2d", ((3, None),), {}, (2, 3, 5, 7)),
    ("Flatten", (), {}, (2, 3, 5, 7)),
    ("Flatten", (0, 2), {}, (2, 3, 5, 7)),
    ("Flatten", (-3, -2), {}, (2, 3, 5, 7)),
    ("Flatten", (1, -1), {}, (0, 3, 5)),
    ("Flatten", (0, -1), {}, ()),
    ("Dropout", (0.0,), {}, (3, 4)),
    ("Dropout", (1.0,), {}, (3, 4)),
]


def build(name, args, kwargs):
    """The same layer on both sides, in float64, with the same weights."""
    dtype = {"dtype": np.float64, "rng": np.random.default_rng(0)} if name in ("Conv2d", "Linear") else {}
    ours = getattr(modules, name)(*args, **kwargs, **dtype)
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    theirs.load_state_dict({key: torch.from_numpy(array) for key, array in ours.state_dict().items()})
    return ours, theirs


def assert_equal(ours, theirs):
    assert isinstance(ours, np.ndarray)
    expected = theirs.detach().numpy()
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype
    bound = 64 * np.finfo(np.float64).eps * abs(expected).max(initial=0)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=bound)


@pytest.mark.parametrize(("name", "args", "kwargs", "shape"), LAYERS)
def test_layer_is_torchs(name, args, kwargs, shape):
    ours, theirs = build(name, args, kwargs)
    assert repr(ours) == repr(theirs)
    assert [(key, array.shape) for key, array in ours.state_dict().items()] == [
        (key, tuple(tensor.shape)) for key, tensor in theirs.state_dict().items()
    ]
    rng = np.random.default_rng(1)
    for _ in range(2):  # the second time the gradients add up
        x = np.array(rng.standard_normal(shape))
        tensor = torch.tensor(x, requires_grad=True)
        out, expected = ours(x), theirs(tensor)
        assert_equal(out, expected)
        grad_out = np.array(rng.standard_normal(out.shape))
        grad_x = ours.backward(grad_out)
        expected.backward(torch.from_numpy(grad_out))
        assert_equal(grad_x, tensor.grad)
        for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_equal(parameter.grad, other.grad)


def test_max_pool_returns_indices():
    ours, theirs = build("MaxPool2d", (3, 2), {"return_indices": True})
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 8))
    (values, indices), (expected, where) = ours(x), theirs(torch.from_numpy(x))
    assert_equal(values, expected)
    assert np.array_equal(indices, where.numpy())


@pytest.mark.parametrize("kwargs", [{}, {"reduction": "sum", "ignore_index": 2}, {"label_smoothing": 0.1, "reduction": "none"}])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs(kwargs, weighted):
    rng = np.random.default_rng(0)
    weight = rng.random(4) if weighted else None
    ours = CrossEntropyLoss(weight, **kwargs)
    theirs = torch.nn.CrossEntropyLoss(None if weight is None else torch.from_numpy(weight), **kwargs)
    assert repr(ours) == repr(theirs)
    logits, target = rng.standard_normal((6, 4)), np.array([0, 1, 2, 3, 2, 1])
    tensor = torch.tensor(logits, requires_grad=True)
    loss, expected = ours(logits, target), theirs(tensor, torch.from_numpy(target))
    assert_equal(loss, expected)
    if kwargs.get("reduction") == "none":
        grad_out = rng.standard_normal(6)
        grad = ours.backward(grad_out)
        expected.backward(torch.from_numpy(grad_out))
    else:
        grad = ours.backward()
        expected.backward()
    assert_equal(grad, tensor.grad)


def small_network(side, **dtype):
    return side.Sequential(
        side.Conv2d(2, 4, 3, padding=1, **dtype),
        side.ReLU(),
        side.MaxPool2d(2),
        side.Sequential(side.Flatten(), side.Linear(4 * 3 * 3, 5, **dtype)),
    )


def test_network_is_torchs():
    ours, theirs = small_network(modules, dtype=np.float64), small_network(torch.nn, dtype=torch.float64)
    assert repr(ours) == repr(theirs)
    assert [name for name, _ in ours.named_modules()] == [name for name, _ in theirs.named_modules()]
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert [name for name, _ in ours.named_children()] == [name for name, _ in theirs.named_children()]

    result = ours.load_state_dict({name: tensor.cpu().numpy() for name, tensor in theirs.state_dict().items()})
    assert result == ([], [])
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})

    rng = np.random.default_rng(0)
    x, target = rng.standard_normal((3, 2, 6, 6)), np.array([4, 0, 1])
    tensor = torch.tensor(x, requires_grad=True)
    ours_criterion, theirs_criterion = CrossEntropyLoss(), torch.nn.CrossEntropyLoss()
    loss, expected = ours_criterion(ours(x), target), theirs_criterion(theirs(tensor), torch.from_numpy(target))
    expected.backward()
    assert_equal(loss, expected)
    assert_equal(ours.backward(ours_criterion.backward()), tensor.grad)
    for parameter, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_equal(parameter.grad, other.grad)


def test_sequential_of_named_modules():
    named = {"first": ReLU(), "second": Flatten()}
    theirs = torch.nn.Sequential(OrderedDict(first=torch.nn.ReLU(), second=torch.nn.Flatten()))
    ours = Sequential(named)
    assert repr(ours) == repr(theirs)
    assert len(ours) == 2
    assert ours[-1] is named["second"]
    assert list(ours) == [named["first"], named["second"]]


@pytest.mark.parametrize("index", [slice(2), slice(1, None), slice(None, None, -1), slice(5, None)], ids=str)
def test_a_slice_is_a_sequential(index):
    ours, theirs = (side.Sequential(side.ReLU(), side.Flatten(), side.Linear(2, 3)) for side in (modules, torch.nn))
    assert type(ours[index]) is Sequential
    assert repr(ours[index]) == repr(theirs[index])
    assert list(ours[index].state_dict()) == list(theirs[index].state_dict())
    assert list(ours[index]) == list(ours)[index]  # the same objects


@pytest.mark.parametrize("index", [0, 2, -1, -3, np.int64(1)])
def test_an_index_may_be_negative(index):
    ours, theirs = (side.Sequential(side.ReLU(), side.Flatten(), side.Linear(2, 3)) for side in (modules, torch.nn))
    assert repr(ours[index]) == repr(theirs[index])


@pytest.mark.parametrize("index", [2, -3])
@pytest.mark.parametrize("side", [modules, torch.nn])
def test_an_index_out_of_range(index, side):
    with pytest.raises(IndexError, match=f"index .*{index}"):
        side.Sequential(side.ReLU(), side.Flatten())[index]


def test_a_tied_parameter_is_learned_once():
    """Two layers share a weight: one parameter under the first of its names, with both layers' gradients, and one step."""
    ours = Sequential(*(Linear(3, 3, dtype=np.float64) for _ in range(2)))
    theirs = torch.nn.Sequential(*(torch.nn.Linear(3, 3, dtype=torch.float64) for _ in range(2)))
    for network in (ours, theirs):
        network[1].weight = network[0].weight
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert len(list(ours.parameters())) == 3

    x = np.random.default_rng(0).standard_normal((2, 3))
    out, expected = ours(x), theirs(torch.from_numpy(x))
    ours.backward(np.ones_like(out))
    expected.backward(torch.ones_like(expected))
    scratch.sgd.SGD(ours.parameters(), lr=0.5).step()
    torch.optim.SGD(theirs.parameters(), lr=0.5).step()
    for name, tensor in theirs.state_dict().items():
        assert_equal(ours.state_dict()[name], tensor)


def test_first_layer_may_leave_out_its_inputs_gradient():
    network = small_network(modules)
    grad_out = np.ones((1, 5), np.float32)
    x = np.ones((1, 2, 6, 6), np.float32)
    network(x)
    assert network.backward(grad_out) is not None
    whole = [parameter.grad for parameter in network.parameters()]
    network.zero_grad()
    network(x)
    assert network.backward(grad_out, need_input_grad=False) is None
    for parameter, gradient in zip(network.parameters(), whole, strict=True):
        assert np.array_equal(parameter.grad, gradient)


def test_zero_grad():
    layer = Linear(2, 3)
    layer(np.ones((1, 2), np.float32))
    layer.backward(np.ones((1, 3), np.float32))
    gradient = layer.weight.grad
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad is gradient
    assert not gradient.any()
    layer.zero_grad()
    assert layer.weight.grad is None
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad is None


@pytest.mark.parametrize("make", [lambda rng: Conv2d(6, 400, 5, groups=2, rng=rng), lambda rng: Linear(75, 400, rng=rng)])
def test_starting_values_are_torchs_distribution(make):
    layer = make(np.random.default_rng(0))
    theirs = torch.nn.Linear(75, 400)
    bound = 1 / math.sqrt(75)
    for ours in (layer.weight.data, layer.bias.data):
        assert abs(ours).max() <= bound
        # Uniform: the standard deviations of mean and square of n draws are known; allow 5 of them.
        relative = ours.astype(np.float64) / bound
        assert abs(relative.mean()) <= 5 / math.sqrt(3 * ours.size)
        assert abs((relative**2).mean() - 1 / 3) <= 5 * math.sqrt(4 / 45 / ours.size)
    assert abs(theirs.weight.detach().numpy()).max() <= bound
    again = make(np.random.default_rng(0))
    assert np.array_equal(layer.weight.data, again.weight.data)
    assert not np.array_equal(layer.weight.data, make(None).weight.data)
    assert layer.weight.data.dtype == np.float32


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_without_inputs_the_bias_starts_at_zero_as_torchs_does():
    for ours, theirs in ((Linear(0, 3), torch.nn.Linear(0, 3)), (Conv2d(0, 3, 2), torch.nn.Conv2d(0, 3, 2))):
        assert np.array_equal(ours.bias.data, theirs.state_dict()["bias"].numpy())


# --- dropout ----------------------------------------------------------------------------------------------------------


def test_dropout_draws_from_its_generator():
    x = np.ones((50, 40), np.float32)
    first, second = (Dropout(0.3, rng=np.random.default_rng(5)) for _ in range(2))
    out = first(x)
    assert np.array_equal(out, second(x))
    assert not np.array_equal(out, first(x))
    assert set(np.unique(out)) == {np.float32(0), np.float32(1) / np.float32(0.7)}
    assert abs((out == 0).mean() - 0.3) <= 5 * math.sqrt(0.3 * 0.7 / x.size)


def test_dropout_takes_a_mask():
    layer = Dropout(0.5)
    x = np.arange(1.0, 5.0)
    layer.mask = np.array([True, False, True, False])
    assert np.array_equal(layer(x), [2, 0, 6, 0])
    assert np.array_equal(layer.backward(np.ones(4)), [2, 0, 2, 0])
    layer.eval()
    assert np.array_equal(layer(x), x)


@pytest.mark.parametrize("p", [0.3, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_a_mask_does_the_same_on_both_sides(p, training):
    ours, theirs = Dropout(p).train(training), torch_impl.modules.Dropout(p).train(training)
    rng = np.random.default_rng(0)
    x, mask = rng.standard_normal((5, 6)), rng.random((5, 6)) < 0.5
    ours.mask, theirs.mask = mask, torch.from_numpy(mask)
    tensor = torch.tensor(x, requires_grad=True)
    expected = theirs(tensor)
    assert_equal(ours(x), expected)
    expected.backward(torch.from_numpy(x))
    assert_equal(ours.backward(x), tensor.grad)


def test_dropout_switched_off_alone_lets_gradients_by():
    network = Sequential(Linear(3, 4), Dropout(0.5))
    network[1].eval()
    out = network(np.ones((2, 3), np.float32))
    grad_x = network.backward(np.ones_like(out))
    assert np.allclose(grad_x, network[0].weight.data.sum(axis=0))


@pytest.mark.parametrize("name", ["conv2d", "linear"])
def test_either_side_leaves_the_first_gradient_out_where_nobody_needs_it(name):
    side, torch_side = getattr(scratch, name), getattr(torch_impl, name)
    arrays = [np.ones(shape) for shape in ([(2, 3, 5, 5), (4, 3, 3, 3), (4,)] if name == "conv2d" else [(2, 3), (4, 3), (4,)])]
    out, cache = side.forward(*arrays)
    torch_out, torch_cache = torch_side.forward(*map(torch.from_numpy, arrays))
    none, *gradients = side.backward(np.ones_like(out), cache, need_grad_x=False)
    torch_none, *torch_gradients = torch_side.backward(torch.ones_like(torch_out), torch_cache, need_grad_x=False)
    assert none is None
    assert torch_none is None
    for ours, theirs in zip(gradients, torch_gradients, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())  # small integers: exact
