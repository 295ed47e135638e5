"""Requests on the CPU: none is lost by a slide that fails, whatever fails."""

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


def test_a_batch_that_is_refused_costs_no_request(network: OpenVinoNetwork) -> None:
    good, bad = np.random.default_rng(0).random(SHAPE, np.float32), np.zeros((2, 3, 8, 8), np.float32)
    count, [(_, expected)] = len(network._idle), list(network.map([(0, good)]))
    for _ in range(count + 1):
        with pytest.raises(Exception, match=r"(?i)shape|incompatible"):
            list(network.map([(0, good), (1, bad)]))
        assert len({id(request) for request in network._idle}) == len(network._idle) == count
    found = list(network.map((i, good) for i in range(3 * count)))
    assert [item for item, _ in found] == list(range(3 * count))
    for _, output in found:
        np.testing.assert_array_equal(output, expected)


def test_a_request_that_fails_is_given_back_and_so_are_those_behind_it() -> None:
    class Request:
        def __init__(self) -> None:
            self.batch: Any = None

        def start_async(self, inputs: dict[int, Any]) -> None:
            self.batch = inputs[0]

        def wait(self) -> None:
            if self.batch == "bad":
                raise RuntimeError("bad_alloc")

        def get_output_tensor(self, _: int) -> Any:
            return SimpleNamespace(data=np.array([self.batch]))

    network = OpenVinoNetwork.__new__(OpenVinoNetwork)
    network._idle = [Request() for _ in range(4)]
    for batches in (["bad", "good", "bad", "good"], ["good"] * 3 + ["bad"] * 6):
        with pytest.raises(RuntimeError, match="bad_alloc"):
            list(network.map(enumerate(batches)))  # type: ignore[arg-type]
        assert len(set(network._idle)) == 4
