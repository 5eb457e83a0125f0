"""Odd values for what is no operation: parameters of modules, data, loaders, files, and torch_impl's thin layer over torch.

The helper says in its own words what is wrong. Where torch itself refuses a value, in its own words, that is torch's affair.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scratch
import scratch.data
import scratch.modules
import torch_impl
import torch_impl.alexnet
import torch_impl.convert
import torch_impl.data
import torch_impl.modules
import torch_impl.sgd
from alexnet_from_scratch.data.choices import Choices
from alexnet_from_scratch.data.datasets import held_out, open_dataset
from alexnet_from_scratch.data.idx import read_idx
from alexnet_from_scratch.data.images import read_image
from alexnet_from_scratch.data.loader import Loader, sample
from scratch import local_response_norm

# None of them is an int, a flag, a path, a word that is known, a tensor, or an array of the right shape.
ODD: tuple[Any, ...] = (
    b"1",
    1.5,
    1j,
    (),
    (1, 2, 3),
    [None],
    {"a": 1},
    {1},
    range(3),
    object(),
    int,
    types.SimpleNamespace(shape=3),
    np.float32,
    np.zeros((2, 3)),
    np.zeros(3, object),
    np.array(1.5),
    np.ma.masked_array([1]),
    np.timedelta64(3, "s"),
    np.datetime64("2020"),
)
DIGITS = open_dataset("digits").train
PREPROCESSING = scratch.data.Preprocessing.fit([np.zeros((9, 9), np.uint8)], size=9, channels=1, mirror=False)
LOADER = Loader(DIGITS, PREPROCESSING, 4)
BATCH, TARGET = torch.ones(2, 3), torch.tensor([0, 1])


def _parameter() -> scratch.modules.Parameter:
    return scratch.modules.Parameter(np.ones((2, 4)))


def _second(odd: Any) -> None:
    parameter = _parameter()
    parameter.grad = odd
    parameter.accumulate(np.ones((2, 4)))


def _layer(name: str, odd: Any) -> None:
    layer = scratch.modules.Linear(3, 2)
    setattr(layer, name, odd)
    layer(np.ones((4, 3), np.float32))


def _masked(odd: Any) -> None:
    layer = torch_impl.modules.Dropout()
    layer.mask = odd
    layer(BATCH)


def _cache(operation: Any) -> Any:
    return operation.forward(BATCH)[1]


def _first(batches: Any) -> None:
    next(batches)


# What is called, and how its message begins.
CALLS: dict[str, Callable[[Any], object]] = {
    "Parameter: gradient": lambda odd: _parameter().accumulate(odd),
    "Parameter: grad": _second,
    "Linear: weight": lambda odd: _layer("weight", odd),
    "Linear: bias": lambda odd: _layer("bias", odd),
    "ReLU.named_modules: prefix": lambda odd: list(scratch.modules.ReLU().named_modules(odd)),
    "local_response_norm: k": lambda odd: local_response_norm.forward(np.ones((1, 2, 3)), size=2, k=odd),
    "Loader: split": lambda odd: Loader(odd, PREPROCESSING, 4),
    "Loader: preprocessing": lambda odd: Loader(DIGITS, odd, 4),
    "Loader.training: epoch": lambda odd: _first(LOADER.training(odd)),
    "Loader.training: first": lambda odd: _first(LOADER.training(0, odd)),
    "Loader.evaluation: ten_crops": lambda odd: _first(LOADER.evaluation(ten_crops=odd)),
    "sample: split": lambda odd: list(sample(odd)),
    "sample: workers": lambda odd: list(sample(DIGITS, 2, workers=odd)),
    "Choices.draw: n": lambda odd: Choices.draw(odd, np.random.default_rng(0)),
    "open_dataset: name": open_dataset,
    "open_dataset: skip_broken": lambda odd: open_dataset("digits", skip_broken=odd),
    "open_dataset: seed": lambda odd: open_dataset("digits", seed=odd),
    "open_dataset: for_size": lambda odd: open_dataset("digits", for_size=odd),
    "held_out: labels": lambda odd: held_out(odd, 2, 0),
    "held_out: one_in": lambda odd: held_out(np.arange(4), odd, 0),
    "held_out: seed": lambda odd: held_out(np.arange(4), 2, odd),
    "read_idx: a file": lambda odd: read_idx(odd, 1),
    "read_idx: axes": lambda odd: read_idx(Path(__file__), odd),
    "read_image: a file": read_image,
    "read_image: for_size": lambda odd: read_image(__file__, odd),
    "convert: a file": lambda odd: torch_impl.convert.convert(__file__, odd),
    "to_torch: a file": lambda odd: torch_impl.convert.to_torch(odd, "never written"),
    "read_pth: a file": torch_impl.convert.read_pth,
    "read_names: a file": torch_impl.convert.read_names,
    "resize: size": lambda odd: torch_impl.data.resize(torch.ones(1, 5, 5), odd),
    "prepare: image": torch_impl.data.prepare,
    "Preprocessing: mirror": lambda odd: torch_impl.data.Preprocessing(1, odd, torch.zeros(1, 1, 1), torch.zeros(1, 1)),
    "batch: seed": lambda odd: torch_impl.data.batch(1, seed=odd),
    "AlexNet: variant": lambda odd: torch_impl.alexnet.AlexNet(odd),
    "AlexNet: init": lambda odd: torch_impl.alexnet.AlexNet("mini", init=odd),
    "sgd: update": lambda odd: torch_impl.sgd.SGD([BATCH], update=odd),
    "Dropout: mask": _masked,
    "dropout: x": lambda odd: torch_impl.dropout.forward(odd),
    "dropout: mask": lambda odd: torch_impl.dropout.forward(BATCH, mask=odd),
    "dropout: training": lambda odd: torch_impl.dropout.forward(BATCH, training=odd),
    "cross_entropy: logits": lambda odd: torch_impl.cross_entropy.forward(odd, TARGET),
    "cross_entropy: target": lambda odd: torch_impl.cross_entropy.forward(BATCH, odd),
    "conv2d: x": lambda odd: torch_impl.conv2d.forward(odd, torch.ones(1, 1, 1, 1)),
    "linear: weight": lambda odd: torch_impl.linear.forward(BATCH, odd),
    "linear: bias": lambda odd: torch_impl.linear.forward(BATCH, torch.ones(4, 3), odd),
    "max_pool2d: x": lambda odd: torch_impl.max_pool2d.forward(odd, kernel_size=2),
    "adaptive_avg_pool2d: x": lambda odd: torch_impl.adaptive_avg_pool2d.forward(odd, output_size=2),
    "local_response_norm: x": lambda odd: torch_impl.local_response_norm.forward(odd, size=2),
    "softmax: x": lambda odd: torch_impl.softmax.forward(odd, dim=0),
    "log_softmax: x": lambda odd: torch_impl.log_softmax.forward(odd, dim=0),
    "relu: x": torch_impl.relu.forward,
    "relu.backward: grad_out": lambda odd: torch_impl.relu.backward(odd, _cache(torch_impl.relu)),
    "backward: cache": lambda odd: torch_impl.relu.backward(BATCH, odd),
}
# Kinds of values that a parameter takes, so they raise no error there.
TAKEN = {"local_response_norm: k": (float, np.ndarray)}


@pytest.mark.parametrize("start", CALLS)
def test_what_a_helper_cannot_use_is_refused_in_its_words(start):
    for odd in ODD:
        if isinstance(odd, TAKEN.get(start, ())):
            continue
        with pytest.raises((TypeError, ValueError), match=rf"^{start}.* must ") as caught:
            CALLS[start](odd)
        assert len(str(caught.value)) < 400, start


@pytest.mark.parametrize("path", ["with\0zero", "half \ud800"])
@pytest.mark.parametrize("read", [read_image, torch_impl.convert.read_pth, lambda path: open_dataset("imagefolder", path)])
def test_a_path_that_no_file_has_is_refused(read, path):
    with pytest.raises(ValueError, match=r"^[a-z_]+: a path must have characters that a file's name can have, got "):
        read(path)


@pytest.mark.parametrize("choose", [scratch.set_rung, scratch.use_rung])
def test_a_rung_that_nobody_has_is_shown_briefly(choose):
    for choice in ({}, {"relu": np.zeros((99, 99))}):
        with pytest.raises(ValueError, match=r"rung: .* rung ndarray of float64 with shape \(99, 99\);"):
            choose(*([] if choice else [np.zeros((99, 99))]), **choice)


def test_a_loader_counts_in_python_ints():
    """An array of one int is an index to Python, but counting with it is arithmetic modulo its width."""
    loader = Loader(DIGITS, PREPROCESSING, np.uint8(200), np.array(7), np.int8(2))  # type: ignore[arg-type]
    assert [type(number) for number in (loader.batch, loader.seed, loader.workers)] == [int] * 3
    assert len(loader) == -(-len(DIGITS) // 200)
    assert sum(len(labels) for _, labels in loader.evaluation()) == len(DIGITS)


def test_a_gradient_that_cannot_be_added_to_is_refused():
    parameter = _parameter()
    parameter.grad = np.broadcast_to(np.ones(1), (2, 4))
    with pytest.raises(ValueError, match=r"^Parameter: grad must be writable, got a read-only array of shape \(2, 4\)"):
        parameter.accumulate(np.ones((2, 4)))


def test_more_choices_than_an_array_can_hold_are_refused():
    with pytest.raises(ValueError, match=r"^Choices.draw: n must be at most \d+, got 1000"):
        Choices.draw(10**30, np.random.default_rng(0))


def test_numbers_below_the_least_are_refused():
    calls: tuple[tuple[Callable[[], Any], str], ...] = (
        (lambda: LOADER.training(-1), "Loader.training: epoch must be at least 0, got -1"),
        (lambda: LOADER.training(0, -1), "Loader.training: first must be at least 0, got -1"),
        (lambda: sample(DIGITS, -1), "sample: limit must be at least 0, got -1"),
        (lambda: open_dataset("digits", seed=-1), "open_dataset: seed must be at least 0, got -1"),
        (lambda: read_image(__file__, 0), "read_image: for_size must be at least 1, got 0"),
        (lambda: torch_impl.data.resize(torch.ones(1, 2, 2), (1, 0)), "resize: size must be at least 1, got 0"),
        (lambda: torch_impl.data.resize(torch.ones(0, 2), (1, 1)), "resize: images must have shape"),
    )
    for call, message in calls:
        with pytest.raises(ValueError, match=f"^{message}"):
            next(iter(call()), None)


def test_sizes_of_one_number_mean_both_on_both_sides():
    image = np.arange(30.0).reshape(1, 5, 6)
    ours, theirs = scratch.data.resize(image, 3), torch_impl.data.resize(torch.from_numpy(image), 3)  # type: ignore[arg-type]
    assert np.allclose(ours, theirs.numpy())
