"""Whole networks on both sides: gradients on photographs, ten steps of training, names and sizes, the walk-through.

How close is equal? The a-priori bounds of single operations are of no use for a network: each layer multiplies the bound before
it, and the result is many orders of magnitude above the real error. But torch's own float32 error shows what is inevitable: its
distance from torch in float64 with the same weights, images and dropout masks. So for the logits and each gradient, with error(x)
= |x - torch in float64| / |torch in float64| in the Euclidean norm and u the unit roundoff,

    error(scratch in float32)  <=  FACTOR · max(error(torch in float32), u(float32))

(u is the cost of rounding a perfect result, for a tensor in which torch was lucky.)

Rounding has one effect that is not gradual: it flips decisions, such as which of two values is larger, or whether one is above
zero. A forward pass makes millions of decisions, and in a third of the batches one is close enough for float32 to flip it. That
moves conv1's gradient a thousand times as much as rounding does, in one library and not in the other. So BATCHES batches are
tried, all from the starting weights, and on each side the smallest error counts: a flip does not show, but a mistake does,
because it is in every batch.

Ten steps of training would carry each flip to the end. They are compared in float64, where near ties are 2^29 times as rare.
There it is enough to allow for the rounding of every weight each time it is stored; the gradients' errors are multiplied by the
learning rate and stay below that:

    error(scratch in float64)  <=  STEPS · u(float64)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import scratch.alexnet
import scratch.data
import scratch.modules
import scratch.sgd
import scratch.walkthrough
import torch_impl.modules
import torch_impl.walkthrough
from alexnet_from_scratch.data import datasets
from alexnet_from_scratch.runs.walk import show
from alexnet_from_scratch.variants import VARIANTS
from torch_impl.alexnet import AlexNet as TorchAlexNet

AlexNet: Any = scratch.alexnet.AlexNet  # Any: what the types forbid must also raise
FACTOR = 4  # without a flip, the largest ratio seen in a single batch is 1.7
BATCHES = 5
STEPS = 10
RECIPE: dict[str, Any] = {"lr": 0.001, "momentum": 0.9, "weight_decay": 5e-4}
ROUNDOFF = {np.float32: 2.0**-24, np.float64: 2.0**-53}
PARAMETERS = {"one_tower": 62_378_344, "paper": 60_965_224, "torchvision": 61_100_840, "mini": 551_146}


class Batch(NamedTuple):
    """What one step sees: images, labels, and for each dropout layer which values it keeps."""

    images: np.ndarray
    labels: np.ndarray
    masks: list[np.ndarray]


def batches_for(variant, n):
    """``n`` batches of two: photographs, or digits for mini."""
    if variant == "mini":
        digits, labels = datasets.digits()
        preprocessing = scratch.data.Preprocessing.fit(digits, size=28, channels=1, mirror=False)
        images = preprocessing.evaluation(list(digits[: 2 * n]))
    else:
        images, labels = scratch.data.batch(2 * n)
    table, rng = VARIANTS[variant], np.random.default_rng(1)
    first = table.convs[-1].channels * table.pooled**2 if table.dropout_first else table.hidden
    return [
        Batch(images[i : i + 2], labels[i : i + 2], [rng.random((2, width)) < 0.5 for width in (first, table.hidden)])
        for i in range(0, 2 * n, 2)
    ]


def starting_state(variant):
    return AlexNet(variant, rng=np.random.default_rng(0)).state_dict()


class ByScratch:
    """A network, its loss and its optimizer, by hand."""

    def __init__(self, variant, state, dtype):
        self.dtype = dtype
        self.model = AlexNet(variant, dtype=dtype)
        self.model.load_state_dict(state)
        self.criterion = scratch.modules.CrossEntropyLoss()
        self.optimizer = scratch.sgd.SGD(self.model.parameters(), **RECIPE)

    def gradients(self, batch):
        """The logits, and the gradients by parameter name."""
        dropouts = [module for _, module in self.model.named_modules() if isinstance(module, scratch.modules.Dropout)]
        for dropout, mask in zip(dropouts, batch.masks, strict=True):
            dropout.mask = mask
        logits = self.model(batch.images.astype(self.dtype))
        self.criterion(logits, batch.labels)
        self.model.zero_grad()
        self.model.backward(self.criterion.backward())
        return {"logits": logits} | {name: parameter.grad for name, parameter in self.model.named_parameters()}

    def weights(self):
        return self.model.state_dict()


class ByTorch:
    """The same in torch; results are arrays."""

    def __init__(self, variant, state, dtype, device):
        self.place = {"dtype": torch.float32 if dtype is np.float32 else torch.float64, "device": device}
        self.model = TorchAlexNet(variant, **self.place)
        self.model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        self.criterion = torch_impl.modules.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), **RECIPE, fused=True)

    def gradients(self, batch):
        dropouts = [module for module in self.model.modules() if isinstance(module, torch_impl.modules.Dropout)]
        for dropout, mask in zip(dropouts, batch.masks, strict=True):
            dropout.mask = torch.from_numpy(mask).to(self.place["device"])
        logits = self.model(torch.from_numpy(batch.images).to(**self.place))
        loss = self.criterion(logits, torch.from_numpy(batch.labels).to(self.place["device"]))
        self.model.zero_grad()
        loss.backward()
        results = {"logits": logits} | {name: parameter.grad for name, parameter in self.model.named_parameters()}
        return {name: tensor.detach().cpu().numpy() for name, tensor in results.items()}

    def weights(self):
        return {name: tensor.cpu().numpy() for name, tensor in self.model.state_dict().items()}


def train(side, batches):
    """Take one step for each batch; return the weights afterwards."""
    for batch in batches:
        side.gradients(batch)
        side.optimizer.step()
    return side.weights()


def errors(results, reference):
    """For each tensor, the distance from the reference, relative to its norm."""
    assert results.keys() == reference.keys()
    return {name: np.linalg.norm(np.ravel(results[name] - e)) / np.linalg.norm(np.ravel(e)) for name, e in reference.items()}


def above(bounds, errors):
    """The tensors whose error is above its bound, or NaN, and by what factor."""
    return {name: error / bounds[name] for name, error in errors.items() if not error <= bounds[name]}


def gradients_too_far(sides, theirs, reference, batches):
    """For each side, the tensors above the bound."""
    found: list[list[Any]] = [[] for _ in (theirs, *sides)]
    for batch in batches:
        expected = reference.gradients(batch)
        for side, rows in zip((theirs, *sides), found, strict=True):
            rows.append(errors(side.gradients(batch), expected))
    their_least, *our_least = ({name: min(row[name] for row in rows) for name in expected} for rows in found)
    bounds = {name: FACTOR * max(error, ROUNDOFF[np.float32]) for name, error in their_least.items()}
    return [above(bounds, least) for least in our_least]


def training_too_far(weights, reference):
    return above(dict.fromkeys(reference, STEPS * ROUNDOFF[np.float64]), errors(weights, reference))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant, device):
    state = starting_state(variant)
    ours = ByScratch(variant, state, np.float32)
    theirs, reference = (ByTorch(variant, state, dtype, device) for dtype in (np.float32, np.float64))
    assert gradients_too_far([ours], theirs, reference, batches_for(variant, BATCHES)) == [{}]


@pytest.mark.parametrize("variant", VARIANTS)
def test_ten_steps(variant, device):
    state, batches = starting_state(variant), batches_for(variant, STEPS)
    reference = train(ByTorch(variant, state, np.float64, device), batches)
    result = train(ByScratch(variant, state, np.float64), batches)
    assert training_too_far(result, reference) == {}


# A module or the optimizer, its attribute, and a wrong value for it.
GRADIENT_PLANTS = [
    ("features.2", "alpha", 5e-4),  # not divided by the window's size
    ("features.2", "size", 4),
    ("features.6", "k", 1.0),
    ("features.14", "stride", 3),
    ("classifier.2", "p", 0.5 + 1e-5),
]
TRAINING_PLANTS = [
    ("optimizer", "lr", 0.001 * (1 + 1e-6)),
    ("optimizer", "momentum", 0.9 + 1e-6),
    ("optimizer", "dampening", 1e-6),
    ("optimizer", "weight_decay", 0),
]


def plant(side, where, what, value):
    target = side.optimizer if where == "optimizer" else dict(side.model.named_modules())[where]
    assert getattr(target, what) != value
    setattr(target, what, value)
    return side


def test_small_mistakes_in_gradients_are_noticed():
    state = starting_state("mini")
    sides = [plant(ByScratch("mini", state, np.float32), *mistake) for mistake in GRADIENT_PLANTS]
    theirs, reference = (ByTorch("mini", state, dtype, "cpu") for dtype in (np.float32, np.float64))
    assert all(gradients_too_far(sides, theirs, reference, batches_for("mini", BATCHES)))


def test_small_mistakes_in_training_are_noticed():
    state, batches = starting_state("mini"), batches_for("mini", STEPS)
    reference = train(ByTorch("mini", state, np.float64, "cpu"), batches)
    for mistake in GRADIENT_PLANTS + TRAINING_PLANTS:
        ours = plant(ByScratch("mini", state, np.float64), *mistake)
        assert training_too_far(train(ours, batches), reference), mistake


# --- names, sizes, starting values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_names_and_sizes(variant):
    classes = 10 if variant == "mini" else 1000
    ours, theirs = AlexNet(variant, classes), TorchAlexNet(variant, classes)
    shapes = {name: array.shape for name, array in ours.state_dict().items()}
    assert list(shapes.items()) == [(name, tuple(tensor.shape)) for name, tensor in theirs.state_dict().items()]
    assert sum(math.prod(shape) for shape in shapes.values()) == PARAMETERS[variant]
    assert repr(ours) == repr(theirs)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    ours.load_state_dict({name: tensor.cpu().numpy() for name, tensor in theirs.state_dict().items()})


def test_torchvisions_names():
    assert {name: array.shape for name, array in AlexNet("torchvision").state_dict().items()} == {
        "features.0.weight": (64, 3, 11, 11),
        "features.0.bias": (64,),
        "features.3.weight": (192, 64, 5, 5),
        "features.3.bias": (192,),
        "features.6.weight": (384, 192, 3, 3),
        "features.6.bias": (384,),
        "features.8.weight": (256, 384, 3, 3),
        "features.8.bias": (256,),
        "features.10.weight": (256, 256, 3, 3),
        "features.10.bias": (256,),
        "classifier.1.weight": (4096, 9216),
        "classifier.1.bias": (4096,),
        "classifier.4.weight": (4096, 4096),
        "classifier.4.bias": (4096,),
        "classifier.6.weight": (1000, 4096),
        "classifier.6.bias": (1000,),
    }


@pytest.mark.parametrize(
    ("variant", "size", "sizes"),
    [(name, 224, [55, 27, 27, 13, 13, 13, 13, 6]) for name in ("one_tower", "paper", "torchvision")]
    + [("mini", 28, [28, 13, 13, 6, 6, 6, 6, 2])],
)
def test_stages(variant, size, sizes):
    network = AlexNet(variant).eval()
    x = np.zeros((1, VARIANTS[variant].in_channels, size, size), np.float32)
    heights = []
    for layer in network.features:
        x = layer(x)
        if isinstance(layer, scratch.modules.Conv2d | scratch.modules.MaxPool2d):
            assert x.shape[2] == x.shape[3]
            heights.append(x.shape[2])
    assert heights == sizes
    assert np.array_equal(network.avgpool(x), x)  # at this size average pooling has nothing to do


def test_other_image_sizes_work():
    network = AlexNet("mini", 10, rng=np.random.default_rng(0))
    assert network(np.zeros((3, 1, 40, 35), np.float32)).shape == (3, 10)
    assert network.backward(np.ones((3, 10), np.float32), need_input_grad=True).shape == (3, 1, 40, 35)
    assert network(np.zeros((0, 1, 28, 28), np.float32)).shape == (0, 10)


def test_a_network_leaves_out_the_images_gradient_unless_asked():
    """As torch does: the parameters' gradients are the same either way, and the images' gradient is torch's."""
    images = np.random.default_rng(0).standard_normal((2, 1, 28, 28), np.float32)
    grad_out = np.random.default_rng(1).standard_normal((2, 10), np.float32)
    ours, theirs = AlexNet("mini", 10, dropout=0.0, rng=np.random.default_rng(2)), TorchAlexNet("mini", 10, dropout=0.0)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in ours.state_dict().items()})
    found = []
    for asked in (False, True):
        ours.zero_grad()
        ours(images)
        grad_images = ours.backward(grad_out, **({"need_input_grad": True} if asked else {}))
        their_images = torch.from_numpy(images.copy()).requires_grad_(asked)
        theirs(their_images).backward(torch.from_numpy(grad_out))
        assert (grad_images is not None) == (their_images.grad is not None) == asked
        found.append([parameter.grad for parameter in ours.parameters()])
    assert np.linalg.norm(grad_images - np.asarray(their_images.grad)) <= 1e-5 * np.linalg.norm(grad_images)
    for without, with_it in zip(*found, strict=True):
        assert np.array_equal(without, with_it)


@pytest.mark.parametrize("build", [lambda: AlexNet("mini", 10, init="paper"), lambda: TorchAlexNet("mini", 10, init="paper")])
def test_papers_starting_values(build):
    parameters = {name: np.asarray(value) for name, value in build().state_dict().items()}
    ones = {"features.4.bias", "features.10.bias", "features.12.bias", "classifier.0.bias", "classifier.3.bias"}
    for name, array in parameters.items():
        if name.endswith("bias"):
            assert (array == (name in ones)).all(), name
        else:  # mean and standard deviation of n normal draws are known to 1/√n and 1/√2n: allow 5 of them
            assert abs(array.mean()) <= 0.01 * 5 / math.sqrt(array.size), name
            assert abs(array.std() / 0.01 - 1) <= 5 / math.sqrt(2 * array.size), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_papers_biases_are_in_every_variant(variant):
    """1 in the second, fourth and fifth layer."""
    assert [row.bias for row in VARIANTS[variant].convs] == [0, 1, 0, 1, 1]


def test_one_generator_decides_everything():
    x = np.ones((2, 1, 28, 28), np.float32)
    first, second = (AlexNet("mini", rng=np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first(x), second(x))
    assert not np.array_equal(first(x), AlexNet("mini")(x))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: AlexNet("vgg"), ValueError, "variant must be one of one_tower, paper, torchvision, mini, got 'vgg'"),
        (lambda: AlexNet(["mini"]), ValueError, r"AlexNet: variant must be one of .*, got \['mini'\]"),
        (lambda: TorchAlexNet("vgg"), ValueError, "variant must be one of one_tower, paper, torchvision, mini, got 'vgg'"),
        (lambda: AlexNet("mini", init="he"), ValueError, "AlexNet: init must be one of torch, paper, got 'he'"),
        (lambda: TorchAlexNet("mini", init="he"), ValueError, "AlexNet: init must be 'torch' or 'paper', got 'he'"),
        (lambda: AlexNet("mini", 0), ValueError, "AlexNet: num_classes must be at least 1, got 0"),
        (lambda: AlexNet("mini", 10.0), TypeError, "AlexNet: num_classes must be an int, got 10.0"),
        (lambda: AlexNet("mini", dropout=2), ValueError, "Dropout: p must lie between 0 and 1, got 2"),
        (lambda: AlexNet("mini", rng=3), TypeError, "AlexNet: rng must be a numpy.random.Generator or None, got 3"),
        (lambda: AlexNet("mini")(np.ones((1, 3, 28, 28), np.float32)), ValueError, "conv2d"),
        (lambda: AlexNet("mini")(np.ones((1, 1, 28, 28))), TypeError, "conv2d: weight must be float64 like the input"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


# --- the walk-through -------------------------------------------------------------------------------------------------


def test_both_walks_show_the_same(capsys):
    ours, theirs = list(scratch.walkthrough.walk()), list(torch_impl.walkthrough.walk())
    for (stage, array), (their_stage, tensor) in zip(ours, theirs, strict=True):
        assert stage == their_stage
        assert array.shape == tuple(tensor.shape)
        assert np.linalg.norm(array - tensor.numpy()) <= 1e-5 * np.linalg.norm(tensor.numpy()), stage
    show(ours)
    printed = capsys.readouterr().out
    show(theirs)
    assert [line[:52] for line in printed.splitlines()] == [line[:52] for line in capsys.readouterr().out.splitlines()]
    shapes = [array.shape for _, array in ours]
    assert shapes[:4] == [(1, 3, 32, 32), (1, 8, 32, 32), (1, 8, 32, 32), (1, 8, 15, 15)]
    assert [shapes[i][1:3] for i in (8, 9, 12, 13, 16)] == [(3, 224), (96, 55), (96, 27), (256, 27), (256, 13)]
