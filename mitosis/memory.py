"""How much memory this process may take, what fits into it, and how an exhausted memory is recognised.

Grand Challenge states a job's memory as ``RLIMIT_DATA``. Going past it fails an allocation, which every library reports
in its own way; going past a container's limit would end the process without a word, so that limit counts too.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mitosis.errors import MemoryFullError

CGROUP_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
BASE_BYTES = 600 * 2**20  # the program, both networks' weights and a challenge region, decoded
REQUEST_BYTES = 200 * 2**20  # one request of both networks with the tiles that wait for it; 120 MiB were measured
MINIMUM_BYTES = 640 * 2**20  # below, libraries may end the process instead of failing
SIGNS = ("bad_alloc", "can't alloc", "failed to allocate", "cannot allocate", "out of memory")
THREAD_SIGNS = ("can't start new thread", "resource temporarily unavailable")  # a thread's stack is memory too


def limit_bytes() -> int | None:
    """Return the stricter of the process's and the container's limit, or None without either."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [soft] if soft != resource.RLIM_INFINITY else []
    for file in CGROUP_FILES:
        try:
            limits.append(int(file.read_text()))  # "max", or a number beyond any memory, where there is none
        except (OSError, ValueError):
            continue
    return min((limit for limit in limits if limit < 2**60), default=None)


def requests_that_fit(limit: int | None, cores: int | None = None) -> int:
    """Return how many requests of a network may run at once: one a core, fewer where the memory is short, but one."""
    cores = cores or len(os.sched_getaffinity(0))
    return cores if limit is None else max(1, min(cores, (limit - BASE_BYTES) // REQUEST_BYTES))


def check_minimum() -> None:
    """Raise MemoryFullError where both networks cannot even be loaded."""
    limit = limit_bytes()
    if limit is not None and limit < MINIMUM_BYTES:
        raise MemoryFullError(f"{message()}: {MINIMUM_BYTES / 2**30:.1f} GiB at least, 3 GiB for the challenge")


def is_exhausted(error: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, is an allocation that failed."""
    while error is not None:
        if isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in SIGNS + THREAD_SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def said_of(path: Path) -> Iterator[None]:
    """Raise MemoryFullError, naming the image, where the memory does not suffice for what happens inside."""
    try:
        yield
    except Exception as error:
        if is_exhausted(error):
            raise MemoryFullError(f"{path}: {message()}, or convert the image to a tiled TIFF") from error
        raise


def message() -> str:
    """Say that the memory is full, and what to do."""
    limit = limit_bytes()
    allowed = f"; this process may take {limit / 2**30:.1f} GiB" if limit else ""
    return f"the memory is full{allowed}; give it more"
