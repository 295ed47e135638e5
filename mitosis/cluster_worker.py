"""What a worker process of a Dask cluster does with a slide: load the client's model, once, and fill the folder."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import cv2

from mitosis import __version__
from mitosis.bundle import Description, read_bundle
from mitosis.config import Config
from mitosis.cpu import CpuUse, Precision
from mitosis.errors import BundleError, MitosisError, RuntimeUnavailableError
from mitosis.gpu import Device
from mitosis.pipeline import Model, Progress, load_model
from mitosis.results import Options, attempt
from mitosis.summary import Summary

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
