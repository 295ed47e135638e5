"""Decisions about GPUs, with fakes: no machine of ours has one. Where ONNX Runtime falls back, the real one does."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from mitosis import gpu as gpu_module
from mitosis import runtime
from mitosis.errors import RuntimeUnavailableError
from mitosis.gpu import CUDA, TENSORRT, Device, Gpu, build_engine, devices_to_try, engine_file, find_card, find_gpu
from mitosis.network import NetworkFile
from mitosis.runtime import OnnxRuntimeNetwork, load_networks

T4 = Gpu(frozenset({TENSORRT, CUDA}), "7.5", "10.9.0.34", "Tesla T4")
CUDA_ONLY = Gpu(frozenset({CUDA}), "7.5", card="Tesla T4")
NOTHING = Gpu()


@pytest.fixture
def networks(tmp_path: Path) -> list[NetworkFile]:
    (tmp_path / "engines").mkdir()
    found = [
        NetworkFile(tmp_path / "detector.onnx", (1, 3, 512, 512)),
        NetworkFile(tmp_path / "classifier.onnx", (32, 3, 64, 64)),
    ]
    for network in found:
        network.file.write_bytes(b"weights")
    return found


def add_engines(networks: list[NetworkFile], gpu: Gpu) -> None:
    for network in networks:
        engine_file(network, gpu).write_bytes(b"engine")


def test_auto_without_a_gpu_is_the_cpu(networks: list[NetworkFile]) -> None:
    assert devices_to_try(Device.AUTO, NOTHING, networks) == [Device.CPU]


def test_auto_takes_tensorrt_only_with_fitting_engines(networks: list[NetworkFile]) -> None:
    assert devices_to_try(Device.AUTO, T4, networks) == [Device.CUDA, Device.CPU]
    add_engines(networks[:1], T4)
    assert devices_to_try(Device.AUTO, T4, networks) == [Device.CUDA, Device.CPU]
    add_engines(networks, T4)
    assert devices_to_try(Device.AUTO, T4, networks) == [Device.TENSORRT, Device.CUDA, Device.CPU]


@pytest.mark.parametrize("other", [Gpu(T4.providers, "8.6", "10.9.0.34"), Gpu(T4.providers, "7.5", "10.12.0.1")])
def test_another_cards_engine_is_not_used(networks: list[NetworkFile], other: Gpu) -> None:
    add_engines(networks, other)
    assert devices_to_try(Device.AUTO, T4, networks)[0] is Device.CUDA
    with pytest.raises(RuntimeUnavailableError, match=r"sm75_trt10\.9.*build-engine"):
        devices_to_try(Device.TENSORRT, T4, networks)


def test_an_engine_of_other_weights_or_another_shape_is_not_used(networks: list[NetworkFile]) -> None:
    add_engines(networks, T4)
    first, other = networks
    assert devices_to_try(Device.AUTO, T4, [first._replace(shape=(4, 3, 512, 512)), other])[0] is Device.CUDA
    first.file.write_bytes(b"weights of a longer training")
    assert devices_to_try(Device.AUTO, T4, networks)[0] is Device.CUDA


@pytest.mark.parametrize(("asked", "gpu"), [(Device.CUDA, NOTHING), (Device.TENSORRT, CUDA_ONLY)])
def test_what_is_asked_for_is_never_replaced(networks: list[NetworkFile], asked: Device, gpu: Gpu) -> None:
    with pytest.raises(RuntimeUnavailableError, match=f"--device {asked}"):
        devices_to_try(asked, gpu, networks)


def test_cpu_is_the_cpu_even_beside_a_gpu(networks: list[NetworkFile]) -> None:
    add_engines(networks, T4)
    assert devices_to_try(Device.CPU, T4, networks) == [Device.CPU]


def test_the_card_is_asked_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_card() == (None, None)
    assert find_gpu() == NOTHING
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'Tesla T4, 7.5'\necho 'NVIDIA A10G, 8.6'\n")
    program.chmod(0o755)
    assert find_card() == ("Tesla T4", "7.5")
    program.write_text("#!/bin/sh\necho 'no devices were found'\n")
    assert find_card() == (None, None)


def real_classifier(root: Path) -> NetworkFile:
    return NetworkFile(root / "model/classifier.onnx", (2, 3, 64, 64))


def test_a_silent_fall_back_is_noticed(root: Path) -> None:
    """The real ONNX Runtime, which has no CUDA here, takes the CPU without an error."""
    with pytest.raises(RuntimeUnavailableError, match="fell back to CPUExecutionProvider"):
        OnnxRuntimeNetwork(real_classifier(root), Device.CUDA, CUDA_ONLY)


def test_auto_goes_on_to_what_works(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A card whose driver is too old, say: the case is processed on the CPU, and the log says why."""
    monkeypatch.setattr(runtime, "find_gpu", lambda: CUDA_ONLY)
    with caplog.at_level("INFO"):
        (network,) = load_networks([real_classifier(root)], Device.AUTO)
    assert network.name.startswith("OpenVINO")
    assert "fell back" in caplog.text
    assert f"runtime: {network.name}" in caplog.text
    with pytest.raises(RuntimeUnavailableError, match="fell back"):
        load_networks([real_classifier(root)], Device.CUDA)


class FakeSession:
    """Stands for ONNX Runtime's session on a GPU; ``made`` records what it was asked for."""

    made: ClassVar[list[tuple[str, Any]]] = []

    def __init__(self, path: str, providers: list[Any]) -> None:
        self.made.append((path, providers[0]))
        self.provider = providers[0]
        if isinstance(self.provider, tuple):  # with options: an engine is built
            self.provider, options = self.provider
            Path(options["trt_ep_context_file_path"]).write_bytes(b"engine")

    def get_providers(self) -> list[str]:
        return [self.provider, "CPUExecutionProvider"]

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="images")]

    def run(self, _: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [feed["images"].sum(axis=(1, 2, 3))]


@pytest.fixture
def fake_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    fake = SimpleNamespace(InferenceSession=FakeSession, preload_dlls=lambda: None, __version__="1.22.0")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    monkeypatch.setattr(FakeSession, "made", [])
    return fake


@pytest.mark.parametrize(
    ("engines", "expected"),
    [(True, "ONNX Runtime 1.22.0 TensorRT 10.9.0.34 f16"), (False, "ONNX Runtime 1.22.0 CUDA f32")],
)
def test_what_runs_is_named(
    networks: list[NetworkFile],
    fake_onnxruntime: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    engines: bool,
    expected: str,
) -> None:
    """The name goes into run.json."""
    if engines:
        add_engines(networks, T4)
    monkeypatch.setattr(runtime, "find_gpu", lambda: T4)
    loaded = load_networks(networks, Device.AUTO)
    assert [network.name for network in loaded] == [f"{expected} Tesla T4 sm_7.5"] * 2
    opened = [Path(path) for path, _ in FakeSession.made]
    assert opened == [engine_file(network, T4) if engines else network[0] for network in networks]
    assert [item for item, _ in loaded[0].map([("a", np.ones((1, 3, 2, 2), np.float32))])] == ["a"]


def test_an_engine_is_built_for_one_shape_and_replaces_older_ones(
    networks: list[NetworkFile], fake_onnxruntime: SimpleNamespace
) -> None:
    old = networks[0][0].parent / "engines/detector_00000000_1x3x512x512_sm75_trt10.9.onnx"
    another_cards = old.with_name("detector_00000000_1x3x512x512_sm86_trt10.9.onnx")
    old.touch()
    another_cards.touch()
    built = build_engine(networks[0], T4)
    assert built == engine_file(networks[0], T4)
    assert sorted(old.parent.iterdir()) == sorted([built, another_cards])
    ((path, (provider, options)),) = FakeSession.made
    assert (path, provider) == (str(networks[0][0]), TENSORRT)
    assert options["trt_fp16_enable"]
    assert options["trt_layer_norm_fp32_fallback"]
    assert {options[f"trt_profile_{kind}_shapes"] for kind in ("min", "opt", "max")} == {"images:1x3x512x512"}


@pytest.mark.parametrize("gpu", [NOTHING, CUDA_ONLY])
def test_no_engine_without_tensorrt(networks: list[NetworkFile], gpu: Gpu) -> None:
    with pytest.raises(RuntimeUnavailableError):
        build_engine(networks[0], gpu)


def test_missing_libraries_are_no_crash(networks: list[NetworkFile], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(RuntimeUnavailableError, match="cannot be loaded"):
        gpu_module.load_onnxruntime(Device.CUDA)
