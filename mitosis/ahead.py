"""Work done ahead of its use: a bounded queue between one step of the pipeline and the next."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar


def usable_cores() -> int:
    """Return how many cores this process may use: fewer than the machine has where SLURM or taskset allots them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Codecs let other threads run meanwhile, and the networks need most of the cores themselves.
THREADS = max(2, min(4, usable_cores() // 2))
WAITING = 4  # results a thread may be ahead by

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def ahead(function: Callable[[Argument], Result], arguments: Iterable[Argument]) -> Generator[Result, None, None]:
    """Yield ``function`` of each argument, in order, while threads work on those that come next.

    At most ``THREADS * WAITING`` results wait. An exception of ``function`` is raised where its result would have been.
    Closing the generator gives up what has not begun and waits for the rest.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > THREADS * WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
