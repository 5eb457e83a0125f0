"""The parent's end of the pipes to other processes, whose end is ``serve.py``."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

POOLS = (
    "SCRATCH_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NPROC",  # the last is XLA's
)  # fmt: skip


class WorkerError(RuntimeError):
    """What went wrong in another process: the last line is the exception."""

    @property
    def reason(self) -> str:
        """The exception alone, without the traceback."""
        return str(self).strip().splitlines()[-1][:300]


class Process:
    """The object ``kind(*arguments)`` in its own process, where every thread pool has ``threads`` threads."""

    def __init__(self, threads: int, kind: Callable[..., Any], *arguments: Any, **environment: str) -> None:
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it; what is printed matters only if the process dies
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.measure.serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            # Every pool is set before its library is loaded: some read this only once.
            env={**os.environ, **dict.fromkeys(POOLS, str(threads)), **environment},
            start_new_session=True,  # the parent handles Ctrl-C
        )
        self._send("", kind, *arguments)  # its libraries load while the caller starts other processes; ready() awaits the answer
        self.loading = True

    def ask(self, command: str, *arguments: Any) -> Any:
        """Send a command and wait for its answer.

        Raises:
            WorkerError: the command raised, or the process is gone.
        """
        self.ready()
        self._send(command, *arguments)
        return self._receive()

    def ready(self) -> None:
        """Wait until the object exists and its libraries are loaded."""
        if self.loading:
            self.loading = False
            self._receive()

    def _send(self, command: str, *arguments: Any) -> None:
        """Send a command; :meth:`_receive` returns the answer."""
        assert self.process.stdin is not None
        try:
            pickle.dump((command, arguments), self.process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self.process.stdin.flush()
        except BrokenPipeError:
            self._gone()

    def _receive(self) -> Any:
        """The answer to the last command."""
        assert self.process.stdout is not None
        try:
            ok, answer = pickle.load(self.process.stdout)
        except EOFError:
            self._gone()
        if not ok:
            raise WorkerError(answer)
        return answer

    def _gone(self) -> None:
        code = self.process.wait()
        self.said.seek(0)
        said = self.said.read().decode(errors="replace")
        raise WorkerError(f"{said}\nthe process ended with code {code} (-9: it was killed, most likely for memory)") from None

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.said.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
