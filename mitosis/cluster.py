"""Runs slides on a Dask distributed cluster: one model per worker process, one slide at a time in each.

Dask starts a slide again whose worker died (three times, its setting ``distributed.scheduler.allowed-failures``). How
many slides a process gets is not left to it: a worker of n threads offers n cores, and one slide uses them all. So each
process is handed one slide, and the next when that is done.

The workers read the slides and write the folders themselves: paths must mean the same on every machine.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import cv2

from mitosis import __version__
from mitosis.bundle import Description, read_bundle
from mitosis.config import Config, one_line
from mitosis.cpu import CpuUse, Precision
from mitosis.errors import BundleError, InputError, MitosisError, RuntimeUnavailableError
from mitosis.gpu import Device
from mitosis.inputs import check_names
from mitosis.pipeline import Model, Progress, load_model
from mitosis.provenance import RUN_NAME
from mitosis.results import Options, attempt
from mitosis.summary import Summary, begin, concluded
from mitosis.terminal import progress_bar

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

ADDRESS = re.compile(r"((tcp|tls)://)?[^/\s]+:\d+")
CONNECT_S = 10  # for the scheduler to answer
POLL_S = 0.5
REPORT_S = 0.5  # between two reports of a worker's tiles


@dataclass(frozen=True)
class Recipe:
    """What a worker needs to load the client's very model, and to notice when it cannot."""

    folder: Path  # absolute, of the bundle
    description: Description
    device: Device
    config: Config | None
    precision: Precision = Precision.AUTO
    version: str = __version__
    cache: Path | None = None

    @classmethod
    def of(
        cls,
        folder: Path,
        device: Device,
        config: Config | None,
        precision: Precision = Precision.AUTO,
        cache: Path | None = None,
    ) -> Self:
        """Describe a bundle that lies here; raises BundleError."""
        description = read_bundle(folder).description
        return cls(folder.absolute(), description, device, config, precision, cache=cache.absolute() if cache else None)

    def load(self, threads: int) -> Model:
        """Load the model; raises BundleError, RuntimeUnavailableError."""
        if self.version != __version__:
            raise RuntimeUnavailableError(
                f"runs mitosis {__version__} and not {self.version}; install the same version"
            )
        model = load_model(self.folder, self.device, self.config, CpuUse(self.precision, threads, self.cache))
        if model.bundle.description != self.description:
            raise BundleError(f"{self.folder}: holds another bundle there; copy the same to every machine")
        cv2.setNumThreads(threads)
        return model


class Process:
    """What a worker process keeps between slides: the model it has loaded, and the lock that lets one slide in."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._recipe: Recipe | None = None
        self._model: Model | None = None

    def model(self, recipe: Recipe, threads: int) -> Model:
        """Return the model of a recipe, loaded once."""
        if self._model is None or recipe != self._recipe:
            self._model = recipe.load(threads)
            self._recipe = recipe
        return self._model


this_process = Process()


def detect_on_worker(
    path: Path, output: Path, recipe: Recipe, options: Options, overwrite: bool, topic: str
) -> Summary:
    """Fill one slide's folder; runs in a worker. ``topic`` is where the client listens for its progress."""
    from distributed import get_worker

    worker = get_worker()
    with this_process.lock:
        try:
            model = this_process.model(recipe, worker.state.nthreads)
        except MitosisError as error:
            return Summary(path.name, error=type(error)(f"worker {worker.address}: {error}"))

        name = ascii(path.name)  # Dask's messages hold no name that is not UTF-8

        def tell(done: int, total: int) -> None:
            worker.log_event(topic, {"slide": name, "done": done, "total": total})

        return attempt(path, output, model, options, overwrite, seldom(tell))


def seldom(progress: Progress) -> Progress:
    """Return a callback that passes on one call in ``REPORT_S`` seconds, and the last."""
    last = -REPORT_S

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last >= REPORT_S:
            last = time.monotonic()
            progress(done, total)

    return tell


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
