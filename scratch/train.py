"""Train AlexNet by hand: ``python -m scratch.train``; ``--help`` lists the flags, which torch_impl shares.

This file has the whole loop. ``alexnet_from_scratch/runs`` keeps the run's folder, its checkpoints and its progress bar. That
package is the same for scratch and torch_impl, and does no arithmetic on pixels or weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alexnet_from_scratch.data.datasets import open_dataset
from alexnet_from_scratch.data.loader import Loader, sample
from alexnet_from_scratch.runs import session
from alexnet_from_scratch.runs.checkpoints import Purpose, seeds
from alexnet_from_scratch.runs.evaluation import Evaluation
from alexnet_from_scratch.runs.options import Options
from scratch import get_num_threads, set_num_threads
from scratch.alexnet import AlexNet
from scratch.data import Preprocessing, mean_probabilities, scaled
from scratch.modules import CrossEntropyLoss, Dropout
from scratch.pictures import stages
from scratch.sgd import SGD


def train(options: Options) -> dict[str, Any]:
    """Train a network as the options say, and return the summary of the run.

    Raises:
        ValueError: an option does not fit, or the data or a checkpoint is not valid.
        FloatingPointError: training diverged.
        session.InterruptedRunError: Ctrl-C; a checkpoint is saved.
        OSError: a file could not be read or written.
    """
    if options.device != "cpu":
        raise ValueError(f"--device must be cpu, the only device of scratch, got {options.device!r}")
    set_num_threads(options.threads or get_num_threads())
    dataset = open_dataset(
        options.data,
        options.data_dir,
        skip_broken=options.skip_broken,
        seed=options.seed,
        workers=options.workers,
        for_size=scaled(options.size),
    )
    preprocessing = Preprocessing.fit(
        sample(dataset.train, workers=options.workers), size=options.size, channels=options.channels, mirror=dataset.mirror
    )
    loader = Loader(dataset.train, preprocessing, options.batch, options.seed, options.workers)
    held_out = Loader(dataset.test, preprocessing, options.batch, options.seed, options.workers)

    rng = np.random.default_rng(seeds(options.seed, Purpose.WEIGHTS))
    model = AlexNet(options.variant, len(dataset.classes), dropout=options.dropout, init=options.init, rng=rng)
    criterion = CrossEntropyLoss()
    optimizer = SGD(model.parameters(), options.lr, options.momentum, weight_decay=options.weight_decay, update=options.update)

    with session.Run(options, "scratch", dataset, preprocessing.state_dict(), Learner(model, optimizer)) as run:
        for epoch in run.epochs():
            for images, labels in run.batches(loader.training(epoch, first=run.position.batch)):
                seed_dropout(model, options.seed, run.position.step)
                optimizer.lr = run.schedule.rate
                optimizer.zero_grad()
                logits = model(images)
                loss = criterion(logits, labels)
                model.backward(criterion.backward())
                optimizer.step()
                run.after_step(float(loss) * len(labels), int((logits.argmax(axis=1) == labels).sum()))
            run.after_epoch(evaluate(model, held_out, len(dataset.classes), ten_crops=options.ten_crops))
        return run.finish(stages)


def evaluate(model: AlexNet, loader: Loader[np.ndarray], classes: int, *, ten_crops: bool = False) -> Evaluation:
    """Evaluate the network on held-out images; the network is in training mode afterwards."""
    model.eval()
    evaluation = Evaluation.of(classes)
    for images, labels in loader.evaluation(ten_crops=ten_crops):
        logits = model(images.reshape(-1, *images.shape[-3:]))  # (N,C,H,W) or (N,10,C,H,W) -> (N or N·10,classes)
        evaluation.add(mean_probabilities(logits.reshape(len(labels), -1, classes)), labels)
    model.train()
    return evaluation


def seed_dropout(model: AlexNet, seed: int, step: int) -> None:
    """Make what a step drops depend only on seed and step, so that a resumed run drops the same."""
    rng = np.random.default_rng(seeds(seed, Purpose.DROPOUT, step))
    for _, module in model.named_modules():
        if isinstance(module, Dropout):
            module.rng = rng


@dataclass(frozen=True)
class Learner:
    """What a checkpoint keeps: the network's parameters and the optimizer's velocities."""

    model: AlexNet
    optimizer: SGD

    def arrays(self) -> dict[str, np.ndarray]:
        """The parameters and velocities, by name."""
        parameters = self.model.state_dict()
        velocities = self.optimizer.state_dict()["state"]
        arrays = {f"network.{name}": array for name, array in parameters.items()}
        return arrays | {
            f"velocity.{name}": velocities[i]["momentum_buffer"] for i, name in enumerate(parameters) if i in velocities
        }

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Restore the parameters and velocities.

        Raises:
            ValueError: the arrays are from another network.
        """
        names = list(self.model.state_dict())
        self.model.load_state_dict({name: arrays[f"network.{name}"] for name in names if f"network.{name}" in arrays})
        velocities = {
            i: {"momentum_buffer": arrays[f"velocity.{name}"]} for i, name in enumerate(names) if f"velocity.{name}" in arrays
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": velocities})


if __name__ == "__main__":
    session.command(train, Options.parse("scratch"))
