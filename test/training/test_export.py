"""From torch to the bundle: the exported networks give torch's numbers."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from mitosis.bundle import read_bundle
from mitosis.runtime import OpenVinoNetwork
from training.export import main as export
from training.mine_candidates import load_detector
from training.networks.convnext import MitosisClassifier
from training.networks.yolo11 import MitosisDetector

BOX_TOLERANCE_PX = 0.35  # from half-precision storage; random weights, which are worse than trained ones
SCORE_TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    detector, classifier = MitosisDetector("improved", "n"), MitosisClassifier("test_convnext")
    torch.save({"variant": "improved", "scale": "n", "average": detector.state_dict()}, folder / "detector.pt")
    torch.save({"architecture": "test_convnext", "average": classifier.state_dict()}, folder / "classifier.pt")
    export(folder, folder / "model")
    return folder


def test_detector_parity(run: Path) -> None:
    x = np.random.default_rng(0).random((2, 3, 512, 512), np.float32)
    with torch.no_grad():
        expected = load_detector(run)(torch.from_numpy(x))[0].numpy()
    session = onnxruntime.InferenceSession(str(run / "model/detector.onnx"))
    found = session.run(None, {"images": x})[0]
    assert np.abs(found[:, :4] - expected[:, :4]).max() < BOX_TOLERANCE_PX
    assert np.abs(found[:, 4] - expected[:, 4]).max() < SCORE_TOLERANCE


def test_runtimes_agree(run: Path) -> None:
    """OpenVINO, at the CPU's own precision, stays near ONNX Runtime in fp32."""
    bundle = read_bundle(run / "model")
    x = np.random.default_rng(1).normal(size=(4, 3, 64, 64)).astype(np.float32)
    expected = onnxruntime.InferenceSession(str(bundle.classifier_file)).run(None, {"images": x})[0]
    network = OpenVinoNetwork(bundle.classifier_file, x.shape)
    items = list(network.map((i, x) for i in range(9)))
    assert [i for i, _ in items] == list(range(9))
    for _, found in items:
        np.testing.assert_allclose(found, expected, atol=0.05)
