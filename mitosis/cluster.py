"""Runs slides on a Dask distributed cluster, one at a time in each worker process; this side of it.

Dask starts a slide again whose worker died (three times, its setting ``distributed.scheduler.allowed-failures``). How
many slides a process gets is not left to it: a worker of n threads offers n cores, and one slide uses them all. So each
process is handed one slide, and the next when that is done.

The workers read the slides and write the folders themselves: paths must mean the same on every machine.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitosis.cluster_worker import Recipe, detect_on_worker
from mitosis.config import one_line
from mitosis.errors import InputError, RuntimeUnavailableError
from mitosis.inputs import check_names
from mitosis.provenance import RUN_NAME
from mitosis.results import Options
from mitosis.summary import Summary, begin, concluded
from mitosis.terminal import progress_bar

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

ADDRESS = re.compile(r"((tcp|tls)://)?[^/\s]+:\d+")
CONNECT_S = 10  # for the scheduler to answer
POLL_S = 0.5


def process_on_cluster(
    scheduler: str, paths: Sequence[Path], output: Path, recipe: Recipe, options: Options, overwrite: bool = False
) -> list[Summary]:
    """Do what ``results.process_slides`` does, on the workers of the cluster at ``scheduler`` (tcp://host:port).

    Raises what that raises, and RuntimeUnavailableError where the scheduler cannot be reached or is lost.
    """
    check_names(paths)
    begin(output)
    output = output.absolute()
    topic = f"mitosis-{uuid.uuid4()}"

    def submit(client: Client, path: Path, worker: str) -> Future:
        # Not tied to the worker: when it dies, Dask shall start the slide on another. Never taken from a cache.
        where = {"workers": [worker], "allow_other_workers": True, "pure": False}
        return client.submit(detect_on_worker, path, output, recipe, options, overwrite, topic, **where)

    with connect(scheduler) as client, progress_bar() as bar:
        slides = bar.add_task("slides", total=len(paths))
        tiles = bar.add_task("tiles", total=None)
        client.subscribe_topic(topic, tile_sum(lambda done, total: bar.update(tiles, completed=done, total=total)))
        found: dict[str, Summary] = {}
        try:
            for summary in spread(client, [path.absolute() for path in paths], submit):
                found[summary.name] = summary
                bar.advance(slides)
                if summary.error:
                    log.error("%s", summary.error)
        except (OSError, CancelledError) as error:
            raise RuntimeUnavailableError(
                f"{scheduler}: the scheduler was lost; finished slides are kept, start again to go on"
            ) from error
    summaries = [found[path.name] for path in paths]
    warn_of_unseen(output, paths, summaries)
    return concluded(summaries, output)


def connect(scheduler: str) -> Client:
    """Connect to a scheduler; raises RuntimeUnavailableError where Dask is not installed or nobody answers.

    ``scheduler`` is its address, or the file that `dask scheduler --scheduler-file` wrote. Raises InputError for what
    is neither: Dask's client would not end cleanly after it.
    """
    if scheduler.endswith(".json"):
        scheduler = read_address(Path(scheduler))
    if not ADDRESS.fullmatch(scheduler):
        raise InputError(f"--scheduler {scheduler}: is no address of a Dask scheduler; give tcp://host:port")
    try:
        from distributed import Client
    except ImportError as error:
        raise RuntimeUnavailableError("--scheduler needs more packages; pip install 'mitosis[cohort]'") from error
    try:
        return Client(scheduler, timeout=CONNECT_S, set_as_default=False)
    except OSError as error:  # TimeoutError too
        raise RuntimeUnavailableError(
            f"--scheduler {scheduler}: no Dask scheduler answers there ({one_line(error)}); start one with "
            "`dask scheduler`, or mend the address"
        ) from error


def read_address(file: Path) -> str:
    """Return the address in a scheduler file, waiting a little for it to be written; raises InputError."""
    patience = time.monotonic() + CONNECT_S
    while True:
        try:
            return str(json.loads(file.read_text())["address"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if time.monotonic() > patience:
                raise InputError(
                    f"--scheduler {file}: is no scheduler file ({one_line(error)}); start the scheduler with "
                    f"`dask scheduler --scheduler-file {file}`"
                ) from error
        time.sleep(POLL_S)


def spread(client: Client, paths: Sequence[Path], submit: Callable[[Client, Path, str], Future]) -> Iterator[Summary]:
    """Hand each worker process one slide at a time and yield the summaries as they come in.

    Workers may come and go. Raises OSError or CancelledError when the scheduler is lost.
    """
    waiting, running = deque(paths), dict[Any, tuple[Path, str]]()
    told = False
    while waiting or running:
        if waiting:
            workers = set(client.nthreads())
            if not workers and not told:
                log.info("no worker has joined the cluster yet; waiting")
                told = True
            for worker in sorted(workers - {taken for _, taken in running.values()})[: len(waiting)]:
                path = waiting.popleft()
                running[submit(client, path, worker)] = path, worker
        time.sleep(POLL_S)
        for future in [future for future in running if future.done()]:
            yield outcome(future, running.pop(future)[0])


def outcome(future: Future, path: Path) -> Summary:
    """Return what a slide came to; a worker's death or a broken installation becomes an error of the slide.

    Raises CancelledError when the scheduler was lost.
    """
    from distributed.scheduler import KilledWorker

    try:
        summary: Summary = future.result()
    except CancelledError:
        raise
    except KilledWorker as error:
        reason = f"{error.allowed_failures + 1} workers died on it; give them more memory, and see their logs"
        return Summary(path.name, error=RuntimeUnavailableError(f"{path}: {reason}"))
    except Exception as error:  # whatever a foreign installation raises
        reason = f"{type(error).__name__} on its worker ({one_line(error)[:200]})"
        advice = "install the same mitosis on the scheduler and every worker"
        return Summary(path.name, error=RuntimeUnavailableError(f"{path}: {reason}; {advice}"))
    return summary


def tile_sum(update: Callable[[int, int], None]) -> Callable[[tuple[float, dict[str, Any]]], None]:
    """Return a handler of the workers' reports that passes on the tiles of all slides begun so far."""
    slides: dict[str, tuple[int, int]] = {}

    def handle(event: tuple[float, dict[str, Any]]) -> None:
        told = event[1]
        slides[told["slide"]] = told["done"], told["total"]
        done, total = zip(*slides.values(), strict=True)
        update(sum(done), sum(total))

    return handle


def warn_of_unseen(output: Path, paths: Sequence[Path], summaries: Sequence[Summary]) -> None:
    """Warn where workers wrote folders that are not to be seen here."""
    unseen = [
        path.name
        for path, summary in zip(paths, summaries, strict=True)
        if not summary.error and not (output / path.stem / RUN_NAME).exists()
    ]
    if unseen:
        log.warning("%s: %d results are not seen here; is it on a disk that all machines share?", output, len(unseen))
