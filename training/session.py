"""A training run around its loop: the folder, the position in the data, checkpoints, metrics, the progress bar.

The folder of a run holds::

    metrics.jsonl        a line for each step, and one for each evaluation
    checkpoints/         the last few; see checkpoints.py
    weights.safetensors  what was learned so far, when the run ended or was interrupted
    summary.json         how it ended
    *.png, *.svg         pictures of it, and what they are drawn from; see pictures.py

Metrics are appended as they come, and a checkpoint knows how long their file was. To resume is to cut it there: what steps
after the checkpoint have written, those steps will write again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType, TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from training import files, pictures, weights
from training.datasets import Dataset
from training.evaluation import Evaluation
from training.options import Options
from training.schedule import Schedule
from training.screen import failing_plainly, plain_console

Batch = TypeVar("Batch")


class Learner(Protocol):
    """What a side's network and optimizer can do for a run."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All that training changes: the network's arrays by "network.NAME", the optimizer's by other names."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on where :meth:`arrays` was called."""


@dataclass
class Position:
    """Where a run is, and what it has to know to go on, beside arrays.

    Attributes:
        step: steps taken.
        epoch: epochs ended.
        batch: batches of the epoch that were trained on.
        evaluated: the step after which the network was last evaluated.
        numbers: what came out.
        metrics: length of the metrics' file in bytes.
        seconds: how long the run has taken, over all its parts.
        schedule: of the learning rate.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    evaluated: int = -1
    numbers: dict[str, float] = field(default_factory=dict)
    metrics: int = 0
    seconds: float = 0.0
    schedule: dict[str, Any] = field(default_factory=dict)


class InterruptedRunError(Exception):
    """The user, or the system, asked the run to stop; a checkpoint is saved."""


class Run:
    """A run, as a context manager; its methods stand in the order in which the training loop calls them.

    Args:
        options: the flags.
        side: "scratch" or "torch_impl".
        dataset: what is learned.
        preprocessing: the state dict of what makes the network's input of it.
        learner: the network and its optimizer.
        total: adds arrays up over all processes that train together.
        main: whether this process is the one of them that writes and prints.

    Raises:
        ValueError: the folder holds another run, or nothing whole to resume.
    """

    def __init__(
        self,
        options: Options,
        side: str,
        dataset: Dataset,
        preprocessing: Mapping[str, np.ndarray],
        learner: Learner,
        *,
        total: Callable[[np.ndarray], np.ndarray] = lambda numbers: numbers,
        main: bool = True,
    ) -> None:
        self.options, self.side, self.dataset, self.preprocessing, self.learner = options, side, dataset, preprocessing, learner
        self.total, self.main = total, main
        weights.require_classes(options.data_dir or options.data, dataset.classes)  # now, not after hours of training
        self.folder = options.folder(side)
        self.metrics = self.folder / "metrics.jsonl"
        self.checkpoints = options.checkpoints(side)
        self.console = plain_console(quiet=not main)
        self.position = Position()
        self.schedule = Schedule(options.schedule, options.lr, options.patience, options.lr_every)
        self.evaluation: Evaluation | None = None
        self._interrupted = False
        self._handlers: dict[int, Any] = {}  # of the signals that ask to stop, as they were before
        if options.resume:
            self._resume()
        elif main and (self.metrics.exists() or self.checkpoints.paths()):
            raise ValueError(f"{self.folder}: holds a run already. --resume goes on with it, --out DIR starts another")

    def __enter__(self) -> Self:
        self._started = time.monotonic() - self.position.seconds
        with ExitStack() as undone_on_failure:
            if threading.current_thread() is threading.main_thread():  # Python lets no other one handle signals
                for number in (signal.SIGINT, signal.SIGTERM):
                    self._handlers[number] = signal.signal(number, self._interrupt)
                    undone_on_failure.callback(signal.signal, number, self._handlers[number])
            if self.main:
                undone_on_failure.enter_context(self._open_folder())
            self._bar = undone_on_failure.enter_context(ProgressBar(self.console, self.position.step, self._last_step))
            self._cleanup = undone_on_failure.pop_all()
        return self

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, from 0; the first of them may have begun."""
        while not self._over:
            yield self.position.epoch

    def batches(self, batches: Generator[Batch, None, None]) -> Iterator[Batch]:
        """The epoch's batches from where the run is, until there are steps enough."""
        with closing(batches):
            while self.position.step < self._last_step and (batch := next(batches, None)) is not None:
                yield batch

    @property
    def batch_size(self) -> int:
        """How many images the next batch has, over all processes; 0 at the end of an epoch."""
        return max(0, min(self.options.batch, len(self.dataset.train) - self.position.batch * self.options.batch))

    def after_step(self, loss: float, correct: int) -> None:
        """Take note of a step: the sum of the losses of this process's images, and how many of them were classified correctly.

        Raises:
            FloatingPointError: the loss is not finite: training has diverged.
            InterruptedRunError: it was asked for; a checkpoint is saved.
            OSError: a file could not be written.
        """
        count = self.batch_size
        loss, correct, stop = self.total(np.array([loss, correct, self._interrupted], np.float64)).tolist()
        self.position.step += 1
        self.position.batch += 1
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"training diverged: the loss of step {self.position.step} is {loss}; try an --lr below {self.options.lr:g}"
            )
        self._note(loss=loss / count, accuracy=correct / count, lr=self.schedule.rate)
        self._bar.show(self.position.step, self.position.epoch, count, loss / count, correct / count)
        if stop:
            self._stop()
        if self.position.step % self.options.checkpoint_every == 0:
            self._save()

    def after_epoch(self, evaluation: Evaluation) -> None:
        """Take note of what the network makes of held-out images, this process's share; the learning rate may fall.

        Raises:
            InterruptedRunError, OSError: as in :meth:`after_step`.
        """
        counts = self.total(np.append(evaluation.confusion, evaluation.top5))
        loss, stop = self.total(np.array([evaluation.loss, self._interrupted], np.float64)).tolist()
        confusion = counts[:-1].reshape(evaluation.confusion.shape)
        self.evaluation = Evaluation(confusion, int(counts[-1]), loss)
        self.position.numbers = numbers = self.evaluation.numbers()
        self.position.evaluated = self.position.step
        self._note(**numbers)
        self.console.print(
            f"epoch {self.position.epoch + 1}, step {self.position.step}: learning rate {self.schedule.rate:g}, "
            f"held-out loss {numbers['held_out_loss']:.4f}, held-out accuracy {numbers['held_out_accuracy']:.2%}"
        )
        if self.batch_size == 0:  # otherwise --max-steps has ended it early
            self.schedule.after_epoch(self.position.epoch, self.evaluation.error)
            self.position.epoch += 1
            self.position.batch = 0
        if stop and not self._over:
            self._stop()

    def finish(self, stages: pictures.Stages) -> dict[str, Any]:
        """Leave the results, and return and print their summary; draw pictures, one by ``stages`` (see ``pictures.py``).

        The last checkpoint comes last, so that a run that is killed meanwhile does this again when it is resumed.

        Raises:
            OSError: a file could not be written.
        """
        summary = {
            "side": self.side,
            "variant": self.options.variant,
            "data": self.options.data,
            "steps": self.position.step,
            "epochs": self.position.epoch,
            **self.position.numbers,
            "seconds": self._seconds(),
            "skipped_images": len(self.dataset.train.skipped) + len(self.dataset.test.skipped),
        }
        if self.evaluation is None:  # all was done before
            return dict(json.loads((self.folder / "summary.json").read_text()))
        if self.main:
            self._save_weights()
            files.write_bytes(self.folder / "summary.json", json.dumps(summary, indent=1).encode())
            pictures.keep_material(self.folder, self.evaluation.confusion, self.dataset)
            self._save()
            if not self.options.no_pictures:
                self._draw(stages)
        table = Table(f"python -m {self.side}.train", "", title=str(self.folder))
        for name, value in summary.items():
            table.add_row(name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value))
        self.console.print(table)
        return summary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._cleanup.close()

    # --- how ----------------------------------------------------------------------------------------------------------

    @property
    def _last_step(self) -> int:
        whole = self.options.epochs * -(-len(self.dataset.train) // self.options.batch)
        return min(whole, self.options.max_steps or whole)

    @property
    def _over(self) -> bool:
        return self.position.step >= self._last_step and self.position.evaluated == self.position.step

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

    def _note(self, **numbers: float) -> None:
        """A line of metrics."""
        line = {"step": self.position.step, "epoch": self.position.epoch + 1, **numbers, "seconds": self._seconds()}
        if self.main:
            self._metrics.write(json.dumps(line).encode() + b"\n")
            self._metrics.flush()

    @contextmanager
    def _open_folder(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder, self.checkpoints.folder):
            for left in folder.glob(".*.unfinished"):
                left.unlink()
        with self.metrics.open("ab") as self._metrics:
            self._metrics.seek(self._metrics.truncate(self.position.metrics))  # truncating alone leaves it beyond the end
            if self.position.step == 0:
                self._save()  # there is something to resume from the start
            yield

    def _save(self) -> None:
        if not self.main:
            return
        os.fsync(self._metrics.fileno())
        self.position.metrics = self._metrics.tell()
        self.position.seconds = self._seconds()
        self.position.schedule = self.schedule.state()
        state = {"options": asdict(self.options), "data": fingerprint(self.dataset), "position": asdict(self.position)}
        self.checkpoints.save(self.position.step, self.learner.arrays(), state)

    def _save_weights(self) -> None:
        prefix = weights.NETWORK
        arrays = self.learner.arrays()
        network = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        path = self.folder / "weights.safetensors"
        weights.save(path, self.options.variant, self.dataset.classes, network, self.preprocessing)

    def _draw(self, stages: pictures.Stages) -> None:
        try:
            pictures.draw(self.folder, stages)
        except ModuleNotFoundError as error:
            self.console.print(f"no pictures: {error}")

    def _resume(self) -> None:
        checkpoint = self.checkpoints.newest(self.console.print)
        if checkpoint is None:
            self.console.print(f"{self.folder}: there is no checkpoint yet: the run starts at its beginning")
            return
        self.options.require_same_run(checkpoint)
        if checkpoint.state["data"] != fingerprint(self.dataset):
            raise ValueError(
                f"{checkpoint.path}: is of a run on other images than {self.options.data} has now: nothing to go on with"
            )
        self.position = Position(**checkpoint.state["position"])
        self.schedule.restore(self.position.schedule)
        self.learner.restore(checkpoint.arrays)
        length = self.metrics.stat().st_size if self.metrics.exists() else 0
        if length < self.position.metrics:
            raise ValueError(
                f"{self.metrics}: must have at least the {self.position.metrics} bytes it had when {checkpoint.path.name} was "
                f"saved, got {length}: lines are lost"
            )
        self.console.print(f"{checkpoint.path}: the run goes on after step {self.position.step}")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        signal.signal(number, self._handlers[number])  # who asks a second time does not want to wait

    def _stop(self) -> None:
        if self.main:
            self._save()
            self._save_weights()
        raise InterruptedRunError(
            f"stopped after step {self.position.step}; 'python -m {self.side}.train --out {self.folder} --resume' goes on"
        )


def fingerprint(dataset: Dataset) -> str:
    """What tells a data set from another one, or from itself when images have come or gone: classes and labels."""
    digest = hashlib.sha256(json.dumps(dataset.classes).encode())
    for split in (dataset.train, dataset.test):
        digest.update(b"%d" % len(split))
        digest.update(split.labels.tobytes())
    return digest.hexdigest()


class ProgressBar:
    """Where a run is, how fast it is and how well it does; nothing where the output is not a terminal."""

    def __init__(self, console: Console, step: int, steps: int) -> None:
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  loss {task.fields[loss]:.4f}  accuracy {task.fields[accuracy]:.1%}"),
            TextColumn("{task.fields[speed]:.0f} images/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._smooth: np.ndarray | None = None  # loss, accuracy, images/s
        self._task = self._progress.add_task("", total=steps, completed=step, epoch=1, loss=0.0, accuracy=0.0, speed=0.0)
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, step: int, epoch: int, images: int, loss: float, accuracy: float) -> None:
        """A step is done; of the numbers a mean over about twenty steps is shown."""
        now = time.monotonic()
        numbers = np.array([loss, accuracy, images / max(now - self._last, 1e-9)])
        self._last = now
        self._smooth = numbers if self._smooth is None else 0.95 * self._smooth + 0.05 * numbers
        loss, accuracy, speed = self._smooth.tolist()
        self._progress.update(self._task, completed=step, epoch=epoch + 1, loss=loss, accuracy=accuracy, speed=speed)


def command(train: Callable[[Any], object], options: Options) -> None:
    """Train as a command does: an interrupted run exits with 130, as shells expect of Ctrl-C."""
    with failing_plainly():
        try:
            train(options)
        except InterruptedRunError as stopped:
            plain_console(stderr=True).print(f"{stopped}")
            raise SystemExit(130) from None
