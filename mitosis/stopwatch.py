"""Where a slide's seconds go, without the steps knowing of each other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mitosis.network import Batch, Item, Network, Output


class Stopwatch:
    """Adds up seconds by step. A step inside another stops the outer one's clock, so that no second counts twice.

    Threads are timed apart: steps that run side by side add up to more than the time that passes.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        self._here = threading.local()

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time what is done inside."""
        running: list[list[float]] = self._here.__dict__.setdefault("running", [])
        running.append([0.0])  # seconds of inner steps
        began = time.perf_counter()
        try:
            yield
        finally:
            passed = time.perf_counter() - began
            inner = running.pop()[0]
            if running:
                running[-1][0] += passed
            with self._lock:
                self.seconds[step] = self.seconds.get(step, 0.0) + passed - inner

    def total(self) -> float:
        """Return the seconds since the watch was made."""
        return time.perf_counter() - self._started


class TimedNetwork:
    """A network whose time counts for a step: until a result is there, without the making of what it is given."""

    def __init__(self, network: Network, watch: Stopwatch, step: str) -> None:
        self.name = network.name
        self._network, self._watch, self._step = network, watch, step

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        """See ``Network.map``."""
        results = iter(self._network.map(self._given(items)))
        while True:
            with self._watch(self._step):
                try:
                    result = next(results)
                except StopIteration:
                    return
            yield result

    def _given(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Batch]]:
        source = iter(items)
        while True:
            with self._watch("candidates"):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item
