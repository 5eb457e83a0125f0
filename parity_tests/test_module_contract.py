"""What modules promise beyond torch.nn's numbers: one backward for one forward, what is kept in memory, modes, and errors."""

from __future__ import annotations

import re
import tracemalloc
from typing import Any

import numpy as np
import pytest

import scratch.modules
from scratch.compiled import memory
from scratch.compiled.jit import JIT_OFF
from scratch.modules import Module

modules: Any = scratch.modules  # Any: what the types forbid must also raise
Conv2d, Linear, ReLU, MaxPool2d = modules.Conv2d, modules.Linear, modules.ReLU, modules.MaxPool2d
Flatten, Dropout, Sequential, CrossEntropyLoss = modules.Flatten, modules.Dropout, modules.Sequential, modules.CrossEntropyLoss


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
    layer.eval()(np.ones(3))  # nor anything that an earlier pass left
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
    """The pool's threads may hold an array a moment longer."""
    threads = scratch.get_num_threads()
    scratch.set_num_threads(1)
    yield
    scratch.set_num_threads(threads)


@pytest.mark.skipif(JIT_OFF, reason="plain Python takes minutes for arrays of this size")
@pytest.mark.usefixtures("single_thread")
def test_memory(monkeypatch):
    """Training holds every activation until backward; eval mode holds an input and an output at a time."""
    network = Sequential(*(ReLU() for _ in range(20)))
    x = np.ones(1 << 17, np.float32)
    monkeypatch.setattr(memory, "SMALL", x.nbytes)  # it is returned to the system when it is freed
    network(x[:1])  # compiles the kernels

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
    network = Sequential(ReLU(), Sequential(Flatten(), Linear(2, 3)))
    assert network.eval() is network
    assert not any(module.training for _, module in network.named_modules())
    assert all(module.training for _, module in network.train().named_modules())


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
        (lambda: Conv2d(3, 8, 3, 2, "same"), ValueError, r"Conv2d: stride must be 1 with padding 'same', got \(2, 2\)"),
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
            r"Flatten: start_dim must not come after end_dim, got 2 and 1 for shape \(2, 3, 4\)",
        ),
        (lambda: Flatten(3)(np.ones((2, 3, 4))), ValueError, r"start_dim must lie between -3 and 2 .*\(2, 3, 4\), got 3"),
        (lambda: Flatten(0, -4)(np.ones((2, 3, 4))), ValueError, r"end_dim must lie between -3 and 2 .*\(2, 3, 4\), got -4"),
        (lambda: Flatten()(np.ones((2, 3), np.int64)), TypeError, "Flatten: x must be float32 or float64, got int64"),
        (lambda: Sequential(ReLU, Flatten()), TypeError, "Sequential: module 0 must be a Module, got <class"),
        (
            lambda: Sequential({"training": ReLU()}),
            ValueError,
            "Sequential: a name must not be taken, and must have no dots, got 'training'",
        ),
        (
            lambda: Sequential({"a.b": ReLU()}),
            ValueError,
            "Sequential: a name must not be taken, and must have no dots, got 'a.b'",
        ),
        (lambda: Sequential({1: ReLU()}), TypeError, "Sequential: a name must be a str, got 1"),
        (lambda: Sequential(ReLU())["0"], TypeError, "Sequential: index must be an int, got '0'"),
        (lambda: CrossEntropyLoss([1.0, 2.0]), TypeError, "CrossEntropyLoss: weight must be a NumPy array, got list"),
        (lambda: ReLU().train(1), TypeError, "ReLU.train: mode must be True or False, got 1"),
        (lambda: ReLU().zero_grad(None), TypeError, "ReLU.zero_grad: set_to_none must be True or False, got None"),
        (lambda: ReLU().load_state_dict({}, np.ones(3)), TypeError, "ReLU.load_state_dict: strict must be True or False, got nd"),
        (lambda: ReLU().load_state_dict({}, None), TypeError, "ReLU.load_state_dict: strict must be True or False, got None"),
        (lambda: modules.Parameter([1.0]), TypeError, "Parameter: data must be a NumPy array, got list"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("value", [None, 1, "yes", np.ones(3)], ids=type)
@pytest.mark.parametrize("make", [lambda: Linear(3, 3), lambda: Conv2d(3, 3, 1), lambda: Sequential(ReLU())])
def test_whether_a_gradient_is_needed_is_a_bool(make, value):
    layer, x = make(), np.ones((3, 3, 3), np.float32)
    layer(x)
    with pytest.raises(TypeError, match=r"\.backward: need_(grad_x|input_grad) must be True or False, got "):
        layer.backward(x, need_input_grad=value)


def test_a_parameter_shows_its_shape():
    assert repr(Linear(2, 3).weight) == "Parameter(shape=(3, 2), dtype=float32)"


def test_a_module_comes_once():
    layer = ReLU()
    with pytest.raises(ValueError, match=r"Sequential: module 2 must be used once, got ReLU\(\) a second time"):
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
