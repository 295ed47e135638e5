"""Requests on the CPU: a slide that fails costs the next one nothing, whatever fails."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mitosis.cpu import CpuUse, OpenVinoNetwork
from mitosis.network import NetworkFile

SHAPE = (1, 3, 64, 64)


@pytest.fixture(scope="module")
def network(root: Path) -> OpenVinoNetwork:
    return OpenVinoNetwork(NetworkFile(root / "model/classifier.onnx", SHAPE), CpuUse(threads=1))


def test_a_batch_that_is_refused_costs_nothing(network: OpenVinoNetwork) -> None:
    good, bad = np.random.default_rng(0).random(SHAPE, np.float32), np.zeros((2, 3, 8, 8), np.float32)
    [(_, expected)] = list(network.map([(0, good)]))
    for _ in range(network._requests + 1):
        with pytest.raises(Exception, match=r"(?i)shape|incompatible"):
            list(network.map([(0, good), (1, bad)]))
    found = list(network.map((i, good) for i in range(3 * network._requests)))
    assert [item for item, _ in found] == list(range(3 * network._requests))
    for _, output in found:
        np.testing.assert_array_equal(output, expected)


def test_one_call_may_feed_on_anothers_results(network: OpenVinoNetwork) -> None:
    batches = np.random.default_rng(1).random((20, *SHAPE), np.float32)
    once = network.map((i, batch) for i, batch in enumerate(batches))
    twice = network.map((i, batches[i]) for i, _ in once)
    for (item, output), (expected_item, expected) in zip(twice, network.map(enumerate(batches)), strict=True):
        assert item == expected_item
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("batches", [["bad", "good", "bad", "good"], ["good"] * 3 + ["bad"] * 6])
def test_nothing_runs_on_after_a_request_has_failed(batches: list[str]) -> None:
    busy: set[Any] = set()

    class Request:
        def __init__(self) -> None:
            self.batch: Any = None

        def start_async(self, inputs: dict[int, Any]) -> None:
            self.batch = inputs[0]
            busy.add(self)

        def wait(self) -> None:
            busy.discard(self)
            if self.batch == "bad":
                raise RuntimeError("bad_alloc")

        def get_output_tensor(self, _: int) -> Any:
            return SimpleNamespace(data=np.array([self.batch]))

    network = OpenVinoNetwork.__new__(OpenVinoNetwork)
    network._compiled, network._requests = SimpleNamespace(create_infer_request=Request), 4  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="bad_alloc"):
        list(network.map(enumerate(batches)))  # type: ignore[arg-type]
    assert not busy
