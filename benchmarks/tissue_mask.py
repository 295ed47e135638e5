"""Counts what the tissue mask would lose and what it saves, on labelled images and on slides with glass.

    python -m benchmarks.tissue_mask --data ../shared/data [--slide IMAGE:SPACING_UM ...]

A mitosis is lost when no tile that holds it is read. Labelled frames lie in tissue and nothing of them is skipped, so
the middle of each patch, a mitosis, is also put on glass, alone and on a corner of the mask's pixels: the hardest
place. Slides without labels are detected on with and without the mask.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from mitosis.detections import centres_px
from mitosis.labels import read_labels
from mitosis.pipeline import detect, load_model, tiles_to_read
from mitosis.slide import open_slide
from mitosis.tiling import tiles
from mitosis.tissue import find_tissue, is_tissue, limits
from training.data.images import read_rgb

ROOT = Path(__file__).parents[1]
TILE_PX, OVERLAP = 512, 0.2
PATCH_SCALE, GLASS = 32, 243  # level-0 pixels per mask pixel at 0.25 um; a usual glass
CORNER, RADIUS_PX = 9, 20  # in mask pixels; a mitosis is some 10 um wide
CANVAS_PX = 2 * CORNER * PATCH_SCALE


def labelled(folder: Path, name: str) -> tuple[int, int, int, int]:
    """Return mitoses, those that no kept tile holds, tiles, and tiles skipped."""
    mitoses = lost = count = skipped = 0
    for image in read_labels(folder / f"{name}.json"):
        with open_slide(folder / name / image.file_name, image.spacing_um) as slide:
            mask = find_tissue(slide)
            all_tiles = list(tiles(slide.width_px, slide.height_px, TILE_PX, OVERLAP))
        kept = [tile for tile in all_tiles if mask.touches(tile.x_px, tile.y_px, TILE_PX)]
        count, skipped = count + len(all_tiles), skipped + len(all_tiles) - len(kept)
        for x, y in image.mitotic_figures_px:
            mitoses += 1
            lost += not any(0 <= x - t.x_px < TILE_PX and 0 <= y - t.y_px < TILE_PX for t in kept)
    return mitoses, lost, count, skipped


def patches_on_glass(folder: Path) -> tuple[int, int]:
    """Return patches, and those of which the mitosis itself is taken for glass."""
    paths, lost = sorted(folder.rglob("*.jpg")), 0
    for path in paths:
        rgb = read_rgb(path)
        picture = np.full((CANVAS_PX, CANVAS_PX, 3), GLASS, np.uint8)
        top, left = ((CANVAS_PX - length) // 2 for length in rgb.shape[:2])
        y, x = np.ogrid[: rgb.shape[0], : rgb.shape[1]]
        disc = np.hypot(y - rgb.shape[0] / 2, x - rgb.shape[1] / 2) < RADIUS_PX
        picture[top : top + rgb.shape[0], left : left + rgb.shape[1]][disc] = rgb[disc]
        size = (CANVAS_PX // PATCH_SCALE,) * 2
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        around = slice(CORNER - 1, CORNER + 1)
        lost += not is_tissue(small, *(limits(small) or ()))[around, around].any()
    return len(paths), lost


def unlabelled(path: Path, spacing_um: float | None, bundle: Path) -> tuple[int, int, int, int]:
    """Return candidates without the mask, those that are missing with it, tiles, and tiles skipped."""
    model = load_model(bundle)
    with open_slide(path, spacing_um) as slide:
        mask = find_tissue(slide)
        every, some = (centres_px(detect(slide, model, tissue=tissue)) for tissue in (None, mask))
        count, kept = (len(tiles_to_read(slide, model, tissue)) for tissue in (None, mask))
    found = {tuple(point) for point in some.tolist()}
    return len(every), sum(tuple(point) not in found for point in every.tolist()), count, count - kept


def main(
    data: Annotated[Path, typer.Option(help="Folder with frames.json, aperio.json, windows.json, patches/")],
    slide: Annotated[list[str] | None, typer.Option(help="An image with glass, IMAGE or IMAGE:SPACING_UM")] = None,
    model: Annotated[Path, typer.Option(help="Model bundle")] = ROOT / "model",
) -> None:
    """Print a table; fails when a mitosis or, without labels, a candidate is lost."""
    print("| images | mitoses | lost | tiles | skipped |\n|---|---|---|---|---|")
    all_lost = 0
    for name in ("frames", "aperio", "windows"):
        mitoses, lost, count, skipped = labelled(data, name)
        all_lost += lost
        print(f"| {name} | {mitoses} | {lost} | {count} | {skipped} |", flush=True)
    patches, lost = patches_on_glass(data / "patches")
    all_lost += lost
    print(f"| patches' mitoses, alone on glass | {patches} | {lost} | | |", flush=True)
    for one in slide or []:
        path, _, spacing = one.partition(":")
        found, missing, count, skipped = unlabelled(Path(path), float(spacing) if spacing else None, model)
        all_lost += missing
        print(f"| {Path(path).name}: candidates, no labels | {found} | {missing} | {count} | {skipped} |", flush=True)
    sys.exit(1 if all_lost else 0)


if __name__ == "__main__":
    typer.run(main)
