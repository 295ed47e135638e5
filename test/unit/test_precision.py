"""``--precision``: what is asked for is given or refused."""

from pathlib import Path

import openvino
import pytest

import mitosis.runtime
from mitosis.cpu import CpuUse, Precision
from mitosis.errors import RuntimeUnavailableError
from mitosis.gpu import CUDA, Device, Gpu
from mitosis.network import NetworkFile
from mitosis.pipeline import load_model
from mitosis.runtime import load_networks

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_f32_is_f32_everywhere(root: Path) -> None:
    model = load_model(root / "model", Device.CPU, use=CpuUse(Precision.F32))
    assert model.detector.name.endswith(" f32")
    assert model.classifier.name.endswith(" f32")


def test_bf16_is_given_or_refused(root: Path) -> None:
    if HAS_BF16:
        assert load_model(root / "model", Device.CPU, use=CpuUse(Precision.BF16)).detector.name.endswith(" bf16")
    else:
        with pytest.raises(RuntimeUnavailableError, match="no bf16"):
            load_model(root / "model", Device.CPU, use=CpuUse(Precision.BF16))


def test_auto_takes_bf16_where_it_is(root: Path) -> None:
    name = load_model(root / "model", Device.CPU).detector.name
    assert name.endswith(" bf16" if HAS_BF16 else " f32")


def test_precision_is_not_ignored_on_a_gpu(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mitosis.runtime, "find_gpu", lambda: Gpu(frozenset({CUDA}), "7.5"))
    with pytest.raises(RuntimeUnavailableError, match="--precision f32 is for the CPU"):
        load_networks(
            [NetworkFile(root / "model/detector.onnx", (1, 3, 512, 512))], Device.AUTO, use=CpuUse(Precision.F32)
        )
