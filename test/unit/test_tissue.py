"""The tissue mask: never loses a labelled mitosis, leaves glass out, and follows the geometry."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from mitosis.labels import read_labels
from mitosis.slide import open_slide
from mitosis.tissue import find_tissue, is_tissue

TAGS = {"photometric": "rgb", "resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}


def test_glass_and_tissue(tmp_path: Path) -> None:
    """A pink square of 1 mm on glass: its area, its surroundings, and nothing far away."""
    rgb = np.full((8000, 10000, 3), (244, 243, 245), np.uint8)
    rgb[2000:6000, 1000:5000] = (230, 180, 205)
    tifffile.imwrite(tmp_path / "a.tif", rgb, tile=(256, 256), **TAGS)
    with open_slide(tmp_path / "a.tif") as slide:
        mask = find_tissue(slide)
    assert mask.area_mm2((0.25, 0.25)) == pytest.approx(1.0, rel=0.03)
    assert mask.touches(3000, 3000, 512)
    assert mask.touches(5200, 3000, 512)  # within the margin of 400 px
    assert not mask.touches(5600, 3000, 512)
    assert not mask.touches(9000, 100, 512)


@pytest.mark.parametrize("colour", [(235, 215, 228), (205, 200, 210), (240, 200, 240), (150, 110, 160)])
def test_pale_tissue_is_tissue(colour: tuple[int, int, int]) -> None:
    assert is_tissue(np.full((4, 4, 3), colour, np.uint8)).all()


@pytest.mark.data
@pytest.mark.parametrize(("folder", "every"), [("frames", 1), ("aperio", 1), ("windows", 3)])
def test_no_labelled_mitosis_is_lost(data: Path, folder: str, every: int) -> None:
    """The place of every labelled mitosis is kept."""
    for image in read_labels(data / f"{folder}.json")[::every]:
        with open_slide(data / folder / image.file_name, image.spacing_um) as slide:
            mask = find_tissue(slide)
        for x, y in image.mitotic_figures_px:
            assert mask.touches(x - 25, y - 25, 50), image.file_name


@pytest.mark.data
def test_no_patch_is_lost(data: Path) -> None:
    """Other scanners and species: the mitosis itself is tissue at 8 um per pixel in every patch."""
    for path in sorted((data / "patches").rglob("*.jpg"))[::7]:
        bgr = cv2.imread(str(path))
        small = cv2.resize(bgr, None, fx=1 / 32, fy=1 / 32, interpolation=cv2.INTER_AREA)
        assert is_tissue(small).any(), path
