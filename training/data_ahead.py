"""Work done by threads ahead of whoever takes the results: Pillow and NumPy let other threads run while they compute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def ahead(work: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int) -> Generator[Result, None, None]:
    """``map(work, jobs)`` by threads that run ahead of whoever takes the results, by two jobs a thread at most.

    Results come in the jobs' order. An error in ``work`` is raised where its result is due. When the generator is closed or
    forgotten, what has not begun is dropped and what has is waited for: no thread outlives it.
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
