"""Everything around a training loop: the folder, the position in the data, checkpoints, metrics, the progress bar.

The folder of a run holds::

    metrics.jsonl        one line for each step, and one for each evaluation
    checkpoints/         the last few; see checkpoints.py
    weights.safetensors  what was learned, saved when the run ends or is interrupted
    summary.json         how the run ended
    *.png, *.svg         pictures of the run, and what they are drawn from; see pictures.py

Metrics are appended as they come, and a checkpoint records the length of their file. Resuming cuts the file there: the steps
after the checkpoint will write their lines again.
"""

from __future__ import annotations

import json
import math
import shlex
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict
from types import FrameType, TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from alexnet_from_scratch.data.datasets import Dataset
from alexnet_from_scratch.packages import optional
from alexnet_from_scratch.runs import files, pictures, resuming, weights
from alexnet_from_scratch.runs.arithmetic import other_than
from alexnet_from_scratch.runs.evaluation import Evaluation
from alexnet_from_scratch.runs.interrupts import INTERRUPTED
from alexnet_from_scratch.runs.options import Options
from alexnet_from_scratch.runs.progress import ProgressBar
from alexnet_from_scratch.runs.run_folder import RunFolder
from alexnet_from_scratch.runs.schedule import Schedule
from alexnet_from_scratch.runs.screen import failing_plainly, plain_console, tell
from alexnet_from_scratch.runs.state import Position
from alexnet_from_scratch.text import shown

Batch = TypeVar("Batch")


class Learner(Protocol):
    """What a side's network and optimizer can do for a run."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that training changes: the network's arrays as "network.NAME", the optimizer's under other names."""

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from the state that :meth:`arrays` returned."""


class InterruptedRunError(Exception):
    """The user or the system asked the run to stop; a checkpoint has been saved."""


class Run:
    """A run, as a context manager; its methods are in the order in which the training loop calls them.

    Args:
        options: the flags.
        side: "scratch" or "torch_impl".
        dataset: what is learned.
        preprocessing: the state dict of the preprocessing.
        learner: the network and its optimizer.
        total: sums arrays over all processes that train together.
        main: whether this process is the one that writes and prints.

    Entering it raises:
        ValueError: the folder already holds a run; or the run to resume is missing, is a different run or is damaged; or an
            option would have no effect.
        BlockingIOError: another run is writing to the folder.
        OSError: the folder cannot be read or written.
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
        if len(dataset.classes) == 1:
            raise ValueError(
                f"{options.data_dir or options.data}: has only one class, {dataset.classes[0]!r}, so there is nothing to learn. "
                "Add a folder with images of another class"
            )
        self.checkpoints = options.checkpoints(side)
        self.folder = RunFolder(options.folder(side), self.checkpoints)
        self.console = plain_console(quiet=not main)
        self.position = Position()
        self.schedule = Schedule(options.schedule, options.lr, options.patience, options.lr_every)
        self.evaluation: Evaluation | None = None
        self._interrupted = False
        self._handlers: dict[int, Any] = {}  # the previous handlers of the signals that ask to stop

    def __enter__(self) -> Self:
        with ExitStack() as undone_on_failure:
            if threading.current_thread() is threading.main_thread():  # in Python, no other thread may set handlers
                for number in _asking_to_stop():
                    self._handlers[number] = signal.signal(number, self._interrupt)
                    undone_on_failure.callback(signal.signal, number, self._handlers[number])
            self._open_together(undone_on_failure)
            self._started = time.monotonic() - self.position.seconds
            if self.main:
                self.folder.cut(self.position.metrics)
                if self.position.step == 0:
                    self._save()  # so that a run that stops at once can be resumed
            self._bar = undone_on_failure.enter_context(ProgressBar(self.console, self.position.step, self._last_step))
            self._cleanup = undone_on_failure.pop_all()
        return self

    def epochs(self) -> Iterator[int]:
        """The epochs that are left, counted from 0. The first of them may have begun already."""
        while not self._over:
            yield self.position.epoch

    def batches(self, batches: Generator[Batch, None, None]) -> Iterator[Batch]:
        """The epoch's batches from the run's position on, up to the run's last step."""
        with closing(batches):
            while self.position.step < self._last_step and (batch := next(batches, None)) is not None:
                yield batch

    @property
    def batch_size(self) -> int:
        """The number of images in the next batch, over all processes; 0 at the end of an epoch."""
        return max(0, min(self.options.batch, len(self.dataset.train) - self.position.batch * self.options.batch))

    def after_step(self, loss: float, correct: int) -> None:
        """Record a step: the sum of the losses of this process's images, and how many of them were classified correctly.

        Raises:
            FloatingPointError: the loss is not finite: training has diverged.
            InterruptedRunError: a stop was asked for; a checkpoint has been saved.
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
        """Record the evaluation of this process's share of the held-out images; the learning rate may drop.

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
            f"epoch {self._epoch}, step {self.position.step}: learning rate {self.schedule.rate:g}, "
            f"held-out loss {numbers['held_out_loss']:.4f}, held-out accuracy {numbers['held_out_accuracy']:.2%}"
        )
        if self.batch_size == 0:  # otherwise --max-steps ended the epoch early
            self.schedule.after_epoch(self.position.epoch, self.evaluation.error)
            self.position.epoch += 1
            self.position.batch = 0
        if stop and not self._over:
            self._stop()

    def finish(self, stages: pictures.Stages) -> dict[str, Any]:
        """Save the results, draw pictures (one of them by ``stages``, see ``pictures.py``), print and return the summary.

        The last checkpoint is saved after the results, so that a run that is killed before then saves them when it is resumed.

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
        if self.evaluation is None:  # everything was done before
            summary = resuming.summary_of(self.folder, self.position.step) or summary
        elif self.main:
            self._save_weights()
            files.write_bytes(self.folder.summary, json.dumps(summary, indent=1).encode())
            pictures.keep_confusion(self.folder.path, self.evaluation.confusion, self.dataset)
            self._save()
            self._draw(stages)
        self._print(summary)
        return summary

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._cleanup.close()

    # --- how ----------------------------------------------------------------------------------------------------------

    @property
    def _last_step(self) -> int:
        return resuming.last_step(self.options, self.dataset)

    @property
    def _epoch(self) -> int:
        """The epoch of the last step, from 1."""
        return max(1, -(-self.position.step // resuming.batches(self.options, self.dataset)))

    @property
    def _over(self) -> bool:
        return self.position.step >= self._last_step and self.position.evaluated == self.position.step

    def _seconds(self) -> float:
        return round(time.monotonic() - self._started, 3)

    def _print(self, summary: Mapping[str, Any]) -> None:
        table = optional("rich.table").Table(f"python -m {self.side}.train", "")
        for name, value in summary.items():
            table.add_row(shown(name).replace("_", " "), f"{value:.4g}" if isinstance(value, float) else shown(value))
        self.console.print(shown(self.folder.path))
        self.console.print(table)

    def _note(self, **numbers: float) -> None:
        """Append a line of metrics."""
        if self.main:
            step = self.position.step
            self.folder.note({"step": step, "epoch": self._epoch, **numbers, "seconds": self._seconds()})

    def _save(self) -> None:
        if not self.main:
            return
        self.position.metrics = self.folder.flush()
        self.position.seconds = self._seconds()
        self.position.schedule = self.schedule.state()
        state = {"options": asdict(self.options), "data": resuming.fingerprint(self.dataset), "position": self.position.state()}
        self.checkpoints.save(self.position.step, self.learner.arrays(), state)

    def _save_weights(self) -> None:
        prefix = weights.NETWORK
        arrays = self.learner.arrays()
        network = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        weights.save(self.folder.weights, self.options.variant, self.dataset.classes, network, self.preprocessing)

    def _draw(self, stages: pictures.Stages) -> None:
        """Draw the pictures; a failure costs only pictures."""
        try:
            pictures.keep_example(self.folder.path, self.dataset)
            if not self.options.no_pictures:
                for problem in pictures.draw(self.folder.path, stages)[1]:
                    self.console.print(f"no picture: {shown(problem)}")
        except Exception as error:
            self.console.print(f"no pictures: {shown(error) or type(error).__name__}")

    def _open_together(self, stack: ExitStack) -> None:
        """Open the folder and continue from its contents, or fail in all processes that train together."""
        failure = None
        try:
            if self.options.resume:
                if not self.checkpoints.paths():
                    raise ValueError(
                        f"{self.folder.path}: has no run to continue: {self.checkpoints.folder} holds no checkpoint. "
                        "Leave out --resume to start one"
                    )
                self._own(stack)
                self._resume()
            elif self.main:
                self.folder.require_free()
                self._own(stack)
                self.folder.require_free()  # before it was locked, another run may have used it
        except (ValueError, OSError) as error:
            failure = error
        failed, processes, steps = self.total(np.array([failure is not None, 1, self.position.step], np.float64)).tolist()
        if failure is not None:
            raise failure
        if failed:
            raise ValueError(f"{self.folder.path}: another process of this run could not open it; its own message says why")
        if steps != processes * self.position.step:
            raise ValueError(f"{self.checkpoints.folder}: the processes of this run do not all see the same checkpoints there")

    def _own(self, stack: ExitStack) -> None:
        if self.main:
            stack.enter_context(self.folder.opened(self.console.print))

    def _resume(self) -> None:
        checkpoint = self.checkpoints.newest(self.console.print)
        if checkpoint is None:
            raise ValueError(f"{self.checkpoints.folder}: its checkpoints were removed while the run opened them")
        found, position = resuming.checked(checkpoint, self.options, self.dataset, self.schedule, self.learner.arrays())
        if self.main:
            self.folder.require_metrics(checkpoint.path, position.metrics, position.step)
        self.position = position
        self.schedule.restore(position.schedule)
        self.learner.restore(checkpoint.arrays)
        if not self._over:
            self.console.print(f"{shown(checkpoint.path)}: the run continues after step {position.step}")
            if other := other_than(self.side, checkpoint.arithmetic):
                self.console.print(f"It was saved with {other}, so from here on its last bits differ from a run without a stop")
            return
        again = resuming.evaluated_again(self.options, found, position.step, self.folder)
        if again:
            self.position.evaluated = -1
        what = "its last evaluation is repeated" if again else "nothing is left to do"
        self.console.print(f"{shown(self.folder.path)}: the run ended after {position.step} steps; {what}")

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupted = True
        signal.signal(number, self._handlers[number])  # a second request means: do not wait

    def _stop(self) -> None:
        if self.main:
            self._save()
            self._save_weights()
        out = shlex.quote(shown(self.folder.path))
        raise InterruptedRunError(
            f"stopped after step {self.position.step}; 'python -m {self.side}.train --out {out} --resume' continues"
        )


def _asking_to_stop() -> list[int]:
    """The signals that ask a run to stop: those sent by Ctrl-C, by a system shutdown and by closing the terminal.

    A signal that is ignored from the start stays ignored, as ``nohup`` and shells intend. SIGTERM is an exception, because
    torch_impl itself ignores it around a run (see ``Workers.joined``).
    """
    hang_up = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []  # Windows has no SIGHUP
    heeded = [number for number in (signal.SIGINT, *hang_up) if signal.getsignal(number) is not signal.SIG_IGN]
    return [*heeded, signal.SIGTERM]


def command(train: Callable[[Any], object], options: Options) -> None:
    """Train as a command does: an interrupted run exits with 130, as shells expect after Ctrl-C."""
    with failing_plainly():
        try:
            train(options)
        except InterruptedRunError as stopped:
            tell(f"{stopped}")
            raise SystemExit(INTERRUPTED) from None
