"""Work done by threads ahead of the consumer: Pillow and NumPy let other threads run while they compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def ahead(work: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int) -> Generator[Result, None, None]:
    """``map(work, jobs)`` in threads. They run ahead of the consumer by at most two jobs per thread.

    Results come in the order of the jobs. An error in ``work`` is raised when the result of that job is due. When the generator
    is closed or garbage-collected, it drops the jobs that have not begun and waits for the others. No thread outlives it.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="data") as pool:
        try:
            for job in jobs:
                pending.append(pool.submit(work, job))
                if len(pending) == 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
