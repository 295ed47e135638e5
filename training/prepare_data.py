"""Turns a published data set into what training reads: windows.json, frames.json, patches.csv and their pictures.

    python -m training.prepare_data --format midog++ --source MIDOGpp --output data/midogpp
    python -m training.prepare_data --format slide-runner --source MITOS_WSI_CCMCT_ODAEL_train_dcc.sqlite \\
        --slides WSI --tumor-type "canine cutaneous mast cell tumour" --output data/ccmct

Training cases are cut into tiles of 512 x 512 px with 20 % overlap: all that hold a labelled object, and a share of the
others. Images of val and test stay whole, described in frames.json; those of val that training cannot read whole are
cut into frames without overlap, chosen likewise. Around every mitosis of train and val a patch is cut; those of val are
held out. Whatever is cut has the networks' 0.25 um a pixel where its slide is far from that.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from mitosis.config import Config
from mitosis.errors import InputError, OutputError
from mitosis.labels import LOOK_ALIKE_NAME, MITOTIC_NAME
from mitosis.pipeline import grid_scale
from mitosis.slide import Slide, open_slide
from mitosis.spacing import fallback
from mitosis.tiling import tiles
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
from training.data.importers import LabelledObject, LabelledSlide, read_midogpp, read_slide_runner, read_yolo
from training.data.splits import split_cases

TILE_PX = 512
FRAME_PX = 4096  # longest side of a frame: 50 MB in memory
WHOLE_KINDS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")  # what training.data.images.read_rgb reads
SOURCE = "own"  # of patches; published sets of patches carry their own names

Region = tuple[int, int, int, int]  # x, y, width and height


class Format(StrEnum):
    """The forms that data sets come in."""

    MIDOGPP = "midog++"
    SLIDE_RUNNER = "slide-runner"
    YOLO = "yolo"


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
    if not cv2.imwrite(str(path), rgb[..., ::-1]):
        raise OutputError(f"{path}: cannot be written; is the disk full?")


@dataclass
class Cutter:
    """Cuts regions out of slides: those with a labelled object, and a share of the others."""

    empty_share: float
    rng: np.random.Generator

    def cut(
        self, grid: Grid, regions: Iterable[Region], slide: LabelledSlide, split: str, folder: Path, labels: Labels
    ) -> None:
        """Write regions of one slide into ``folder`` and add them to ``labels``."""
        points = grid.points(slide.objects)
        for region in regions:
            x, y, *_ = region
            held = points[inside(points, region)]
            if len(held) == 0 and self.rng.random() >= self.empty_share:
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
            self.rows.append({"file": file, "source": SOURCE, "slide": name, "x": x, "y": y})

    def write(self) -> None:
        """Write the list."""
        with (self.folder / "patches.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ("file", "source", "slide", "x", "y"))
            writer.writeheader()
            writer.writerows(self.rows)


def whole_image(slide: LabelledSlide, folder: Path) -> str:
    """Return the whole path of an image that stays as it is, for the label file: its own, or that of a link to it.

    What is found on an image is kept under its file's name, so that ``train/a.png`` and ``val/a.png`` need two: a file
    that is not called as its slide is gets a link in ``folder`` that is. ``check_names`` holds those apart.
    """
    path = slide.path.resolve()
    if path.stem == slide.name:
        return str(path)
    link = folder.resolve() / f"{slide.name}{path.suffix}"
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return str(link)


def check_names(slides: list[LabelledSlide]) -> None:
    """Refuse two images of one name, whose pictures would overwrite each other. Raises InputError."""
    seen: dict[str, Path] = {}
    for slide in slides:
        if slide.name in seen:
            raise InputError(f"{slide.path}: would be named {slide.name}, as {seen[slide.name]} is; rename one of them")
        seen[slide.name] = slide.path


def grouped(slides: list[LabelledSlide], pattern: str) -> list[LabelledSlide]:
    """Return the slides with the case that a pattern's group finds in their file's name.

    Raises BadParameter for a pattern that cannot be used, and InputError for a name that does not fit it.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise typer.BadParameter(f"--case-pattern {pattern}: {error}") from error
    if compiled.groups != 1:
        raise typer.BadParameter(f"--case-pattern {pattern}: has {compiled.groups} groups; put the case in one, (...)")
    found = []
    for slide in slides:
        match = compiled.search(slide.path.name)
        if not match or not match[1]:
            raise InputError(f"{slide.path}: --case-pattern {pattern} finds no case in its name; mend the pattern")
        found.append(replace(slide, case=match[1]))
    return found


def main(
    source: Annotated[Path, typer.Option(help="Folder of MIDOG++ or YOLO, or SlideRunner's .sqlite")],
    output: Annotated[Path, typer.Option(help="Where windows.json, windows/ and frames.json go")],
    kind: Annotated[Format, typer.Option("--format", help="The form of the data set")],
    slides: Annotated[Path | None, typer.Option(help="SlideRunner: folder of the slides")] = None,
    tumor_type: Annotated[str, typer.Option(help="Where the data set does not say")] = "unknown",
    scanner: Annotated[str, typer.Option(help="Where the data set does not say")] = "unknown",
    spacing: Annotated[float | None, typer.Option(help="Micrometres per pixel where files do not say")] = None,
    empty_share: Annotated[float, typer.Option(help="Share of tiles without a labelled object to keep")] = 0.1,
    case_pattern: Annotated[
        str | None, typer.Option(help="Regular expression whose one group is the case in a file's name; else each file")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the data set, for the bundle; else that of the source")] = None,
    seed: int = 0,
) -> None:
    """Split by case 7:1:2, stratified by tumour type, and cut the training cases into tiles."""
    if kind is Format.MIDOGPP:
        found = read_midogpp(source, tumor_type, scanner)
    elif kind is Format.SLIDE_RUNNER:
        found = read_slide_runner(source, slides or source.parent, tumor_type, scanner)
    else:
        found = read_yolo(source, tumor_type, scanner)
    check_names(found)
    found = grouped(found, case_pattern) if case_pattern else found
    splits = split_cases({slide.case: slide.tumor_type for slide in found}, seed=seed)
    for folder in ("windows", "frames", "patches"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    windows, frames, patches = Labels(), Labels(), Patches(output)
    cutter = Cutter(empty_share, np.random.default_rng(seed))
    for slide in track(found, "slides"):
        split = splits[slide.case]
        with open_slide(slide.path, fallback(spacing)) as image:
            grid = Grid(image)
            if split != "test":
                patches.cut(grid, slide, split)
            if split == "train":
                regions = ((t.x_px, t.y_px, TILE_PX, TILE_PX) for t in tiles(*grid.size_px, TILE_PX, Config().overlap))
                cutter.cut(grid, regions, slide, split, output / "windows", windows)
            elif split == "val" and not grid.stays_whole():
                cutter.cut(grid, frames_of(*grid.size_px), slide, split, output / "frames", frames)
            else:
                points, path = grid.level_0_points(slide.objects), whole_image(slide, output / "frames")
                frames.add(path, slide, split, image.spacing.x_um, points)
    trained = sum(split == "train" for split in splits.values())
    name = name or (source.resolve().name if source.is_dir() else source.stem)
    description = f"{name} ({trained} training cases)"
    windows.write(output / "windows.json", description)
    frames.write(output / "frames.json", description)
    patches.write()
    (output / "splits.json").write_text(json.dumps(splits, indent=1, sort_keys=True))
    counts = f"{len(windows.images)} training tiles, {len(frames.images)} images of val and test"
    print(f"{counts}, {len(patches.rows)} patches -> {output}")


if __name__ == "__main__":
    typer.run(main)
