"""Twins: two networks with the same weights, one by hand and one by torch, see the same batches and drop the same values.

They differ only in rounding. A third network, by torch in float64, shows how much rounding to expect, as its own is a billionth
of theirs: each twin's distance from it is that twin's rounding, and scratch's must be about as large as torch's. This is checked
image by image before the first step (see ``Twins.rounding``); from then on distances grow, as small differences do in a network
that learns.

In addition to twins, there are runs that share only their settings (:func:`apart`): their accuracies must agree within the spread
over the seeds.
"""

from __future__ import annotations

import datetime
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

import scratch.train
import torch_impl.train
from alexnet_from_scratch.data.datasets import Dataset, open_dataset
from alexnet_from_scratch.data.loader import Loader, sample
from alexnet_from_scratch.runs.checkpoints import Purpose, seeds
from alexnet_from_scratch.runs.options import Options
from benchmarks.measure import machine
from parity_tests.twins.results import KEPT, KINDS, Apart, Twins
from scratch import get_num_threads, set_num_threads
from scratch.alexnet import AlexNet
from scratch.data import Preprocessing, scaled
from scratch.modules import CrossEntropyLoss, Dropout
from scratch.sgd import SGD
from torch_impl import alexnet as torch_alexnet
from torch_impl import data as torch_data
from torch_impl import modules as torch_modules
from torch_impl import sgd as torch_sgd

ALONE = 16  # how many of the first step's images are checked one by one


class ByHand:
    """The network by hand, in float32."""

    def __init__(self, options: Options, classes: int) -> None:
        rng = np.random.default_rng(seeds(options.seed, Purpose.WEIGHTS))
        self.model = AlexNet(options.variant, classes, dropout=options.dropout, init=options.init, rng=rng)
        self.criterion = CrossEntropyLoss()
        self.optimizer = SGD(
            self.model.parameters(), options.lr, options.momentum, weight_decay=options.weight_decay, update=options.update
        )

    def differentiate(self, images: np.ndarray, labels: np.ndarray, masks: list[np.ndarray]) -> float:
        """The gradients of a batch; returns its loss."""
        dropouts = [module for _, module in self.model.named_modules() if isinstance(module, Dropout)]
        for dropout, mask in zip(dropouts, masks, strict=True):
            dropout.mask = mask
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(images), labels)
        self.model.backward(self.criterion.backward())
        for dropout in dropouts:
            dropout.mask = None  # the mask would not fit other batches
        return float(loss)

    def arrays(self, kind: str) -> list[np.ndarray]:
        """Gradients or weights, one vector for each layer."""
        arrays: list[Any] = [parameter.grad if kind == "gradients" else parameter.data for parameter in self.model.parameters()]
        return _by_layer(arrays)


class ByTorch:
    """The network by torch, in either precision, with the same weights as the one by hand."""

    def __init__(self, options: Options, classes: int, twin: ByHand, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.model = torch_alexnet.AlexNet(options.variant, classes, dropout=options.dropout, dtype=dtype)
        self.model.load_state_dict({name: torch.from_numpy(array) for name, array in twin.model.state_dict().items()})
        self.criterion = torch_modules.CrossEntropyLoss()
        self.optimizer = torch_sgd.SGD(
            self.model.parameters(), options.lr, options.momentum, weight_decay=options.weight_decay, update=options.update
        )

    def differentiate(self, images: np.ndarray, labels: np.ndarray, masks: list[np.ndarray]) -> float:
        """The gradients of a batch; returns its loss."""
        dropouts = (module for module in self.model.modules() if isinstance(module, torch_modules.Dropout))
        for dropout, mask in zip(dropouts, masks, strict=True):
            dropout.mask = torch.from_numpy(mask)
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(torch.from_numpy(images).to(self.dtype)), torch.from_numpy(labels))
        loss.backward()
        return loss.item()

    def arrays(self, kind: str) -> list[np.ndarray]:
        """Gradients or weights, one vector for each layer."""
        tensors: list[Any] = [parameter.grad if kind == "gradients" else parameter for parameter in self.model.parameters()]
        return _by_layer([tensor.detach().numpy() for tensor in tensors])


def together(options: Options, done: Callable[[int, int], None] = lambda step, steps: None) -> Twins:
    """Train twins.

    Args:
        options: the trainer's: data, variant, batch, epochs, max_steps, lr and so on; the learning rate does not drop.
        done: called after each step, with the step and the total.

    Raises:
        ValueError: the options or the data are not what they should be.
    """
    threads = _settle(options)
    dataset = _dataset(options)
    preprocessing = Preprocessing.fit(
        sample(dataset.train, workers=options.workers), size=options.size, channels=options.channels, mirror=dataset.mirror
    )
    loader = Loader(dataset.train, preprocessing, options.batch, options.seed, options.workers)

    hand = ByHand(options, len(dataset.classes))
    single, double = (ByTorch(options, len(dataset.classes), hand, dtype) for dtype in (torch.float32, torch.float64))
    networks: dict[str, ByHand | ByTorch] = {"scratch": hand, "torch": single, "float64": double}
    kinds = ["conv" if weight.ndim == 4 else "fc" for name, weight in hand.model.state_dict().items() if name.endswith("weight")]
    twins = Twins(
        {**asdict(options), "threads": threads},
        [f"{kind}{i}" for i, kind in enumerate(kinds, start=1)],
        _today(),
        machine.describe(),
        wall=dict.fromkeys(networks, 0.0),
        cpu=dict.fromkeys(networks, 0.0),
    )
    steps = min(options.epochs * len(loader), options.max_steps or options.epochs * len(loader))
    batches = itertools.chain.from_iterable(loader.training(epoch) for epoch in range(options.epochs))
    for step, (images, labels) in enumerate(itertools.islice(batches, steps), start=1):
        masks = list(_masks(single.model, len(images), options, step))
        if step == 1:
            for i in range(min(ALONE, len(images))):
                for network in networks.values():
                    network.differentiate(images[i : i + 1], labels[i : i + 1], [mask[i : i + 1] for mask in masks])
                twins.images.append(_distances(networks, "gradients"))
        losses = {}
        for name, network in networks.items():
            with _timed(twins, name):
                losses[name] = network.differentiate(images, labels, masks)
                network.optimizer.step()
        if step <= KEPT or step % 10 == 0 or step == steps:
            twins.steps.append({"step": step, "loss": losses, **{kind: _distances(networks, kind) for kind in KINDS}})
        done(step, steps)

    held_out = Loader(dataset.test, preprocessing, options.batch, workers=options.workers)
    twins.tested = len(dataset.test)
    evaluation = scratch.train.evaluate(hand.model, held_out, len(dataset.classes))
    twins.accuracy["scratch"] = evaluation.accuracy
    same = torch_data.Preprocessing.from_state_dict(preprocessing.state_dict())
    theirs = Loader(dataset.test, same, options.batch, workers=options.workers)
    alone = torch_impl.train.Workers(0, 1, torch.device("cpu"))
    twins.accuracy["torch"] = torch_impl.train.evaluate(single.model, theirs, len(dataset.classes), alone).accuracy
    return twins


def apart(options: Options, count: int) -> Apart:
    """Train ``count`` networks per side, by the sides' own trainers, each from its own seed.

    Raises:
        ValueError: the options or the data are not what they should be, or there are too few runs for a spread.
    """
    if count < 2:
        raise ValueError(f"there must be 2 seeds a side or more, got {count}")
    threads = _settle(options)
    result = Apart({**asdict(options), "threads": threads}, _today(), machine.describe(), tested=len(_dataset(options).test))
    trainers: dict[str, Callable[[Any], dict[str, Any]]] = {"scratch": scratch.train.train, "torch": torch_impl.train.train}
    for i, (side, train) in itertools.product(range(count), trainers.items()):
        seed = options.seed + 2 * i + (side == "torch")  # no seed is used twice
        with tempfile.TemporaryDirectory() as folder:
            settings = replace(options, seed=seed, threads=threads, out=folder, no_pictures=True)
            started = time.perf_counter(), time.process_time()
            kind = Options if side == "scratch" else torch_impl.train.TorchOptions
            summary = train(kind(**vars(settings)))
        wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
        run = {"side": side, "seed": seed, "accuracy": summary["held_out_accuracy"], "wall": wall, "cpu": cpu}
        result.runs.append(run)
    return result


def _dataset(options: Options) -> Dataset:
    return open_dataset(
        options.data,
        options.data_dir,
        skip_broken=options.skip_broken,
        seed=options.seed,
        for_size=scaled(options.size),
    )


def _settle(options: Options) -> int:
    """Give both libraries the same number of threads; return it."""
    if options.device != "cpu":
        raise ValueError(f"--device must be cpu, the only device of scratch, got {options.device!r}")
    threads = options.threads or get_num_threads()
    set_num_threads(threads)
    torch.set_num_threads(threads)
    return threads


def _masks(model: Any, n: int, options: Options, step: int) -> Iterator[np.ndarray]:
    """What is kept of each dropout layer's input, (n,width), bool."""
    rng = np.random.default_rng(seeds(options.seed, Purpose.DROPOUT, step))
    # In every variant a dropout layer is followed by a linear layer, which knows the width.
    for dropout, linear in itertools.pairwise(model.get_submodule("classifier").children()):
        if isinstance(dropout, torch_modules.Dropout):
            yield rng.random((n, linear.in_features)) >= options.dropout


def _by_layer(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Each layer's weight and bias as one vector."""
    return [np.concatenate([weight.ravel(), bias]) for weight, bias in zip(arrays[::2], arrays[1::2], strict=True)]


def _distances(networks: dict[str, Any], kind: str) -> dict[str, list[float]]:
    """‖a - b‖ / ‖b‖ for each layer."""
    vectors = {name: network.arrays(kind) for name, network in networks.items()}

    def between(a: str, b: str) -> list[float]:
        return [
            float(np.linalg.norm(ours.astype(np.float64) - theirs) / np.linalg.norm(theirs.astype(np.float64)))
            for ours, theirs in zip(vectors[a], vectors[b], strict=True)
        ]

    return {
        "twins": between("scratch", "torch"),
        "scratch": between("scratch", "float64"),
        "torch": between("torch", "float64"),
    }


@contextmanager
def _timed(twins: Twins, name: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    twins.wall[name] += time.perf_counter() - wall
    twins.cpu[name] += time.process_time() - cpu


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
