"""``--precision``: what is asked for is given or refused."""

from pathlib import Path

import numpy as np
import openvino
import pytest

import mitosis.runtime
from mitosis.config import Config
from mitosis.cpu import CpuUse, Precision
from mitosis.errors import RuntimeUnavailableError
from mitosis.gpu import CUDA, Device, Gpu
from mitosis.network import NetworkFile
from mitosis.pipeline import Model, detect, load_model
from mitosis.runtime import load_networks
from mitosis.slide import open_slide

CASE = "test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff"
HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def precisions_of(model: Model) -> list[str]:
    networks = (model.detector, model.repeating, model.second_look, model.classifier)
    return [network.name.rsplit(" ", 1)[-1] for network in networks if network]


def test_f32_is_f32_everywhere(root: Path) -> None:
    assert precisions_of(load_model(root / "model", Device.CPU, use=CpuUse(Precision.F32))) == ["f32"] * 3


def test_bf16_is_given_or_refused(root: Path) -> None:
    if HAS_BF16:
        assert precisions_of(load_model(root / "model", Device.CPU, use=CpuUse(Precision.BF16))) == ["bf16"] * 3
    else:
        with pytest.raises(RuntimeUnavailableError, match="no bf16"):
            load_model(root / "model", Device.CPU, use=CpuUse(Precision.BF16))


def test_auto_searches_in_bf16_where_it_is_and_decides_in_f32(root: Path) -> None:
    model = load_model(root / "model", Device.CPU)
    assert precisions_of(model) == (["bf16", "f32", "f32", "f32"] if HAS_BF16 else ["f32"] * 3)


def test_auto_keeps_a_single_look_in_bf16(root: Path) -> None:
    model = load_model(root / "model", Device.CPU, Config())
    assert precisions_of(model) == ["bf16" if HAS_BF16 else "f32"] * 2


@pytest.mark.skipif(not HAS_BF16, reason="auto is f32 where the CPU has no bf16")
def test_auto_gives_the_counts_and_scores_of_f32(root: Path) -> None:
    """Of candidates near the lowest score, at which bf16 decides whether to look again, there may be more or less."""
    found, counts = {}, {}
    for precision in (Precision.F32, Precision.AUTO):
        model = load_model(root / "model", Device.CPU, use=CpuUse(precision))
        with open_slide(root / CASE) as slide:
            rows = detect(slide, model)
        counts[precision] = rows["is_mitotic_figure"].sum()
        found[precision] = rows[rows["detector_score"] > 2 * model.config.detector_confidence]
    assert counts[Precision.AUTO] == counts[Precision.F32] > 1
    for name in ("x1", "y1", "x2", "y2", "detector_score", "classifier_score", "probability"):
        np.testing.assert_allclose(found[Precision.AUTO][name], found[Precision.F32][name], rtol=1e-4, atol=1e-5)


def test_precision_is_not_ignored_on_a_gpu(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mitosis.runtime, "find_gpu", lambda: Gpu(frozenset({CUDA}), "7.5"))
    with pytest.raises(RuntimeUnavailableError, match="--precision f32 is for the CPU"):
        load_networks(
            [NetworkFile(root / "model/detector.onnx", (1, 3, 512, 512))], Device.AUTO, use=CpuUse(Precision.F32)
        )
