"""The folder of a run: it belongs to one run at a time, and its files are always whole.

The run that writes to the folder holds an operating-system lock on the metrics file. The system drops the lock when the process
ends, however it ends, so a crash leaves nothing locked.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_from_scratch.runs.checkpoints import Checkpoints
from alexnet_from_scratch.runs.state import NUMBERS
from alexnet_from_scratch.text import shown

PICTURES = ("filters", "activations", "curves", "confusion")
RESULTS = (
    "weights.safetensors",
    "summary.json",
    "confusion.json",
    "example.png",
    *(f"{name}.{suffix}" for name in PICTURES for suffix in ("png", "svg")),
)
KINDS = ({"loss", "accuracy", "lr"}, {*NUMBERS})  # a metrics line of a step, and of an evaluation
LOCKED_OUT = (
    errno.EAGAIN,
    errno.EWOULDBLOCK,
    errno.EACCES,
)  # another process has the lock; any other error means that locks do not work here
FAR = 2**40  # Windows makes locked bytes unreadable to others: lock one past any file's end

_locked: weakref.WeakSet[io.FileIO] = weakref.WeakSet()


class RunFolder:
    """A run's files.

    Args:
        path: the folder.
        checkpoints: those in the folder.
    """

    def __init__(self, path: Path, checkpoints: Checkpoints) -> None:
        self.path, self.checkpoints = path, checkpoints
        self.metrics, self.weights, self.summary = (path / name for name in ("metrics.jsonl", *RESULTS[:2]))

    def require_free(self) -> None:
        """Raise ValueError if a new run would overwrite anything."""
        there = [name for name in RESULTS if os.path.lexists(self.path / name)]
        # A run without a line of metrics and without a checkpoint has not begun.
        if os.path.lexists(self.metrics) and not (self.metrics.is_file() and self.metrics.stat().st_size == 0):
            there.append(self.metrics.name)
        if self.checkpoints.paths():
            raise ValueError(f"{self.path}: already holds a run. Continue it with --resume, or start another with --out DIR")
        if there:
            raise ValueError(
                f"{self.path}: already holds {', '.join(there)}, which a run would replace. Start it elsewhere with --out DIR"
            )

    @contextmanager
    def opened(self, warn: Callable[[str], None]) -> Iterator[None]:
        """Lock other runs out and keep the metrics file open; remove what an earlier run left unfinished.

        Raises:
            BlockingIOError: another run is using the folder.
            OSError: it cannot be written to.
        """
        if os.path.lexists(self.metrics) and self.metrics.exists() and not self.metrics.is_file():
            raise FileExistsError(errno.EEXIST, "must be a file", str(self.metrics))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not os.access(self.path, os.W_OK):  # a resumed run would only find out at its end, when it writes its weights
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))
            opened = open(self.metrics, "ab", buffering=0)  # noqa: SIM115  # the next statement closes it
        except OSError as error:
            what = f"{error.strerror}. A run must be able to write to its folder; choose another one with --out DIR"
            raise OSError(error.errno, what, error.filename) from error
        with opened as self._file:
            self._lock(warn)
            names = [self.path / f".{name}.unfinished" for name in RESULTS]
            for left in [*names, *self.checkpoints.folder.glob(".step-*.unfinished")]:
                left.unlink(missing_ok=True)
            yield

    def cut(self, length: int) -> None:
        """Cut the metrics file to this many bytes."""
        self._length = length
        with self._naming_metrics():
            self._file.truncate(length)

    def note(self, line: dict[str, Any]) -> None:
        """Append a line of metrics, whole or not at all.

        Raises:
            OSError: it cannot be written; the message names the file and the last checkpoint.
        """
        rest = json.dumps(line).encode() + b"\n"
        length = self._length + len(rest)
        with self._naming_metrics():
            while rest:
                rest = rest[self._file.write(rest) :]
        self._length = length

    def flush(self) -> int:
        """Return the metrics' length once they are on disk.

        Raises:
            OSError: the disk is full, or the file is gone: another run may be writing to the folder.
        """
        with self._naming_metrics():
            if not os.path.samestat(os.fstat(self._file.fileno()), os.stat(self.metrics)):
                raise FileNotFoundError(errno.ENOENT, "was replaced by another file while this run wrote to it")
            os.fsync(self._file.fileno())
        return self._length

    def require_metrics(self, checkpoint: Path, length: int, steps: int) -> None:
        """Raise ValueError unless the metrics are those a checkpoint was saved with: a line for each step, in order."""
        if not self.metrics.is_file():
            raise ValueError(f"{self.metrics}: must be a file with the {length} bytes it had when {checkpoint.name} was saved")
        with self.metrics.open("rb") as file:
            content = file.read(min(length, os.fstat(file.fileno()).st_size))  # Python makes room for all it is to read
        if len(content) < length:
            raise ValueError(
                f"{self.metrics}: must have at least the {length} bytes it had when {checkpoint.name} was saved, "
                f"got {len(content)}: lines are lost"
            )
        lines = metrics_of(self.metrics, content)
        if content[-1:] not in (b"", b"\n") or [line["step"] for line in lines if "loss" in line] != list(range(1, steps + 1)):
            raise ValueError(
                f"{self.metrics}: its first {length} bytes must have one line for each of the {steps} steps before "
                f"{checkpoint.name}, and do not"
            )

    def _lock(self, warn: Callable[[str], None]) -> None:
        try:
            _lock(self._file.fileno())
        except OSError as error:
            if error.errno in LOCKED_OUT:
                what = "another run is writing to this folder. Wait until it ends, or choose another folder with --out DIR"
                raise BlockingIOError(errno.EAGAIN, what, str(self.path)) from error
            warn(f"{shown(self.path)}: cannot be locked ({error.strerror}): make sure that no other run writes to it")
        else:
            _locked.add(self._file)

    @contextmanager
    def _naming_metrics(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._length)  # half a line is worse than none
            raise self.checkpoints.failure(self.metrics, error) from error


def metrics_of(path: Path, content: bytes) -> list[dict[str, Any]]:
    """The lines of a metrics file.

    Raises:
        ValueError: one of them is damaged; the message says which.
    """
    lines = []
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = json.loads(text)
            if not isinstance(line, dict) or not all(isinstance(value, int | float) for value in line.values()):
                raise ValueError("it is not an object of numbers")
            if "step" not in line or not any(kind <= line.keys() for kind in KINDS):
                raise ValueError("it describes neither a step nor an evaluation")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {number} is damaged: {error}") from error
        lines.append(line)
    return lines


def _lock(descriptor: int) -> None:
    """Lock the file for this process, or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _let_go() -> None:
    """In a forked child, close the locked files: the lock is the parent's and must not outlive the parent."""
    for file in _locked:
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
