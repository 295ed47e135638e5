"""Decisions about GPUs, with fakes: no machine of ours has one."""

from pathlib import Path

import pytest

from mitosis.errors import RuntimeUnavailableError
from mitosis.gpu import CUDA, TENSORRT, Device, Gpu, build_engine, choose_device, engine_file

T4 = Gpu(frozenset({TENSORRT, CUDA}), "7.5", "10.9.0.34")
CUDA_ONLY = Gpu(frozenset({CUDA}), "7.5")
NOTHING = Gpu()


@pytest.fixture
def networks(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "detector.onnx", tmp_path / "classifier.onnx"]
    (tmp_path / "engines").mkdir()
    return files


def add_engines(networks: list[Path], gpu: Gpu) -> None:
    for network in networks:
        engine_file(network, gpu).write_bytes(b"engine")


def test_auto_without_a_gpu_is_the_cpu(networks: list[Path]) -> None:
    assert choose_device(Device.AUTO, NOTHING, networks) is Device.CPU


def test_auto_takes_tensorrt_only_with_fitting_engines(networks: list[Path]) -> None:
    assert choose_device(Device.AUTO, T4, networks) is Device.CUDA
    add_engines(networks[:1], T4)
    assert choose_device(Device.AUTO, T4, networks) is Device.CUDA
    add_engines(networks, T4)
    assert choose_device(Device.AUTO, T4, networks) is Device.TENSORRT


@pytest.mark.parametrize("other", [Gpu(T4.providers, "8.6", "10.9.0.34"), Gpu(T4.providers, "7.5", "10.12.0.1")])
def test_another_cards_engine_is_not_used(networks: list[Path], other: Gpu) -> None:
    add_engines(networks, other)
    assert choose_device(Device.AUTO, T4, networks) is Device.CUDA
    with pytest.raises(RuntimeUnavailableError, match=r"sm75_trt10\.9.*build-engine"):
        choose_device(Device.TENSORRT, T4, networks)


@pytest.mark.parametrize(("asked", "gpu"), [(Device.CUDA, NOTHING), (Device.TENSORRT, CUDA_ONLY)])
def test_what_is_asked_for_is_never_replaced(networks: list[Path], asked: Device, gpu: Gpu) -> None:
    with pytest.raises(RuntimeUnavailableError, match=f"--device {asked}"):
        choose_device(asked, gpu, networks)


def test_cpu_is_the_cpu_even_beside_a_gpu(networks: list[Path]) -> None:
    add_engines(networks, T4)
    assert choose_device(Device.CPU, T4, networks) is Device.CPU


@pytest.mark.parametrize("gpu", [NOTHING, CUDA_ONLY])
def test_no_engine_without_tensorrt(networks: list[Path], gpu: Gpu) -> None:
    with pytest.raises(RuntimeUnavailableError):
        build_engine(networks[0], (1, 3, 512, 512), gpu)
