"""From torch to the bundle: the exported networks give torch's numbers, on pictures that they answer differently."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tifffile
import torch
import typer
from numpy.typing import NDArray
from tiny_data import write_training_data

from benchmarks.random_bundle import settle
from mitosis.bundle import SecondLookPart, read_bundle
from mitosis.cpu import OpenVinoNetwork
from mitosis.errors import BundleError, InputError
from mitosis.network import NetworkFile, prepare_pixels
from training.data.crops import Spot, plain
from training.export import check_replaceable, load_classifier, training_data
from training.export import main as export
from training.mine_candidates import load_detector
from training.networks.convnext import MeanOfViews, MitosisClassifier
from training.networks.yolo11 import MitosisDetector
from training.scored import LOWEST_CONFIDENCE
from training.warm_start import choose_part, read_parameters, start_from_bundle

BOX_TOLERANCE_PX, SCORE_TOLERANCE = 0.5, 0.02  # from half-precision storage; new blocks are worse than trained ones
LOGIT_TOLERANCE = 0.05
CLASSIFIER = "convnext_pico_ols"

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def rgb(root: Path) -> NDArray[np.uint8]:
    """Return the drawn case, (h, w, 3)."""
    return np.asarray(tifffile.imread(next((root / "test/input/interf0/images").rglob("*.tiff"))))


@pytest.fixture(scope="module")
def tiles(rgb: NDArray[np.uint8]) -> Floats:
    """Return two tiles of it: (2, 3, 512, 512)."""
    return prepare_pixels(np.stack([rgb[:512, :512], rgb[512:1024, 512:1024]]))


@pytest.fixture(scope="module")
def run(root: Path, rgb: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of networks that see something: the default bundle's weights, and new blocks settled to them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    detector, classifier = MitosisDetector("improved", "n"), MitosisClassifier(CLASSIFIER)
    start_from_bundle(detector, root / "model", "detector")
    start_from_bundle(classifier, root / "model", "classifier")
    settle(detector, rgb)
    torch.save({"variant": "improved", "scale": "n", "average": detector.state_dict()}, folder / "detector.pt")
    torch.save({"architecture": CLASSIFIER, "average": classifier.state_dict()}, folder / "classifier.pt")
    export(folder, folder / "model")
    return folder


def assert_near(found: Floats, expected: Floats) -> None:
    """Hold candidates (2, 5, n) to others: the scores, and the boxes of those that inference would look at.

    First, that the two tiles are answered differently: else a network that ignores its input would do.
    """
    kept = expected[:, 4] >= LOWEST_CONFIDENCE
    apart = np.abs(expected[0] - expected[1])
    assert apart[4].max() > 10 * SCORE_TOLERANCE
    assert apart[:4, kept.any(axis=0)].max() > 10 * BOX_TOLERANCE_PX
    difference = np.abs(found - expected)
    assert difference[:, 4].max() < SCORE_TOLERANCE
    assert difference[:, :4].max(axis=1)[kept].max() < BOX_TOLERANCE_PX


@torch.no_grad()
def of_torch(model: MitosisDetector, tiles: Floats) -> Floats:
    return np.asarray(model.eval()(torch.from_numpy(tiles))[0])


def of_onnx(file: Path | None, x: Floats) -> Floats:
    return np.asarray(onnxruntime.InferenceSession(str(file)).run(None, {"images": x})[0])


def test_detector_parity(run: Path, tiles: Floats) -> None:
    assert_near(of_onnx(run / "model/detector.onnx", tiles), of_torch(load_detector(run), tiles))


def test_classifier_parity_in_every_runtime(root: Path, run: Path, rgb: NDArray[np.uint8]) -> None:
    """ONNX Runtime in fp32, and OpenVINO at the CPU's own precision, on mitotic figures and look-alikes."""
    boxes = [a["bbox"] for a in json.loads((root / "test/planted.json").read_text())["annotations"]]
    centres = [np.array([(x1 + x2) / 2, (y1 + y2) / 2], np.float32) for x1, y1, x2, y2 in boxes]
    x = torch.stack([plain(Spot(rgb, centre)) for centre in centres]).numpy()
    with torch.no_grad():
        expected = MeanOfViews(load_classifier(run)[0])(torch.from_numpy(x)).numpy()
    assert np.ptp(expected, axis=0).min() > 10 * LOGIT_TOLERANCE
    file = read_bundle(run / "model").classifier_file
    np.testing.assert_allclose(of_onnx(file, x), expected, atol=LOGIT_TOLERANCE)
    items = list(OpenVinoNetwork(NetworkFile(file, x.shape)).map((i, x) for i in range(9)))
    assert [i for i, _ in items] == list(range(9))
    for _, found in items:
        np.testing.assert_allclose(found, expected, atol=LOGIT_TOLERANCE)


def test_training_can_go_on_from_a_bundle(run: Path, tiles: Floats, tmp_path: Path) -> None:
    """The same network comes back; the stock one takes the layers that it shares; another size is refused."""
    again = MitosisDetector("improved", "n")
    assert start_from_bundle(again, run / "model", "detector") == 1.0
    assert_near(of_torch(again, tiles), of_torch(load_detector(run), tiles))
    assert 0.7 < start_from_bundle(MitosisDetector("stock", "n"), run / "model", "detector") < 1.0
    assert start_from_bundle(MitosisClassifier(CLASSIFIER), run / "model", "classifier") == 1.0
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


def test_a_larger_network_may_take_the_further_looks(root: Path, run: Path, tiles: Floats, tmp_path: Path) -> None:
    """It is described, gives torch's numbers in ONNX Runtime, and can be trained on by its scale."""
    larger = MitosisDetector("stock", "s")
    start_from_bundle(larger, root / "model", "second_look")
    torch.save({"variant": "stock", "scale": "s", "average": larger.state_dict()}, tmp_path / "detector.pt")
    export(run, tmp_path / "model", second_look=tmp_path, second_look_share=0.7)
    bundle = read_bundle(tmp_path / "model")
    about = bundle.description.second_look
    assert about and (about.architecture, about.share) == ("yolo11s stock", 0.7)
    assert bundle.description.detector == read_bundle(run / "model").description.detector
    assert_near(of_onnx(bundle.second_look_file, tiles), of_torch(larger, tiles))
    again = MitosisDetector("stock", "s")
    assert start_from_bundle(again, tmp_path / "model", choose_part(bundle.description, None, "s")[0]) == 1.0
    norm = "model.0.bn.weight"
    torch.testing.assert_close(again.state_dict()[norm], larger.state_dict()[norm])
    later = {name: 3 * value if name == norm else value for name, value in larger.state_dict().items()}
    torch.save({"variant": "stock", "scale": "s", "average": later}, tmp_path / "detector.pt")
    export(run, tmp_path / "mean", second_look=tmp_path, mean_second_look_with=tmp_path / "model")
    mean = read_parameters(tmp_path / "mean", "second_look")
    torch.testing.assert_close(mean[norm].float(), 2 * larger.state_dict()[norm], atol=1e-3, rtol=1e-3)


def test_what_is_asked_for_says_which_detector_is_trained_on(run: Path) -> None:
    """The part that is most of it, and what was not asked for is that part's."""
    alone = read_bundle(run / "model").description  # yolo11n improved
    part = SecondLookPart(file="a.onnx", sha256="0" * 64, architecture="yolo11s stock")
    larger = alone.model_copy(update={"second_look": part})
    same_scale = alone.model_copy(update={"second_look": part.model_copy(update={"architecture": "yolo11n stock"})})
    first, large, stock = (
        ("detector", ("improved", "n")),
        ("second_look", ("stock", "s")),
        ("second_look", ("stock", "n")),
    )
    for variant, scale, expected in (
        (None, None, (first, first, first)),
        (None, "n", (first, first, first)),
        ("improved", None, (first, first, first)),
        ("improved", "n", (first, first, first)),
        ("stock", None, (first, large, stock)),
        ("stock", "n", (first, first, stock)),  # the layers that stock shares with improved
        (None, "s", (first, large, first)),
        ("improved", "s", (first, large, first)),
        ("stock", "s", (first, large, stock)),
    ):
        assert tuple(choose_part(d, variant, scale) for d in (alone, larger, same_scale)) == expected


def test_the_mean_of_a_second_look_needs_one(run: Path, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="needs --second-look"):
        export(run, tmp_path / "model", mean_second_look_with=run / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("share", [0.0, 1.1, 0.7])
def test_a_share_needs_a_second_look_and_is_one(run: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(typer.BadParameter, match="up to 1, and needs --second-look"):
        export(run, tmp_path / "model", second_look=None if share == 0.7 else run, second_look_share=share)
    assert not (tmp_path / "model").exists()


def test_what_a_run_lacks_is_said(run: Path, tmp_path: Path) -> None:
    """A run without stage 2 borrows another's, as the lines of stage 1 alone in the README's table do."""
    shutil.copy(run / "detector.pt", tmp_path)
    with pytest.raises(InputError, match=r"classifier\.pt: not there; training\.train_classifier makes it, or copy"):
        export(tmp_path, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["detector.pt"]
    with pytest.raises(InputError, match=r"none/detector\.pt: not there; training\.train_detector"):
        export(run, tmp_path / "model", second_look=tmp_path / "none")
    shutil.copy(run / "classifier.pt", tmp_path)
    export(tmp_path, tmp_path / "model")
    assert read_bundle(tmp_path / "model").description.detector.architecture == "yolo11n improved"
