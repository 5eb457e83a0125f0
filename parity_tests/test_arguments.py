"""Arguments from strangers: arrays that mean more than their numbers, sizes beyond memory, numbers beyond a float.

scratch says in its own words what is wrong, briefly, and before anything large is made.
"""

from __future__ import annotations

import itertools
import math
import re
import subprocess
import sys
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import scratch
import scratch.sgd
import torch_impl.sgd
from alexnet_from_scratch.proof.parity import to_numpy
from parity_tests.odd_arguments import NAMES, odd_arguments
from parity_tests.verdicts import SPEC
from scratch import adaptive_avg_pool2d, conv2d, cross_entropy, data, dropout, linear, local_response_norm, modules, relu
from scratch.alexnet import AlexNet
from scratch.core import checks

FLOAT64 = np.dtype(np.float64)
Flatten: Any = modules.Flatten  # Any: what the types forbid must also raise


# --- arrays of other kinds --------------------------------------------------------------------------------------------


class Metres(np.ndarray):
    """An array as in libraries for units: numbers that mean more than their values."""


def masked(array: np.ndarray) -> np.ndarray:
    return np.ma.masked_array(array, np.zeros(array.shape, bool))


def metres(array: np.ndarray) -> np.ndarray:
    return array.view(Metres)


def records(array: np.ndarray) -> np.ndarray:
    return array.view(np.recarray)


def as_sgd(**arrays: np.ndarray) -> None:
    parameter = SimpleNamespace(**{"data": np.ones((2, 3)), "grad": np.ones((2, 3)), **arrays})
    scratch.sgd.SGD([parameter], lr=0.1).step()


def _cache(operation: Any, *arrays: np.ndarray, **params: Any) -> Any:
    return operation.forward(*arrays, **params)[1]


IMAGE, FILTERS, ROWS, LABELS = np.ones((2, 3, 5, 7)), np.ones((4, 3, 2, 2)), np.ones((2, 3)), np.array([0, 2])
TAKEN = {
    "conv2d: x": lambda f: conv2d.forward(f(IMAGE), FILTERS),
    "conv2d: weight": lambda f: conv2d.forward(IMAGE, f(FILTERS)),
    "conv2d: bias": lambda f: conv2d.forward(IMAGE, FILTERS, f(np.ones(4))),
    "conv2d.backward: grad_out": lambda f: conv2d.backward(f(np.ones((2, 4, 4, 6))), _cache(conv2d, IMAGE, FILTERS)),
    "linear: weight": lambda f: linear.forward(ROWS, f(np.ones((4, 3)))),
    "relu: x": lambda f: relu.forward(f(ROWS)),
    "dropout: mask": lambda f: dropout.forward(ROWS, mask=f(ROWS > 0)),
    "cross_entropy: target": lambda f: cross_entropy.forward(ROWS, f(LABELS)),
    "cross_entropy: weight": lambda f: cross_entropy.forward(ROWS, LABELS, weight=f(np.ones(3))),
    "CrossEntropyLoss: weight": lambda f: modules.CrossEntropyLoss(f(np.ones(3))),
    "Parameter: data": lambda f: modules.Parameter(f(ROWS)),
    "Flatten: x": lambda f: Flatten()(f(ROWS)),
    "sgd: parameters[0].data": lambda f: as_sgd(data=f(ROWS.copy())),
    "sgd: grad of parameters[0]": lambda f: as_sgd(grad=f(ROWS)),
    "resize: images": lambda f: data.resize(f(IMAGE), (3, 3)),
    "mean_probabilities: logits": lambda f: data.mean_probabilities(f(np.ones((2, 3, 4)))),
    "prepare: image": lambda f: data.prepare(f(np.ones((8, 8), np.uint8)), 4, 1),
}


@pytest.mark.parametrize("kind", [masked, metres, records])
@pytest.mark.parametrize("argument", TAKEN)
def test_an_array_that_means_more_than_its_numbers_is_refused(argument, kind):
    with pytest.raises(
        TypeError, match=rf"^{re.escape(argument)} must be a plain NumPy array, got (MaskedArray|Metres|recarray)$"
    ):
        TAKEN[argument](kind)


@pytest.mark.parametrize("argument", TAKEN)
def test_a_plain_one_is_taken(argument):
    TAKEN[argument](lambda array: array)


@pytest.mark.parametrize("kind", [lambda array: array.view(np.matrix), lambda array: array.view(np.memmap)])
@pytest.mark.parametrize("rung", scratch.sgd.RUNGS)
def test_matrices_and_memory_maps_are_their_numbers(kind, rung):
    assert np.array_equal(relu.forward(kind(ROWS - 2))[0], np.zeros((2, 3)))
    parameter = SimpleNamespace(data=kind(ROWS.copy()), grad=kind(ROWS))
    with scratch.use_rung(rung):
        scratch.sgd.SGD([parameter], lr=0.5, momentum=0.5).step()
    assert np.array_equal(np.asarray(parameter.data), ROWS / 2)


@pytest.mark.parametrize("kind", [masked, metres, records])
def test_a_state_dict_of_such_arrays_is_refused(kind):
    layer = modules.Linear(3, 2, dtype=np.float64)
    with pytest.raises(ValueError, match="weight must be a plain NumPy array, got"):
        layer.load_state_dict({"weight": kind(ROWS), "bias": np.ones(2)})


# --- sizes ------------------------------------------------------------------------------------------------------------

BEYOND = (2**31, 2**33, 2**40, 2**62, 2**63 - 1)  # no memory holds any of these sizes, in the calls below
POINTS = np.ones((1, 1, 3, 3))
SIZED = {
    "conv2d: padding": lambda n: conv2d.forward(POINTS, POINTS, padding=n, stride=n),
    "conv2d: padding of both": lambda n: conv2d.forward(POINTS, POINTS, padding=(0, n), dilation=(1, n // 2)),
    "conv2d: padding 'same'": lambda n: conv2d.forward(POINTS, POINTS, padding="same", dilation=n // 4),
    "conv2d: padding of nothing": lambda n: conv2d.forward(POINTS[:0], POINTS, padding=n),
    "conv2d: weight": lambda n: conv2d.forward(np.ones((2**20, 0, 3, 3)), np.ones((n // 2**20, 0, 1, 1))),
    "linear: weight": lambda n: linear.forward(np.ones((2**20, 0)), np.ones((min(n, 2**59), 0))),  # NumPy has no larger arrays
    "adaptive_avg_pool2d: output_size": lambda n: adaptive_avg_pool2d.forward(POINTS, output_size=n),
    "adaptive_avg_pool2d: output_size of one axis": lambda n: adaptive_avg_pool2d.forward(POINTS, output_size=(2**20, n)),
    "adaptive_avg_pool2d: output_size of nothing": lambda n: adaptive_avg_pool2d.forward(POINTS[:0], output_size=n),
    "relu: x": lambda n: relu.forward(np.broadcast_to(1.0, (2**12, min(n, 2**47)))),
    "Conv2d: out_channels": lambda n: modules.Conv2d(2**20, n, 1),
    "Linear: out_features": lambda n: modules.Linear(2**20, n),
    "AlexNet: num_classes": lambda n: AlexNet("one_tower", n),
    "resize: size": lambda n: data.resize(POINTS, (2**20, n)),
}


@pytest.mark.parametrize("size", BEYOND)
@pytest.mark.parametrize("call", SIZED)
def test_what_memory_does_not_hold_is_refused_before_it_is_made(call, size):
    argument = " ".join(call.split()[:2])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"^{argument} must (not make .* too large for memory|fit into 64 bits)"):
            SIZED[call](size)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems limit a process in other ways, or not at all")
def test_room_is_what_the_process_may_have():
    """The machine may have more memory: two thirds of it do not fit into a process that may use half."""
    program = """
import os, resource
import numpy as np
from scratch import adaptive_avg_pool2d
memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (memory // 2, memory // 2))
adaptive_avg_pool2d.forward(np.ones((1, 1, 3, 3)), output_size=(2**10, memory * 2 // 3 // 2**13))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert "ValueError: adaptive_avg_pool2d: output_size must not make the output" in done.stderr


# --- numbers ----------------------------------------------------------------------------------------------------------


MODULES = {
    "Linear": lambda n: modules.Linear(3, n),
    "Conv2d": lambda n: modules.Conv2d(3, 4, n),
    "Conv2d: groups": lambda n: modules.Conv2d(3, 4, 1, groups=n),
    "Flatten": lambda n: Flatten(n)(ROWS),
    "Dropout": lambda n: modules.Dropout(n),
    "AlexNet": lambda n: AlexNet("mini", 10, dropout=n),
    "Sequential": lambda n: modules.Sequential(modules.ReLU())[n],
    "MaxPool2d": lambda n: modules.MaxPool2d(n)(IMAGE),
    "LocalResponseNorm": lambda n: modules.LocalResponseNorm(3, k=n)(IMAGE),
    "Preprocessing": lambda n: data.scaled(n),
    "batch": lambda n: data.batch(n),
    "dtype": lambda n: modules.Linear(3, 2, dtype=n),
    "init": lambda n: AlexNet("mini", init=n),
    "variant": lambda n: AlexNet(n),
    "padding_mode": lambda n: modules.Conv2d(3, 4, 1, padding_mode=n),
    "rng": lambda n: modules.Dropout(rng=n),
    "module": lambda n: modules.Sequential(n),
    "update": lambda n: scratch.sgd.SGD([modules.Parameter(ROWS)], lr=0.1, update=n),
    "nesterov": lambda n: scratch.sgd.SGD([modules.Parameter(ROWS)], lr=0.1, nesterov=n),
    "train": lambda n: modules.ReLU().train(n),
}


@pytest.mark.parametrize(
    "value", [10**400, -(10**400), 10**5000, np.zeros(10**6), [0] * 10**6, "x" * 10**6, torch.zeros(10**5)], ids=checks.shown
)
@pytest.mark.parametrize("make", MODULES)
def test_modules_refuse_in_short_words_too(make, value):
    with pytest.raises((TypeError, ValueError, IndexError), match=r"^[A-Za-z0-9_.]+: [a-z_0-9 ]+ must ") as caught:
        MODULES[make](value)
    assert len(str(caught.value)) < 400


def test_the_smallest_64_bit_integer_is_one():
    logits, labels = np.array([[0.0, 1.0], [2.0, 0.5]]), np.array([-(2**63), 1])
    loss, _ = cross_entropy.forward(logits, labels, ignore_index=-(2**63))
    theirs = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels), ignore_index=-(2**63))
    assert loss == theirs.item()


@pytest.mark.parametrize("rung", SPEC["local_response_norm"].rungs)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinite_parameters_of_local_response_norm(rung, dtype):
    """Every combination of special alpha, beta and k, over special values: torch's numbers, including NaN and infinities."""
    x = np.resize(np.array([0.0, -0.0, 1.0, -2.0, np.inf, -np.inf, np.nan, 0.5, -3.0], dtype), (2, 5, 2, 3))
    grad_out = np.where(np.arange(x.size) % 7 == 0, -1.5, 1.0).reshape(x.shape).astype(dtype)
    alphas, ks = (
        (-math.inf, math.inf, math.nan, -1.0, 0.0, 1.0, 1e300),
        (-math.inf, math.inf, math.nan, -0.0, 0.0, -1.0, 1.0, 1e300),
    )
    betas = (-math.inf, math.inf, math.nan, 0.0, 0.75, 0.5, -0.5, 1.5, 1.0, 2.0, -1.0, -2.0, 3.0, 1e300)
    theirs = SPEC["local_response_norm"].torch
    for alpha, beta, k, size in itertools.product(alphas, betas, ks, (1, 2)):
        params: dict[str, Any] = {"alpha": alpha, "beta": beta, "k": k, "size": size}
        with scratch.use_rung(rung):
            out, cache = local_response_norm.forward(x, **params)
            (grad_x,) = local_response_norm.backward(grad_out, cache)
        torch_out, torch_cache = theirs.forward(torch.from_numpy(x), **params)
        (torch_grad_x,) = theirs.backward(torch.from_numpy(grad_out), torch_cache)
        tolerance = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(out, torch_out.numpy(), rtol=tolerance, atol=tolerance, err_msg=str(params))
        np.testing.assert_allclose(grad_x, torch_grad_x.numpy(), rtol=tolerance, atol=tolerance, err_msg=str(params))


def _three_steps(side: Any, parameter: Any, convert: Any, options: dict[str, Any]) -> list[np.ndarray] | None:
    try:
        sgd = side.SGD([parameter], **options)
        seen = []
        for gradient in ([1.0, -2.0, 0.0, 3.0], [1.0, 1.0, 0.0, -3.0], [0.0, 0.0, 0.0, 1.0]):
            parameter.grad = convert(np.array(gradient, np.float64))
            sgd.step()
            seen.append(to_numpy(parameter.data).copy())
    except (ValueError, RuntimeError):
        return None
    return seen


@pytest.mark.parametrize("rung", scratch.sgd.RUNGS)
@pytest.mark.parametrize("rule", [{}, {"maximize": True}, {"nesterov": True}, {"update": "paper"}], ids=str)
def test_infinite_options_of_sgd(rung, rule):
    """The first velocity is the gradient alone, without momentum · 0: with an infinite momentum that would be NaN."""
    special = (0.0, 0.9, math.inf, -math.inf, 1e300)
    for lr, momentum, dampening, decay in itertools.product(
        (0.1, 0.0, math.inf, 1e300), special, (*special, math.nan), (0.0, 0.5, math.inf, 1e300)
    ):
        options = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": decay, **rule}
        start = np.array([1.0, 2.0, 0.0, -1.0])
        theirs = _three_steps(torch_impl.sgd, torch.from_numpy(start.copy()), torch.from_numpy, options)
        with scratch.use_rung(rung):
            ours = _three_steps(scratch.sgd, SimpleNamespace(data=start.copy(), grad=None), np.copy, options)
        assert (ours is None) == (theirs is None), options
        for a, b in zip(ours or (), theirs or (), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, err_msg=str(options))


FLAGS = ("ceil_mode", "return_indices", "training", "nesterov", "maximize")


@pytest.mark.parametrize(("operation", "parameter"), [name for name in NAMES if name[1] not in (*FLAGS, "reduction")])
def test_a_number_beyond_all_bounds_is_a_value_error(operation, parameter):
    beyond = [
        odd for odd in odd_arguments(operation, parameter, FLOAT64) if type(odd.value) is int and odd.value.bit_length() > 1024
    ]
    assert beyond
    for odd in beyond:
        with pytest.raises(ValueError, match=rf"^{operation}: {parameter} must"):
            SPEC[operation].scratch.forward(*odd.case.arrays, **odd.case.params)
