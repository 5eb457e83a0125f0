"""Several epochs under the eyes of a witness that repeats by hand, in NumPy and float64, what each step must have done.

The witness knows neither side's code. From a step's logits and labels it computes the loss, the answers that are right and the
gradient of the last layer's bias; from weights and gradients before the step, the weights after it. The learning rates and the
number of images in each batch are in this file, as numbers.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_from_scratch.data.datasets import Dataset, Split
from alexnet_from_scratch.proof.parity import to_numpy
from alexnet_from_scratch.runs import files, pictures, session
from tests.runs import SIDES, after_step, checkpoints_of, dataset, run, steps_of, weights_of

# Ten images in batches of four: the third has two. The rate falls to a tenth after every epoch.
FLAGS: dict[str, Any] = {
    "epochs": 3,
    "max_steps": None,
    "lr": 0.01,
    "lr_every": 1,
    "momentum": 0.9,
    "weight_decay": 0.01,
    "dropout": 0.4,
    "checkpoint_every": 100,
}
RATES = [0.01] * 3 + [0.001] * 3 + [0.0001] * 3
SIZES = [4, 4, 2] * 3


Dropped = tuple[np.ndarray, np.ndarray]  # where a dropout layer's input was not zero, and where its output was


@dataclass
class Witness:
    """What was seen, step by step; ``held_out`` has the logits of each evaluation."""

    images: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    dropped: list[list[Dropped]] = field(default_factory=list)
    passed: list[list[Dropped]] = field(default_factory=list)  # the same in evaluations
    bias_gradients: list[np.ndarray] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    velocities: list[np.ndarray] = field(default_factory=list)
    held_out: list[list[np.ndarray]] = field(default_factory=list)
    evaluating: bool = False


def check_epochs(side: str, folder: Path) -> None:
    """Three epochs do what they should, step by step."""
    with _marked() as data, _watched(side) as seen:
        run(side, folder, **FLAGS)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [len(labels) for labels in seen.labels] == SIZES
    assert [line["step"] for line in steps] == list(range(1, 10))
    np.testing.assert_allclose([line["lr"] for line in steps], RATES, rtol=1e-12)
    np.testing.assert_allclose(seen.rates, RATES, rtol=1e-3)
    for line, logits, labels, gradient in zip(steps, seen.logits, seen.labels, seen.bias_gradients, strict=True):
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        wanted = np.eye(logits.shape[1])[labels]
        np.testing.assert_allclose(line["loss"], -np.log((probabilities * wanted).sum(axis=1)).mean(), rtol=1e-5)
        assert line["accuracy"] == (logits.argmax(axis=1) == labels).mean()
        np.testing.assert_allclose(gradient, (probabilities - wanted).mean(axis=0), atol=1e-6)
    _check_images(seen, data)
    _check_dropout(seen)
    evaluations = [line for line in lines if "held_out_loss" in line]
    assert [line["step"] for line in evaluations] == [3, 6, 9]
    for line, held_out in zip(evaluations, seen.held_out, strict=True):
        _check_evaluation(line, np.concatenate(held_out), data.test.labels)


def check_resumed(side: str, folder: Path, **flags: Any) -> None:
    """A run that is stopped inside an epoch goes on to the same bits: weights, losses, learning rates, evaluations."""
    stop = flags.pop("stop", 5)
    flags = {**FLAGS, **flags}
    with _marked():
        run(side, folder / "whole", **flags)
        with after_step(stop, lambda run: run._interrupt(15, None)), pytest.raises(session.InterruptedRunError):
            run(side, folder / "parts", **flags)
        run(side, folder / "parts", **flags, resume=True)
    assert weights_of(folder / "parts") == weights_of(folder / "whole")
    assert _metrics(folder / "parts") == _metrics(folder / "whole")


def check_mirrors(side: str, folder: Path) -> None:
    """Images are mirrored only where the data set says that their mirror images show the same: not in one of digits."""
    for mirror in (True, False):
        out = folder / str(mirror)
        with _marked(mirror), _watched(side) as seen:
            run(side, out, **{**FLAGS, "epochs": 1})
        # The right half is as in the mean image, unless the left one, which differs, was put there.
        mirrored = np.concatenate([abs(batch[:, 0, 14, 21]) > 5 for batch in seen.images])
        assert mirrored.any() == mirror, f"{mirrored.sum()} of 10 are mirrored"
        assert weights_of(out)["preprocessing.mirror"] == bytes([mirror])


def check_interrupted_evaluation(side: str, folder: Path) -> None:
    """A stop that is asked for during an evaluation comes right after it; after the last one the run just ends."""
    flags = {**FLAGS, "epochs": 2}
    with _marked():
        with _asked_to_stop(0), pytest.raises(session.InterruptedRunError, match="stopped after step 3"):
            run(side, folder / "first", **flags)
        assert steps_of(folder / "first") == [1, 2, 3, -3]
        run(side, folder / "first", **flags, resume=True)
        with _asked_to_stop(1):
            try:
                assert run(side, folder / "last", **flags)["steps"] == 6
            except session.InterruptedRunError as error:
                pytest.fail(f"{error}")
    assert weights_of(folder / "first") == weights_of(folder / "last")


def check_plateau_resumed(side: str, folder: Path) -> None:
    """The same where the rate falls when the held-out error stays; it stays, as the rate is too small to change an answer."""
    check_resumed(side, folder, schedule="plateau", lr_every=20, patience=2, lr=1e-5, epochs=5, stop=8)
    rates = [line["lr"] for line in _metrics(folder / "whole") if "loss" in line]
    np.testing.assert_allclose(rates, [1e-5] * 9 + [1e-6] * 6, rtol=1e-12)


def check_shares(side: str, folder: Path) -> None:
    """The schedule hears of the error on all held-out images, not of one process's share.

    A made-up second process has as many images, and is wrong about each.
    """

    def beside_another(numbers: np.ndarray) -> np.ndarray:
        if numbers.size != 7**2 + 1:  # seven classes: no evaluation
            return numbers
        another = np.zeros(numbers.size, numbers.dtype)
        another[1] = 6
        return numbers + another

    def entered(self: Any, real: Any = session.Run.__enter__) -> Any:
        self.total = beside_another
        return real(self)

    with _marked(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(session.Run, "__enter__", entered)
        run(side, folder, **FLAGS)
    accuracies = [line["held_out_accuracy"] for line in _metrics(folder) if "held_out_accuracy" in line]
    position = files.read_header(checkpoints_of(folder)[-1], "checkpoint").about["content"]["state"]["position"]
    assert 0 < max(accuracies) <= 0.5
    assert position["schedule"]["best"] == 1 - max(accuracies)


def check_evaluated_again(side: str, folder: Path) -> None:
    """A run that has ended may be evaluated again with other numbers of threads, and now with pictures."""
    drawn: list[Path] = []

    def draw(folder: Path, stages: pictures.Stages) -> tuple[list[Path], list[str]]:
        drawn.append(folder)
        return [], []

    with _marked(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(pictures, "draw", draw)
        first = run(side, folder, **FLAGS)
        again = run(side, folder, **FLAGS, resume=True, ten_crops=True, workers=2, threads=2, no_pictures=False)
    assert drawn == [folder]
    assert again["steps"] == first["steps"]
    assert again["held_out_loss"] != first["held_out_loss"]


def _metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


# --- what the witness looks at ----------------------------------------------------------------------------------------


def _check_images(seen: Witness, data: Dataset) -> None:
    """Every epoch has each training image once, with its own label, in another order and altered anew."""
    # Pixels in the middle of each half, less their means over the images, 110 and 0.
    left, right = ([batch[:, 0, 14, column] for batch in seen.images] for column in (6, 21))
    numbers = [np.rint((a + b + 90) / 20).astype(int) for a, b in zip(left, right, strict=True)]
    mirrored = [abs(a) < abs(b) for a, b in zip(left, right, strict=True)]
    for batch, labels in zip(numbers, seen.labels, strict=True):
        assert data.train.labels[batch].tolist() == labels.tolist()
    epochs = [np.concatenate(numbers[at : at + 3]) for at in (0, 3, 6)]
    assert all(np.array_equal(np.sort(epoch), np.arange(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # No image is mirrored because of its place in its batch.
    assert any(not np.array_equal(before, after) for before, after in zip(mirrored, mirrored[3:], strict=False))
    assert any(not np.array_equal(mirrored[at], mirrored[at + 1]) for at in (0, 3, 6))


def _check_dropout(seen: Witness) -> None:
    """Training drops two fifths of the values, others at every step of every epoch; an evaluation drops none."""
    assert all(len(layers) == 2 for layers in (*seen.dropped, *seen.passed))
    for layers in seen.dropped:
        for there, zero in layers:
            assert abs(zero[there].mean() - 0.4) < 0.12
    for one, other in itertools.combinations(seen.dropped, 2):  # of all epochs: no step repeats another's
        for (there, zero), (there_too, zero_too) in zip(one, other, strict=True):
            both = there[:2] & there_too[:2]
            assert not np.array_equal(zero[:2][both], zero_too[:2][both]), "two steps drop the same values"
    assert not any(zero[there].any() for layers in seen.passed for there, zero in layers)


def _check_step(seen: Witness, before: list[np.ndarray], gradients: list[np.ndarray], after: list[np.ndarray]) -> None:
    """The step went along the velocity, and only along it; how far is its rate."""
    for i, (w, g) in enumerate(zip(before, gradients, strict=True)):
        d = g + FLAGS["weight_decay"] * w
        if len(seen.velocities) == i:
            seen.velocities.append(d)
        else:
            seen.velocities[i] = FLAGS["momentum"] * seen.velocities[i] + d
    v = np.concatenate([velocity.ravel() for velocity in seen.velocities])
    moved = np.concatenate([(new - old).ravel() for new, old in zip(after, before, strict=True)])
    rate = -float(v @ moved / (v @ v))
    assert np.linalg.norm(moved + rate * v) < 0.01 * np.linalg.norm(moved), "the step is not along the velocity"
    seen.rates.append(rate)
    seen.bias_gradients.append(gradients[-1])


def _check_evaluation(line: dict[str, Any], logits: np.ndarray, labels: np.ndarray) -> None:
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    own = probabilities[np.arange(len(labels)), labels]
    better = (probabilities > own[:, np.newaxis]).sum(axis=1)
    np.testing.assert_allclose(line["held_out_loss"], -np.log(own).mean(), rtol=1e-5)
    assert line["held_out_accuracy"] == (better == 0).mean()
    assert line["held_out_top5"] == (better < 5).mean()


@contextmanager
def _asked_to_stop(epoch: int) -> Iterator[None]:
    """The run is asked to stop while it evaluates after that epoch."""
    noted = session.Run.after_epoch

    def after_epoch(self: session.Run, evaluation: Any) -> None:
        if self.position.epoch == epoch:
            self._interrupt(15, None)
        noted(self, evaluation)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(session.Run, "after_epoch", after_epoch)
        yield


@contextmanager
def _marked(mirror: bool = True) -> Iterator[Dataset]:
    """Train on images that can be told apart after preprocessing: the left half is bright, brighter in each than in the last."""
    images = np.zeros((16, 8, 8), np.uint8)
    images[:, :, :4] = 20 * (np.arange(16) % 10 + 1)[:, np.newaxis, np.newaxis]
    labels = np.arange(16) * 3 % 7
    train, test = (Split(labels[part], images[part].__getitem__) for part in (slice(10), slice(10, None)))
    data = Dataset("digits", tuple("abcdefg"), mirror, train, test)
    with dataset(data):
        yield data


@contextmanager
def _watched(side: str) -> Iterator[Witness]:
    """Look at what both trainers call: the network, its dropout layers, the loss, the optimizer, the evaluation."""
    module, seen = SIDES[side][0], Witness()

    def network(self: Any, x: Any, *, real: Any = module.AlexNet.forward) -> Any:
        (seen.passed if seen.evaluating else seen.dropped).append([])
        logits = real(self, x)
        if seen.evaluating:
            seen.held_out[-1].append(_numbers(logits))
        else:
            seen.images.append(_numbers(x))
        return logits

    def dropout(self: Any, x: Any, *, real: Any = module.Dropout.forward) -> Any:
        out = real(self, x)
        (seen.passed if seen.evaluating else seen.dropped)[-1].append((_numbers(x) != 0, _numbers(out) == 0))
        return out

    def loss(self: Any, logits: Any, labels: Any, *, real: Any = module.CrossEntropyLoss.forward) -> Any:
        seen.logits.append(_numbers(logits))
        seen.labels.append(np.array(to_numpy(labels)))
        return real(self, logits, labels)

    def step(self: Any, *, real: Any = module.SGD.step) -> None:
        groups = getattr(self, "param_groups", None)
        parameters = groups[0]["params"] if groups else self.parameters
        before, gradients = ([_numbers(getattr(parameter, name)) for parameter in parameters] for name in ("data", "grad"))
        real(self)
        _check_step(seen, before, gradients, [_numbers(parameter.data) for parameter in parameters])

    def evaluate(*args: Any, real: Any = module.evaluate, **options: Any) -> Any:
        assert len(seen.held_out) < FLAGS["epochs"], "the run does not end"
        seen.evaluating = True
        seen.held_out.append([])
        evaluation = real(*args, **options)
        seen.evaluating = False
        return evaluation

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module.AlexNet, "forward", network)
        patched.setattr(module.Dropout, "forward", dropout)
        patched.setattr(module.CrossEntropyLoss, "forward", loss)
        patched.setattr(module.SGD, "step", step)
        patched.setattr(module, "evaluate", evaluate)
        yield seen


def _numbers(values: Any) -> np.ndarray:
    """A copy in float64, of an array or of a tensor."""
    return np.array(to_numpy(values), np.float64)
