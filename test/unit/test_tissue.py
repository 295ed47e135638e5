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
from mitosis.readers import Level
from mitosis.slide import open_slide
from mitosis.tissue import coarse_picture, find_tissue, is_tissue, limits

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


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("pyramid", [True, False])
@pytest.mark.parametrize(("width", "height"), [(100, 100), (520, 520), (512, 512), (1100, 777), (31, 20)])
def test_tissue_all_over_is_as_large_as_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int, height: int, pyramid: bool, whole: bool
) -> None:
    """No pixel of the mask counts beyond the image, and none on its border is half glass."""
    if not whole:
        monkeypatch.setattr("mitosis.slide.WHOLE_PX", 0)
    rgb = np.full((height, width, 3), (200, 202, 201), np.uint8)  # only a little darker than what is never glass
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(rgb, tile=(64, 64), subifds=1 if pyramid else None, **TAGS)
        if pyramid:
            file.write(rgb[: height // 4, : width // 4], tile=(64, 64), subfiletype=1, **TAGS)
    with open_slide(tmp_path / "a.tif") as slide:
        mask = find_tissue(slide)
        picture = slide.coarse(mask.scale)
    assert mask.area_mm2((0.25, 0.25)) == pytest.approx(width * height * 0.25**2 / 1e6)
    assert np.abs(picture.astype(int) - rgb[0, 0]).max() <= 1


@pytest.mark.parametrize("whole", [True, False])
def test_a_mask_pixel_is_what_it_covers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """Tissue on single squares of the grid, at borders and corners too, is found there and nowhere else."""
    if not whole:
        monkeypatch.setattr("mitosis.slide.WHOLE_PX", 0)
    cells = np.zeros((20, 30), bool)
    cells[[0, 0, 7, 19, 19, 12], [0, 29, 11, 0, 29, 20]] = True
    rgb = np.full((20 * 32, 30 * 32, 3), 245, np.uint8)
    rgb[np.kron(cells, np.ones((32, 32), bool)) > 0] = (150, 90, 150)
    tifffile.imwrite(tmp_path / "a.tif", rgb, tile=(64, 64), **TAGS)
    with open_slide(tmp_path / "a.tif") as slide:
        mask = find_tissue(slide)
        again = find_tissue(slide)
    np.testing.assert_array_equal(mask.tissue, cells)
    np.testing.assert_array_equal(again.tissue, cells)
    assert mask.area_mm2((0.25, 0.25)) == pytest.approx(6 * 0.008**2)


@pytest.mark.parametrize("spacing_um", [0.2273, 0.25, 0.31, 0.5])
def test_a_figure_at_the_border_is_kept(tmp_path: Path, spacing_um: float) -> None:
    """Half a nucleus that the image's edge cuts, alone on glass, whose last mask pixels lie mostly outside."""
    for x, y in ((0, 300), (1051, 300), (500, 0), (500, 771), (1051, 771)):
        rgb = np.full((772, 1052, 3), 243, np.uint8)
        cv2.circle(rgb, (x, y), round(5 / spacing_um), (70, 40, 100), -1)
        tifffile.imwrite(tmp_path / "a.tif", rgb, **TAGS)
        with open_slide(tmp_path / "a.tif", spacing_um) as slide:
            mask = find_tissue(slide)
        assert mask.tissue[int(y / mask.scale), int(x / mask.scale)], (x, y)
        assert mask.touches(max(0, x - 25), max(0, y - 25), 50)


def test_the_coarse_picture_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mitosis.slide.WHOLE_PX", 0)
    rgb = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", rgb, tile=(64, 64), **TAGS)
    with open_slide(tmp_path / "a.tif", 0.2273) as slide:
        first, scale = coarse_picture(slide)
        slide._source.levels[0] = Level(None, 1.0)  # whatever reads it fails
        second, _ = coarse_picture(slide)
    assert scale == pytest.approx(35.2, abs=0.01)
    np.testing.assert_array_equal(first, second)


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
    """Other scanners and species: the mitosis's own 10 um alone on glass, on a corner of four pixels of the mask."""
    y, x = np.mgrid[-64:64, -64:64]
    for path in sorted((data / "patches").rglob("*.jpg"))[::4]:
        rgb = cv2.imread(str(path))[..., ::-1]
        picture = np.full((608, 608, 3), 243, np.uint8)
        picture[224:352, 224:352][np.hypot(x, y) < 20] = rgb[np.hypot(x, y) < 20]
        small = cv2.resize(picture, (19, 19), interpolation=cv2.INTER_AREA).astype(np.uint8)
        assert is_tissue(small, *(limits(small) or ()))[8:10, 8:10].any(), path


def test_a_slide_with_hardly_any_glass_is_kept_whole(tmp_path: Path) -> None:
    """A metaphase plate in a pale lake, on a corner of the mask's pixels: at 8 um each, it looks like the lake."""
    rgb = np.full((4000, 4000, 3), (200, 150, 190), np.uint8)
    cv2.circle(rgb, (2000, 2000), 215, (236, 230, 234), -1)
    rgb[1999:2001, 1995:2005] = (90, 50, 120)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    with open_slide(tmp_path / "a.tif", 1.0) as slide:
        mask = find_tissue(slide)
    assert mask.kept.all()
    assert not mask.tissue.all()  # the lake is no tissue for all that
