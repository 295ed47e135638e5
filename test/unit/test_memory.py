"""What fits into a limited memory, and how its end is said."""

import resource
from pathlib import Path

import numpy as np
import openvino
import pytest

from mitosis import cpu, memory
from mitosis.cpu import CpuUse, OpenVinoNetwork
from mitosis.errors import InputError, MemoryFullError
from mitosis.memory import is_exhausted, limit_bytes, requests_that_fit, said_of
from mitosis.network import NetworkFile

GIB = 2**30


@pytest.mark.parametrize(
    ("limit", "cores", "expected"),
    [(None, 64, 64), (7 * GIB, 4, 4), (3 * GIB, 4, 4), (3 * GIB, 64, 12), (GIB, 4, 2), (GIB // 2, 4, 1)],
)
def test_requests_shrink_with_the_memory(limit: int | None, cores: int, expected: int) -> None:
    assert requests_that_fit(limit, cores) == expected


def test_a_network_takes_no_more_requests_than_fit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "limit_bytes", lambda: 700 * 2**20)
    assert CpuUse().hints(openvino.Core())["PERFORMANCE_HINT_NUM_REQUESTS"] == 1
    x = np.zeros((1, 3, 64, 64), np.float32)
    results = list(OpenVinoNetwork(NetworkFile(root / "model/classifier.onnx", x.shape)).map((i, x) for i in range(3)))
    assert [i for i, _ in results] == [0, 1, 2]


def test_the_strictest_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "max", tmp_path / "number", tmp_path / "absent"]
    files[0].write_text("max\n")
    files[1].write_text(f"{4 * GIB}\n")
    monkeypatch.setattr(memory, "CGROUP_FILES", files)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (3 * GIB, resource.RLIM_INFINITY))
    assert limit_bytes() == 3 * GIB
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert limit_bytes() == 4 * GIB
    monkeypatch.setattr(memory, "CGROUP_FILES", files[:1])
    assert limit_bytes() is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [(MemoryError(), True), (RuntimeError("std::bad_alloc"), True), (RuntimeError("no such layer"), False)],
)
def test_an_exhausted_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_exhausted(error) is expected
    try:
        raise InputError("a.mha: is not readable") from error
    except InputError as wrapped:
        assert is_exhausted(wrapped) is expected


def test_the_image_is_named() -> None:
    with pytest.raises(MemoryFullError, match=r"a\.mha: the memory is full.*tiled TIFF"), said_of(Path("a.mha")):
        raise MemoryError
    with pytest.raises(InputError, match="other"), said_of(Path("a.mha")):
        raise InputError("other")
