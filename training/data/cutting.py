"""Cuts what training reads out of labelled slides, and describes it: tiles, frames, patches, whole images."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.config import one_line
from mitosis.errors import OutputError
from mitosis.labels import LOOK_ALIKE_NAME, MITOTIC_NAME
from mitosis.pipeline import grid_scale
from mitosis.slide import Slide
from mitosis.tissue import find_tissue
from training.data.images import (
    BOX_PX,
    LARGEST_PX,
    LOOK_ALIKE,
    MITOTIC,
    PATCH_PX,
    RGB,
    SPACING_TOLERANCE,
    SPACING_UM,
    is_held_out,
)
from training.data.importers import LabelledObject, LabelledSlide

TILE_PX = 512
FRAME_PX = 4096  # longest side of a frame: 50 MB in memory
WHOLE_KINDS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")  # what training.data.images.read_rgb reads
SOURCE = "own"  # of patches; published sets of patches carry their own names

Region = tuple[int, int, int, int]  # x, y, width and height


class Labels:
    """A label file in MIDOG++'s JSON form, with case, split, scanner and spacing per image."""

    def __init__(self) -> None:
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(
        self, file_name: str, slide: LabelledSlide, split: str, spacing_um: float, points: NDArray[np.float64]
    ) -> None:
        """Add one image with its objects (n, 3): centres in its own pixels, and categories."""
        number = len(self.images) + 1
        self.images.append({
            "id": number, "file_name": file_name, "case": slide.case, "split": split, "scanner": slide.scanner,
            "tumor_type": slide.tumor_type, "spacing_um": spacing_um,
        })  # fmt: skip
        half = BOX_PX / 2
        self.annotations += [
            {"image_id": number, "category_id": int(category), "bbox": [x - half, y - half, x + half, y + half]}
            for x, y, category in points.tolist()
        ]

    def write(self, path: Path, description: str) -> None:
        """Write the file; ``description`` says what the images are."""
        content = {
            "info": {"description": description},
            "categories": [{"id": MITOTIC, "name": MITOTIC_NAME}, {"id": LOOK_ALIKE, "name": LOOK_ALIKE_NAME}],
            "images": self.images,
            "annotations": self.annotations,
        }
        path.write_text(json.dumps(content, indent=1))


@dataclass(frozen=True)
class Grid:
    """An open slide in the pixels that training sees: the slide's own, or some of 0.25 um where it is far from that."""

    slide: Slide

    @property
    def scale(self) -> float:
        """Level-0 pixels per grid pixel, as inference has it."""
        return grid_scale(self.slide.spacing.x_um, SPACING_UM, SPACING_TOLERANCE)

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height in grid pixels."""
        return math.ceil(self.slide.width_px / self.scale), math.ceil(self.slide.height_px / self.scale)

    @property
    def spacing_um(self) -> float:
        """Micrometres per grid pixel."""
        return self.slide.spacing.x_um * self.scale

    def read(self, region: Region) -> RGB:
        """Read a region as (height, width, 3); white outside the slide."""
        x, y, width, height = region
        return self.slide.read(x * self.scale, y * self.scale, width, height, self.scale)

    def level_0_points(self, objects: list[LabelledObject]) -> NDArray[np.float64]:
        """Return (n, 3): centres in level-0 pixels, and categories. What lies outside the slide is left out."""
        points = np.array([(o.x_px, o.y_px, o.category) for o in objects], np.float64).reshape(-1, 3)
        return points[inside(points, (0, 0, self.slide.width_px, self.slide.height_px))]

    def points(self, objects: list[LabelledObject]) -> NDArray[np.float64]:
        """Return the same in grid pixels."""
        return self.level_0_points(objects) / (self.scale, self.scale, 1)

    def stays_whole(self) -> bool:
        """Tell whether training can read the file itself: its size, its form and its pixels as they are."""
        pixels = self.slide.width_px * self.slide.height_px
        return self.scale == 1.0 and pixels <= LARGEST_PX and self.slide.path.suffix.lower() in WHOLE_KINDS


def inside(points: NDArray[np.float64], region: Region) -> NDArray[np.bool_]:
    """Tell which points (n, 2 or more) have x and y within a region; regions side by side share none."""
    x, y, width, height = region
    local = points[:, :2] - (x, y)
    return np.asarray(((local >= 0) & (local < (width, height))).all(axis=1))


def frames_of(width_px: int, height_px: int) -> list[Region]:
    """Divide an image into frames of about the same size, FRAME_PX at most, side by side."""
    columns, rows = parts(width_px), parts(height_px)
    return [(x, y, width, height) for (y, height), (x, width) in itertools.product(rows, columns)]


def parts(length_px: int) -> list[tuple[int, int]]:
    """Return start and length of the frames along one axis; a lone one is as long as a tile at least."""
    if length_px <= FRAME_PX:
        return [(0, max(length_px, TILE_PX))]
    count = math.ceil(length_px / FRAME_PX)
    edges = [i * length_px // count for i in range(count + 1)]
    return [(start, end - start) for start, end in itertools.pairwise(edges)]


def write_png(path: Path, rgb: RGB) -> None:
    """Write a lossless picture. Raises OutputError when it cannot be written."""
    path.unlink(missing_ok=True)  # never into a file that ``whole_image`` linked
    if not cv2.imwrite(str(path), rgb[..., ::-1]):
        raise OutputError(f"{path}: cannot be written; is the disk full?")


@dataclass
class Cutter:
    """Cuts regions out of slides: those with a labelled object, and a share of the others that show tissue."""

    empty_share: float
    rng: np.random.Generator

    def cut(
        self, grid: Grid, regions: Iterable[Region], slide: LabelledSlide, split: str, folder: Path, labels: Labels
    ) -> None:
        """Write regions of one slide into ``folder`` and add them to ``labels``."""
        points, tissue = grid.points(slide.objects), find_tissue(grid.slide)
        for region in regions:
            x, y, width, height = region
            held = points[inside(points, region)]
            on_tissue = tissue.touches(x * grid.scale, y * grid.scale, max(width, height) * grid.scale)
            if len(held) == 0 and not (on_tissue and self.rng.random() < self.empty_share):
                continue
            name = f"{slide.name}_x{x}_y{y}.png"
            write_png(folder / name, grid.read(region))
            labels.add(name, slide, split, grid.spacing_um, held - (x, y, 0))


class Patches:
    """``patches.csv`` and ``patches/``: a crop around each mitotic figure, for stage 2 and for mosaics."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, list[dict[str, str | int]]()

    def cut(self, grid: Grid, slide: LabelledSlide, split: str) -> None:
        """Write the crops of one slide as lossless PNG.

        Training holds patches out by a hash of their slide's name (``training.data.images.is_held_out``). The name
        that is written makes it hold out those of val.
        """
        names = (f"{slide.name}-{number}" for number in itertools.count())
        name = next(name for name in names if is_held_out(SOURCE + name) == (split == "val"))
        points = grid.points(slide.objects)
        for x, y in np.rint(points[points[:, 2] == MITOTIC, :2]).astype(int).tolist():
            file = f"{slide.name}_x{x}_y{y}.png"
            rgb = grid.read((x - PATCH_PX // 2, y - PATCH_PX // 2, PATCH_PX, PATCH_PX))
            write_png(self.folder / "patches" / file, rgb)
            self.rows.append({
                "file": file, "source": SOURCE, "slide": name, "x": x, "y": y, "scanner": slide.scanner,
                "case": slide.case,
            })  # fmt: skip

    def write(self) -> None:
        """Write the list."""
        with (self.folder / "patches.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ("file", "source", "slide", "x", "y", "scanner", "case"))
            writer.writeheader()
            writer.writerows(self.rows)


def whole_image(slide: LabelledSlide, folder: Path) -> str:
    """Put an image that stays as it is into ``folder``, under its slide's name, and return the file's name.

    So the data can be moved, and ``train/a.png`` and ``val/a.png``, whose results would go by the file's name, are
    two. A hard link where the disk is the same, else a copy.
    """
    original, path = slide.path.resolve(), folder / f"{slide.name}{slide.path.suffix}"
    if path.exists() and path.samefile(original) and not path.is_symlink():
        return path.name
    path.unlink(missing_ok=True)
    try:
        path.hardlink_to(original)
    except OSError:  # another disk, or one that has no links
        copy(original, path)
    return path.name


def copy(source: Path, target: Path) -> None:
    """Copy a file. Raises OutputError when it cannot be written."""
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be copied from {source} ({one_line(error)}); is the disk full?") from error
