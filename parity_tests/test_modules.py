"""scratch.modules beside torch.nn: values and gradients, names, state dicts, errors, and what is kept in memory.

The operations under the modules are proven by ``test_operations.py``; here it is enough that each module calls the right one
with the right arguments and puts every gradient where it belongs. So one float64 case for each argument will do, and
"equal" allows 64 roundings of the largest element, which is more than the longest sum here has terms.
"""

from __future__ import annotations

import math
import pickle
import re
import tracemalloc
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

import scratch.modules
import torch_impl.modules
from scratch.modules import Module

modules: Any = scratch.modules  # Any: what the types forbid must raise, too
Conv2d, Linear, ReLU, MaxPool2d = modules.Conv2d, modules.Linear, modules.ReLU, modules.MaxPool2d
Flatten, Dropout, Sequential, CrossEntropyLoss = modules.Flatten, modules.Dropout, modules.Sequential, modules.CrossEntropyLoss

# Class, arguments, shape of the input. Every argument has a value other than its default somewhere.
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


# --- one forward pass, one backward -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [ReLU, Flatten, lambda: Linear(3, 3), lambda: MaxPool2d(1), lambda: Dropout(0.5), CrossEntropyLoss]
)
def test_backward_needs_a_forward_pass_of_its_own(make):
    layer = make()
    grad_out: Any = np.ones((1, 3, 3), np.float32)
    inputs: Any = (grad_out,)
    if isinstance(layer, CrossEntropyLoss):
        inputs, grad_out = (np.ones((1, 3), np.float32), np.array([0])), None
    if isinstance(layer, Flatten):
        grad_out = grad_out.reshape(1, 9)
    message = f"{type(layer).__name__}.backward: must follow a forward pass"
    with pytest.raises(RuntimeError, match=message):
        layer.backward(grad_out)
    layer(*inputs)
    layer.backward(grad_out)
    with pytest.raises(RuntimeError, match=message):
        layer.backward(grad_out)


def test_eval_mode_keeps_nothing():
    layer = ReLU().eval()
    layer(np.ones(3))
    with pytest.raises(RuntimeError, match=r"training mode.*training is False"):
        layer.backward(np.ones(3))
    layer.train()(np.ones(3))
    layer.eval()(np.ones(3))  # nor what an earlier pass left
    with pytest.raises(RuntimeError, match="training mode"):
        layer.backward(np.ones(3))


def test_wrong_gradient_can_be_put_right():
    layer = Linear(3, 2)
    layer(np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match="grad_out"):
        layer.backward(np.ones((4, 3), np.float32))
    assert layer.weight.grad is None
    assert layer.backward(np.ones((4, 2), np.float32)).shape == (4, 3)


@pytest.fixture
def single_thread():
    """Threads of the pool may hold on to an array for a moment more."""
    threads = scratch.get_num_threads()
    scratch.set_num_threads(1)
    yield
    scratch.set_num_threads(threads)


@pytest.mark.usefixtures("single_thread")
def test_memory():
    """Training holds every activation until backward; eval mode holds an input and an output at a time."""
    network = Sequential(*(ReLU() for _ in range(20)))
    x = np.ones(1 << 17, np.float32)  # small enough to be given back to the system when it is let go
    network(x[:1])  # compiles

    def peak_and_rest(run):
        tracemalloc.start()
        run()
        rest, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak / x.nbytes, rest / x.nbytes

    peak, rest = peak_and_rest(lambda: network(x))
    assert peak > 19
    assert rest > 19
    peak, rest = peak_and_rest(lambda: network.backward(network(x)))
    assert rest < 0.1
    peak, rest = peak_and_rest(lambda: network.eval()(x))
    assert peak < 2.1
    assert rest < 0.1


def test_modes_reach_everything_inside():
    network = small_network(modules)
    assert network.eval() is network
    assert not any(module.training for _, module in network.named_modules())
    assert all(module.training for _, module in network.train().named_modules())


# --- state dicts ------------------------------------------------------------------------------------------------------


def test_state_dict_is_the_parameters_themselves():
    layer = Linear(2, 3)
    layer.state_dict()["weight"].fill(7)
    assert (layer.weight.data == 7).all()


def test_loading_copies_and_converts():
    layer = Linear(2, 3)
    mine = layer.weight.data
    given = {"weight": np.full((3, 2), 0.1, ">f8", order="F"), "bias": np.arange(3, dtype=np.float16)}
    layer.load_state_dict(given)
    assert layer.weight.data is mine
    assert mine.dtype == np.float32
    assert (mine == np.float32(0.1)).all()
    given["weight"].fill(0)
    assert mine.all()


def test_loading_names_all_that_is_wrong_and_changes_nothing():
    network = Sequential(Linear(2, 3), Linear(3, 2))
    before = {name: array.copy() for name, array in network.state_dict().items()}
    state = {
        "0.weight": np.zeros((3, 2)),
        "0.bias": np.zeros((4,)),
        "1.weight": [[0.0] * 3] * 2,
        "extra": np.zeros(1),
    }
    with pytest.raises(ValueError, match=r"Sequential\.load_state_dict") as caught:
        network.load_state_dict(state)
    for part in (
        "missing keys: 1.bias",
        "unexpected keys: extra",
        "0.bias must have shape (3,), got (4,)",
        "1.weight must be a NumPy array, got list",
    ):
        assert part in str(caught.value)
    state = {**before, "0.bias": np.zeros(3, np.int64), "1.bias": np.zeros(2, np.complex64)}
    with pytest.raises(ValueError, match=r"0.bias must be an array of floats, got int64\n.*1.bias must .* got complex64"):
        network.load_state_dict(state)
    with pytest.raises(TypeError, match="state_dict must be a mapping of names to arrays, got list"):
        network.load_state_dict([])
    assert all(np.array_equal(array, before[name]) for name, array in network.state_dict().items())


def test_loading_what_fits_only():
    network = Sequential(Linear(2, 3), Linear(3, 2))
    result = network.load_state_dict({"0.bias": np.ones(3), "extra": np.zeros(1)}, strict=False)
    assert result.missing_keys == ["0.weight", "1.weight", "1.bias"]
    assert result.unexpected_keys == ["extra"]
    assert (network[0].bias.data == 1).all()
    with pytest.raises(ValueError, match=r"0.bias must have shape"):
        network.load_state_dict({"0.bias": np.ones(4)}, strict=False)


def test_modules_can_be_pickled():
    network = small_network(modules)
    x = np.ones((1, 2, 6, 6), np.float32)
    assert np.array_equal(pickle.loads(pickle.dumps(network))(x), network(x))


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Conv2d(3, 0, 3), ValueError, "Conv2d: out_channels must be at least 1, got 0"),
        (lambda: Conv2d(-1, 8, 3), ValueError, "Conv2d: in_channels must be at least 0, got -1"),
        (lambda: Conv2d(3, 8, 3.0), TypeError, "Conv2d: kernel_size must be an int, got 3.0"),
        (lambda: Conv2d(3, 8, (3, 3, 3)), ValueError, "Conv2d: kernel_size must be an int or a pair"),
        (lambda: Conv2d(3, 8, 3, stride=0), ValueError, "Conv2d: stride must be at least 1, got 0"),
        (lambda: Conv2d(3, 8, 3, padding=-1), ValueError, "Conv2d: padding must be at least 0, got -1"),
        (lambda: Conv2d(3, 8, 3, padding="full"), ValueError, "Conv2d: padding must be ints, 'same' or 'valid', got 'full'"),
        (lambda: Conv2d(3, 8, 3, 2, "same"), ValueError, "Conv2d: stride must be 1 with padding 'same', got 2"),
        (lambda: Conv2d(4, 6, 3, groups=3), ValueError, "groups must divide in_channels=4 and out_channels=6, got 3"),
        (lambda: Conv2d(4, 6, 3, groups=4), ValueError, "groups must divide in_channels=4 and out_channels=6, got 4"),
        (lambda: Conv2d(4, 6, 3, padding_mode="reflect"), ValueError, "padding_mode must be 'zeros'.*got 'reflect'"),
        (lambda: Conv2d(4, 6, 3, bias=1), TypeError, "Conv2d: bias must be True or False, got 1"),
        (lambda: Conv2d(4, 6, 3, dtype=np.float16), TypeError, "Conv2d: dtype must be float32 or float64, got .*float16"),
        (lambda: Linear(4, 6, dtype=None), TypeError, "Linear: dtype must be float32 or float64, got None"),
        (lambda: Linear(4, 6, rng=0), TypeError, "Linear: rng must be a numpy.random.Generator or None, got 0"),
        (lambda: Linear(4, -6), ValueError, "Linear: out_features must be at least 0, got -6"),
        (lambda: Dropout(1.5), ValueError, "Dropout: p must lie between 0 and 1, got 1.5"),
        (lambda: Dropout(rng=np.random), TypeError, "Dropout: rng must be"),
        (lambda: ReLU("yes"), TypeError, "ReLU: inplace must be True or False, got 'yes'"),
        (lambda: Flatten(1.0), TypeError, "Flatten: start_dim must be an int, got 1.0"),
        (
            lambda: Flatten(2, 1)(np.ones((2, 3, 4))),
            ValueError,
            r"end_dim too and not before it.*start_dim=2 and end_dim=1.*\(2, 3, 4\)",
        ),
        (lambda: Flatten(3)(np.ones((2, 3, 4))), ValueError, r"start_dim must be an axis of x.*\(2, 3, 4\)"),
        (lambda: Flatten()(np.ones((2, 3), np.int64)), TypeError, "Flatten: x must be float32 or float64, got int64"),
        (lambda: Sequential(ReLU, Flatten()), TypeError, "Sequential: module 0 must be a Module, got <class"),
        (
            lambda: Sequential({"training": ReLU()}),
            ValueError,
            "Sequential: names must be free, and without dots, got 'training'",
        ),
        (lambda: Sequential({"a.b": ReLU()}), ValueError, "Sequential: names must be free, and without dots, got 'a.b'"),
        (lambda: ReLU().train(1), TypeError, "ReLU.train: mode must be True or False, got 1"),
        (lambda: modules.Parameter([1.0]), TypeError, "Parameter: data must be a NumPy array, got list"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_module_comes_once():
    layer = ReLU()
    with pytest.raises(ValueError, match=r"Sequential: module 2 must come once, got the same ReLU\(\) before"):
        Sequential(layer, Flatten(), layer)


def test_flatten_checks_its_gradient():
    layer = Flatten()
    layer(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match=re.escape("output's shape (2, 12), got (2, 3, 4)")):
        layer.backward(np.ones((2, 3, 4)))
    with pytest.raises(TypeError, match="grad_out must be float64 like the input, got float32"):
        layer.backward(np.ones((2, 12), np.float32))


def test_subclass_needs_no_more_than_two_methods():
    class Double(Module):
        def forward(self, x):
            return 2 * x

        def backward(self, grad_out, *, need_input_grad=True):
            return 2 * grad_out

    network = Sequential(Double(), ReLU())
    assert np.array_equal(network(np.array([-1.0, 3.0])), [0, 6])
    assert np.array_equal(network.backward(np.array([1.0, 1.0])), [0, 2])
    assert repr(network) == "Sequential(\n  (0): Double()\n  (1): ReLU()\n)"
