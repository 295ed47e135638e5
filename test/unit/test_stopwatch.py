"""No second counts twice, and a network's time is without that of what feeds it."""

import threading
import time
from collections.abc import Iterable, Iterator

import numpy as np
import pytest

from mitosis.network import Batch, Item
from mitosis.stopwatch import Stopwatch, TimedNetwork


def test_inner_steps_stop_the_outer_clock() -> None:
    watch = Stopwatch()
    with watch("outer"):
        time.sleep(0.05)
        with watch("inner"):
            time.sleep(0.1)
    assert watch.seconds["inner"] > 0.09
    assert watch.seconds["outer"] > 0.04
    assert watch.seconds["inner"] + watch.seconds["outer"] <= watch.total()


def test_threads_are_timed_apart() -> None:
    watch = Stopwatch()

    def work() -> None:
        with watch("reading"):
            time.sleep(0.1)

    with watch("waiting"):
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert watch.seconds["reading"] > 0.27
    assert watch.seconds["waiting"] > 0.09


class Slow:
    """A network that takes its time."""

    name = "slow"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Batch]]:
        for item, batch in items:
            time.sleep(0.02)
            yield item, batch + 1


def test_a_network_is_timed_without_its_source() -> None:
    watch = Stopwatch()

    def source() -> Iterator[tuple[int, np.ndarray]]:
        for index in range(5):
            time.sleep(0.04)
            yield index, np.full(1, index, np.float32)

    results = [(item, float(batch[0])) for item, batch in TimedNetwork(Slow(), watch, "network").map(source())]
    assert results == [(index, index + 1.0) for index in range(5)]
    assert watch.seconds["network"] > 0.09
    assert watch.seconds["candidates"] > 0.19
    assert sum(watch.seconds.values()) == pytest.approx(watch.total(), rel=0.2)
