"""Stage 1's candidates against the labels: who is a mitosis, and who may be one without a label."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from mitosis.config import Config
from mitosis.pipeline import detect, load_model
from mitosis.slide import open_slide
from training import mine_candidates
from training.data.images import LOOK_ALIKE, MITOTIC, LabelledWindow
from training.mine_candidates import EDGE_PX, held_against_labels, mine, predict
from training.networks.yolo11 import MitosisDetector
from training.warm_start import start_from_bundle


def window(height: int, width: int) -> LabelledWindow:
    """Return an image with a mitosis at (100, 60) and a look-alike at (200, 60)."""
    points = np.array([(100, 60), (200, 60)], np.float32)
    return LabelledWindow(np.zeros((height, width, 3), np.uint8), points, np.array([MITOTIC, LOOK_ALIKE]))


def boxes(*centres: tuple[float, float]) -> np.ndarray:  # type: ignore[type-arg]
    """Return candidates of 50 x 50 px with score 0.5."""
    x, y = np.array(centres, np.float32).T
    return np.column_stack([x - 25, y - 25, x + 25, y + 25, np.full(len(x), 0.5, np.float32)])


def test_a_candidate_within_the_radius_of_a_mitosis_is_one() -> None:
    found = held_against_labels(boxes((100, 90), (100, 90.5), (118, 84), (200, 60)), window(300, 400), 0.0)
    assert found.shape == (4, 6)
    assert found[:, 5].tolist() == [1, 0, 1, 0]  # 30 px, 30.5 px, 30 px; the look-alike
    assert found[1, :5].tolist() == [75, 65.5, 125, 115.5, 0.5]


def test_false_positives_on_an_edge_are_left_out() -> None:
    """Half a box from each edge of an image of 400 x 300 px; what is labelled stays wherever it lies."""
    kept = [(25, 200), (374, 200), (300, 25), (300, 274)]
    gone = [(24.5, 200), (374.5, 200), (300, 24.5), (300, 274.5), (-3, 200)]
    found = held_against_labels(boxes(*kept, *gone), window(300, 400), EDGE_PX)
    assert ((found[:, :2] + found[:, 2:4]) / 2).tolist() == [list(centre) for centre in kept]
    labelled = held_against_labels(boxes((100, 60)), window(70, 110), EDGE_PX)
    assert labelled[:, 5].tolist() == [1]
    assert len(held_against_labels(boxes(*gone), window(300, 400), 0.0)) == len(gone) - 1


def test_without_labels_or_candidates() -> None:
    bare = LabelledWindow(np.zeros((300, 400, 3), np.uint8), np.empty((0, 2), np.float32), np.empty(0, np.int64))
    assert held_against_labels(boxes((100, 60)), bare, EDGE_PX)[:, 5].tolist() == [0]
    assert held_against_labels(np.empty((0, 5), np.float32), window(300, 400), EDGE_PX).shape == (0, 6)


def test_mine_numbers_the_windows_that_have_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([np.empty((0, 5), np.float32), boxes((100, 60), (10, 200), (300, 200))])
    asked = []

    def predict(model: torch.nn.Module, rgb: np.ndarray, confidence: float) -> np.ndarray:  # type: ignore[type-arg]
        asked.append((rgb.shape, confidence))
        return next(answers)

    monkeypatch.setattr(mine_candidates, "predict", predict)
    mined = mine(MitosisDetector("stock", "n"), [window(300, 400)] * 2, "windows", 0.15, EDGE_PX)
    assert mined == {1: [[75, 35, 125, 85, 0.5, 1], [275, 175, 325, 225, 0.5, 0]]}
    assert asked == [((300, 400, 3), 0.15)] * 2


def test_images_smaller_than_a_tile_are_seen_as_inference_sees_them(root: Path, tmp_path: Path) -> None:
    """White beyond the image: the shipped detector in torch finds what the shipped pipeline does."""
    region = next((root / "test/input/interf0/images").rglob("*.tiff"))
    rgb = tifffile.imread(region)[200:600, 300:690]
    Image.fromarray(rgb).save(tmp_path / "small.png")
    model = MitosisDetector("stock", "n").eval()
    start_from_bundle(model, root / "model", "detector")
    boxes = predict(model, rgb, 0.2)
    loaded = load_model(root / "model", config=Config())
    with open_slide(tmp_path / "small.png", 0.25) as slide:
        rows = detect(slide, loaded)
    assert len(rows) == len(boxes) > 0
    np.testing.assert_allclose(np.sort(boxes[:, 0]), np.sort(rows["x1"]), atol=2)
