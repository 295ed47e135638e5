"""The threshold that follows the slide."""

import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from pydantic import ValidationError

from mitosis.adaptive import adapted, adapted_threshold, adaptive_part, slide_features
from mitosis.bundle import Adaptive, FeatureWeight, read_bundle
from mitosis.errors import BundleError
from mitosis.pipeline import load_model
from mitosis.slide import open_slide
from mitosis.stain import HED_FROM_RGB, OD_OF_BYTE, RGB_FROM_HED, stains

DRAWN = "test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff"
PART = Adaptive(reach=2.0, features={"eosin": FeatureWeight(mean=0.4, scale=0.1, weight=0.5)})


def test_by_hand() -> None:
    assert adapted_threshold(0.5, {"eosin": 0.4}, PART) == pytest.approx(0.5)
    assert adapted_threshold(0.5, {"eosin": 0.5}, PART) == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert adapted_threshold(0.2, {"eosin": 0.3}, PART) == pytest.approx(1 / (1 + 4 * math.exp(0.5)))


def test_what_was_not_learnt_moves_nothing_more() -> None:
    at_reach = adapted_threshold(0.5, {"eosin": 0.6}, PART)
    assert adapted_threshold(0.5, {"eosin": 99.0}, PART) == at_reach
    assert [adapted_threshold(t, {"eosin": 0.6}, PART) for t in (0.0, 1.0)] == [0.0, 1.0]


def test_stains_invert_their_mixing() -> None:
    amounts = np.array([0.6, 0.3, 0.1])
    light = np.exp(-(amounts @ RGB_FROM_HED)) * 256 - 1
    np.testing.assert_allclose(stains(light.round().astype(np.uint8)), amounts, atol=0.05)
    np.testing.assert_allclose(HED_FROM_RGB @ RGB_FROM_HED, np.eye(3), atol=1e-12)


def write(path: Path, rgb: np.ndarray) -> Path:
    tifffile.imwrite(path, rgb, photometric="rgb", resolution=(40000, 40000), resolutionunit="CENTIMETER")
    return path


def test_features_of_a_slide_by_hand(tmp_path: Path) -> None:
    """A quarter glass; of the tissue a third pale, the rest of one colour."""
    rgb = np.full((1024, 1024, 3), 245, np.uint8)
    rgb[256:] = (150, 90, 150)
    rgb[256:512] = (225, 195, 225)
    with open_slide(write(tmp_path / "a.tiff", rgb)) as slide:
        found = slide_features(slide)
    assert found["tissue_share"] == pytest.approx(0.75, abs=0.05)  # pixels on borders are mixed
    assert found["pale_share"] == pytest.approx(1 / 3, abs=0.05)
    assert found["haematoxylin"] == pytest.approx(float(stains(np.array([150, 90, 150], np.uint8))[0]), abs=0.01)
    assert found["darkest"] == pytest.approx(float(OD_OF_BYTE[[150, 90, 150]].sum()), abs=0.02)


def test_a_slide_of_glass_has_no_features(tmp_path: Path) -> None:
    with open_slide(write(tmp_path / "a.tiff", np.full((600, 600, 3), 245, np.uint8))) as slide:
        assert set(slide_features(slide).values()) == {0.0}


def bundle_with(root: Path, folder: Path, adaptive: object) -> Path:
    """Write a bundle that differs from the default one in its adaptive part."""
    folder.mkdir()
    for file in (root / "model").glob("*.onnx"):
        (folder / file.name).symlink_to(file)
    description = yaml.safe_load((root / "model/bundle.yaml").read_text())
    description.pop("adaptive", None)
    description |= {"adaptive": adaptive} if adaptive else {}
    (folder / "bundle.yaml").write_text(yaml.safe_dump(description))
    return folder


def test_the_model_follows_the_slide(root: Path, tmp_path: Path) -> None:
    model = load_model(bundle_with(root, tmp_path / "bundle", PART.model_dump()))
    with open_slide(root / DRAWN) as slide:
        moved = adapted(model, slide)
        expected = adapted_threshold(model.config.classifier_threshold, slide_features(slide), PART)
    assert moved.config.classifier_threshold == pytest.approx(expected, abs=1e-4)
    assert moved.config.classifier_threshold != model.config.classifier_threshold
    assert moved.detector is model.detector


def test_a_bundle_without_the_part(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"training\.adapt_threshold"):
        adaptive_part(read_bundle(bundle_with(root, tmp_path / "bundle", None)))


@pytest.mark.parametrize("change", [{"reach": 0}, {"features": {"humour": PART.features["eosin"].model_dump()}}])
def test_a_bad_part_is_refused(root: Path, tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Adaptive.model_validate(PART.model_dump() | change)
    with pytest.raises(BundleError, match="adaptive"):
        read_bundle(bundle_with(root, tmp_path / "bundle", PART.model_dump() | change))
