"""The tissue mask: never loses a labelled mitosis, leaves glass out, and follows the geometry."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.random import Generator
from numpy.typing import NDArray

from mitosis.labels import read_labels
from mitosis.slide import open_slide
from mitosis.tissue import find_tissue, is_tissue, limits

sys.path.insert(0, str(Path(__file__).parents[1]))
from draw_tissue import MITOSES, Tissue, draw_background

Drawing = Callable[[Generator], Tissue]
Shape = Callable[[Generator, Tissue, float, float], None]

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


def on_glass(picture: NDArray[np.uint8], path: Path) -> Path:
    """Put a small picture into the middle of an empty slide that has room for other tiles."""
    rgb = np.full((3000, 4000, 3), (243, 243, 243), np.uint8)
    rgb[1500 : 1500 + picture.shape[0], 2500 : 2500 + picture.shape[1]] = picture
    tifffile.imwrite(path, rgb, tile=(256, 256), **TAGS)
    return path


def fat(rng: Generator) -> Tissue:
    """Fat cells: empty, some 60 um wide, with walls of 1 um."""
    tissue = Tissue.empty(1024, 1024)
    for y in range(0, 1200, 210):
        for x in range(0, 1200, 240):
            centre = (x + 120 * (y // 210 % 2) + int(rng.integers(-9, 9)), y + int(rng.integers(-9, 9)))
            cv2.ellipse(tissue.eosin, centre, (122, 108), 0, 0, 360, 0.35, 4)
    return tissue


def pale(rng: Generator) -> Tissue:
    """Oedema: a tenth of the usual stain."""
    tissue = Tissue.empty(1024, 1024)
    draw_background(rng, tissue)
    tissue.eosin *= 0.1
    tissue.haematoxylin *= 0.1
    return tissue


def nothing(_: Generator) -> Tissue:
    """A single cell that floats on glass."""
    return Tissue.empty(1024, 1024)


@pytest.mark.parametrize("surroundings", [fat, pale, nothing])
@pytest.mark.parametrize("shape", MITOSES)
def test_a_mitosis_in_pale_tissue_is_kept(tmp_path: Path, surroundings: Drawing, shape: Shape) -> None:
    """Each figure is tissue by itself, not only within the margin of something else."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        tissue = surroundings(rng)
        x, y = rng.uniform(460, 560, 2)
        shape(rng, tissue, x, y)
        with open_slide(on_glass(tissue.photograph(rng), tmp_path / "a.tif")) as slide:
            mask = find_tissue(slide)
        row, column = (int(v / mask.scale) for v in (1500 + y, 2500 + x))
        assert mask.tissue[row - 1 : row + 2, column - 1 : column + 2].any(), seed
        assert not mask.touches(100, 100, 512)


def test_all_of_pale_tissue_is_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with open_slide(on_glass(pale(rng).photograph(rng), tmp_path / "a.tif")) as slide:
        mask = find_tissue(slide)
    assert mask.tissue[47:78, 79:110].mean() > 0.5  # of rows 1500..2523 and columns 2500..3523, at 32 px
    assert mask.kept[47:78, 79:110].all()
    assert not mask.touches(100, 100, 512)


def test_pale_tissue_everywhere_is_not_taken_for_glass(tmp_path: Path) -> None:
    """Without glass on the slide there is nothing to compare with; and what is bright in places stays."""
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "a.tif", pale(rng).photograph(rng), **TAGS)
    with open_slide(tmp_path / "a.tif") as slide:
        assert find_tissue(slide).kept.all()


@pytest.mark.data
@pytest.mark.parametrize("folder", ["frames", "aperio", "windows"])
def test_no_labelled_mitosis_is_lost(data: Path, folder: str) -> None:
    """The place of every labelled mitosis is kept."""
    for image in read_labels(data / f"{folder}.json"):
        with open_slide(data / folder / image.file_name, image.spacing_um) as slide:
            mask = find_tissue(slide)
        for x, y in image.mitotic_figures_px:
            assert mask.touches(x - 25, y - 25, 50), image.file_name


@pytest.mark.data
def test_no_patch_is_lost(data: Path) -> None:
    """Other scanners and species: 32 um of tissue alone on glass; the mitosis itself is tissue at 8 um per pixel."""
    for path in sorted((data / "patches").rglob("*.jpg"))[::4]:
        rgb = cv2.imread(str(path))[..., ::-1]
        picture = np.full((608, 608, 3), 243, np.uint8)
        picture[240 : 240 + rgb.shape[0], 240 : 240 + rgb.shape[1]] = rgb
        small = cv2.resize(picture, (19, 19), interpolation=cv2.INTER_AREA).astype(np.uint8)
        assert is_tissue(small, *limits(small))[8:11, 8:11].any(), path
