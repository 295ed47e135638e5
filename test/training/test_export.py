"""From torch to the bundle: the exported networks give torch's numbers."""

import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tiny_data import write_training_data

from mitosis.bundle import read_bundle
from mitosis.cpu import OpenVinoNetwork
from mitosis.errors import BundleError, InputError
from mitosis.network import NetworkFile
from training.export import check_replaceable, training_data
from training.export import main as export
from training.mine_candidates import load_detector
from training.networks.convnext import MitosisClassifier
from training.networks.yolo11 import MitosisDetector
from training.warm_start import read_parameters, stage_of, start_from_bundle

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
    network = OpenVinoNetwork(NetworkFile(bundle.classifier_file, x.shape))
    items = list(network.map((i, x) for i in range(9)))
    assert [i for i, _ in items] == list(range(9))
    for _, found in items:
        np.testing.assert_allclose(found, expected, atol=0.05)


def test_training_can_go_on_from_a_bundle(run: Path, tmp_path: Path) -> None:
    """The same network comes back; the stock one takes the layers that it shares; another size is refused."""
    x = torch.rand(1, 3, 128, 128)
    again = MitosisDetector("improved", "n").eval()
    assert start_from_bundle(again, run / "model", "detector") == 1.0
    with torch.no_grad():
        torch.testing.assert_close(again(x)[0], load_detector(run)(x)[0], atol=0.1, rtol=1e-2)
    assert 0.7 < start_from_bundle(MitosisDetector("stock", "n"), run / "model", "detector") < 1.0
    assert start_from_bundle(MitosisClassifier("test_convnext"), run / "model", "classifier") == 1.0
    with pytest.raises(BundleError, match="same scale"):
        start_from_bundle(MitosisDetector("improved", "s"), run / "model", "detector")
    with pytest.raises(BundleError, match="missing"):
        start_from_bundle(again, tmp_path, "detector")


def test_the_bundle_says_what_it_learnt_from(run: Path, tmp_path: Path) -> None:
    """What is known: nothing, what the data folder says, and what the training started from."""
    assert read_bundle(run / "model").description.training_data == "not stated"
    path = write_training_data(tmp_path) / "windows.json"
    assert training_data(tmp_path, None) == "not stated"
    path.write_text(path.read_text().replace("{", '{"info": {"description": "drawn (1 training cases)"}, ', 1))
    assert training_data(tmp_path, None) == "drawn (1 training cases)"
    expected = "drawn (1 training cases); started from mitosis-default 0.1.0: not stated"
    assert training_data(tmp_path, run / "model") == expected


def test_only_a_bundle_is_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty", run / "model"):
        check_replaceable(folder)
    kept = tmp_path / "own/thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years of work")
    with pytest.raises(InputError, match="own: holds files but no bundle"):
        export(run, kept.parent)
    with pytest.raises(InputError, match="is a file"):
        export(run, kept)
    assert kept.read_text() == "years of work"
    export(run, run / "model", about_data="in words")
    assert read_bundle(run / "model").description.training_data == "in words"


def test_the_mean_of_two_parts_of_a_training(run: Path, tmp_path: Path) -> None:
    """Weights and buffers are averaged, in the network and in the parameters to train on."""
    torch.manual_seed(1)
    later = MitosisDetector("improved", "n").state_dict()
    torch.save({"variant": "improved", "scale": "n", "average": later}, tmp_path / "detector.pt")
    shutil.copy(run / "classifier.pt", tmp_path)
    export(tmp_path, tmp_path / "mean", mean_with=run / "model")
    earlier, mean = read_parameters(run / "model", "detector"), read_parameters(tmp_path / "mean", "detector")
    for name in ("model.0.conv.weight", "model.0.bn.running_mean"):
        torch.testing.assert_close(mean[name].float(), (earlier[name].float() + later[name]) / 2, atol=1e-3, rtol=1e-3)
    assert (tmp_path / "mean/detector.onnx").read_bytes() != (run / "model/detector.onnx").read_bytes()
    torch.save({"variant": "stock", "scale": "n", "average": MitosisDetector("stock", "n").state_dict()},
               tmp_path / "detector.pt")  # fmt: skip
    with pytest.raises(BundleError, match="another network"):
        export(tmp_path, tmp_path / "other", mean_with=run / "model")


def test_a_larger_network_may_take_the_further_looks(run: Path, tmp_path: Path) -> None:
    """It is described, gives torch's numbers in ONNX Runtime, and can be trained on by its scale."""
    torch.manual_seed(2)
    larger = MitosisDetector("stock", "s")
    torch.save({"variant": "stock", "scale": "s", "average": larger.state_dict()}, tmp_path / "detector.pt")
    export(run, tmp_path / "model", second_look=tmp_path)
    bundle = read_bundle(tmp_path / "model")
    assert bundle.description.second_look and bundle.description.second_look.architecture == "yolo11s stock"
    assert bundle.description.detector == read_bundle(run / "model").description.detector
    x = np.random.default_rng(3).random((1, 3, 512, 512), np.float32)
    with torch.no_grad():
        expected = larger.eval()(torch.from_numpy(x))[0].numpy()
    found = onnxruntime.InferenceSession(str(bundle.second_look_file)).run(None, {"images": x})[0]
    assert np.abs(found[:, :4] - expected[:, :4]).max() < BOX_TOLERANCE_PX
    assert np.abs(found[:, 4] - expected[:, 4]).max() < SCORE_TOLERANCE
    again = MitosisDetector("stock", "s")
    assert start_from_bundle(again, tmp_path / "model", stage_of(bundle.description, "s")) == 1.0
    norm = "model.0.bn.weight"
    torch.testing.assert_close(again.state_dict()[norm], larger.state_dict()[norm])
    later = {name: 3 * value if name == norm else value for name, value in larger.state_dict().items()}
    torch.save({"variant": "stock", "scale": "s", "average": later}, tmp_path / "detector.pt")
    export(run, tmp_path / "mean", second_look=tmp_path, mean_second_look_with=tmp_path / "model")
    mean = read_parameters(tmp_path / "mean", "second_look")
    torch.testing.assert_close(mean[norm].float(), 2 * larger.state_dict()[norm], atol=1e-3, rtol=1e-3)
    assert stage_of(bundle.description, "n") == stage_of(read_bundle(run / "model").description, "s") == "detector"
