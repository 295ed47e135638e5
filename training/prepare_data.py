"""Turns a published data set into what training reads: windows.json, frames.json, patches.csv and their pictures.

    python -m training.prepare_data --format midog++ --source MIDOGpp --output data/midogpp
    python -m training.prepare_data --format slide-runner --source MITOS_WSI_CCMCT_ODAEL_train_dcc.sqlite \\
        --slides WSI --tumor-type "canine cutaneous mast cell tumour" --output data/ccmct

Training cases are cut into tiles of 512 x 512 px with 20 % overlap: all that hold a labelled object, and a share of the
others. Cases of val and test stay whole, described in frames.json. Around every mitosis of train and val a patch is
cut; those of val are held out. The splits are written into both files.
"""

from __future__ import annotations

import csv
import itertools
import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from rich.progress import track

from mitosis.config import Config
from mitosis.labels import LOOK_ALIKE_NAME, MITOTIC_NAME
from mitosis.slide import open_slide
from mitosis.tiling import tiles
from training.data.images import BOX_PX, LOOK_ALIKE, MITOTIC, PATCH_PX, is_held_out
from training.data.importers import LabelledSlide, read_midogpp, read_slide_runner, read_yolo
from training.data.splits import split_cases

TILE_PX = 512
SOURCE = "own"  # of patches; published sets of patches carry their own names


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
        self,
        file_name: str,
        slide: LabelledSlide,
        split: str,
        spacing_um: float,
        points: list[tuple[float, float, int]],
    ) -> None:
        """Add one image with the centres and categories of its objects in its own pixels."""
        number = len(self.images) + 1
        self.images.append({
            "id": number, "file_name": file_name, "case": slide.case, "split": split, "scanner": slide.scanner,
            "tumor_type": slide.tumor_type, "spacing_um": spacing_um,
        })  # fmt: skip
        half = BOX_PX / 2
        self.annotations += [
            {"image_id": number, "category_id": category, "bbox": [x - half, y - half, x + half, y + half]}
            for x, y, category in points
        ]

    def write(self, path: Path) -> None:
        """Write the file."""
        categories = [{"id": MITOTIC, "name": MITOTIC_NAME}, {"id": LOOK_ALIKE, "name": LOOK_ALIKE_NAME}]
        content = {"categories": categories, "images": self.images, "annotations": self.annotations}
        path.write_text(json.dumps(content, indent=1))


def cut_tiles(
    slide: LabelledSlide,
    output: Path,
    labels: Labels,
    spacing_um: float | None,
    empty_share: float,
    rng: np.random.Generator,
) -> None:
    """Write the training tiles of one slide as lossless PNG."""
    points = np.array([(o.x_px, o.y_px, o.category) for o in slide.objects]).reshape(-1, 3)
    with open_slide(slide.path, spacing_um) as image:
        for tile in tiles(image.width_px, image.height_px, TILE_PX, Config().overlap):
            local = points - (tile.x_px, tile.y_px, 0)
            held = local[((local[:, :2] >= 0) & (local[:, :2] < TILE_PX)).all(axis=1)]
            if len(held) == 0 and rng.random() >= empty_share:
                continue
            name = f"{slide.case}_x{tile.x_px}_y{tile.y_px}.png"
            rgb = image.read(tile.x_px, tile.y_px, TILE_PX, TILE_PX)
            cv2.imwrite(str(output / "windows" / name), rgb[..., ::-1])
            labels.add(name, slide, "train", image.spacing.x_um, [(x, y, int(c)) for x, y, c in held])


class Patches:
    """``patches.csv`` and ``patches/``: a crop around each mitotic figure, for stage 2 and for mosaics."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, list[dict[str, str | int]]()

    def cut(self, slide: LabelledSlide, split: str, spacing_um: float | None) -> None:
        """Write the crops of one slide as lossless PNG.

        Training holds patches out by a hash of their slide's name (``training.data.images.is_held_out``). The name
        that is written makes it hold out those of val.
        """
        names = (f"{slide.case}-{number}" for number in itertools.count())
        name = next(name for name in names if is_held_out(SOURCE + name) == (split == "val"))
        with open_slide(slide.path, spacing_um) as image:
            for spot in (o for o in slide.objects if o.category == MITOTIC):
                x, y = round(spot.x_px), round(spot.y_px)
                file = f"{slide.case}_x{x}_y{y}.png"
                rgb = image.read(x - PATCH_PX // 2, y - PATCH_PX // 2, PATCH_PX, PATCH_PX)
                cv2.imwrite(str(self.folder / "patches" / file), rgb[..., ::-1])
                self.rows.append({"file": file, "source": SOURCE, "slide": name, "x": x, "y": y})

    def write(self) -> None:
        """Write the list."""
        with (self.folder / "patches.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ("file", "source", "slide", "x", "y"))
            writer.writeheader()
            writer.writerows(self.rows)


def main(
    source: Annotated[Path, typer.Option(help="Folder of MIDOG++ or YOLO, or SlideRunner's .sqlite")],
    output: Annotated[Path, typer.Option(help="Where windows.json, windows/ and frames.json go")],
    kind: Annotated[Format, typer.Option("--format", help="The form of the data set")],
    slides: Annotated[Path | None, typer.Option(help="SlideRunner: folder of the slides")] = None,
    tumor_type: Annotated[str, typer.Option(help="Where the data set does not say")] = "unknown",
    scanner: Annotated[str, typer.Option(help="Where the data set does not say")] = "unknown",
    spacing: Annotated[float | None, typer.Option(help="Micrometres per pixel where files do not say")] = None,
    empty_share: Annotated[float, typer.Option(help="Share of tiles without a labelled object to keep")] = 0.1,
    seed: int = 0,
) -> None:
    """Split by case 7:1:2, stratified by tumour type, and cut the training cases into tiles."""
    if kind is Format.MIDOGPP:
        found = read_midogpp(source)
    elif kind is Format.SLIDE_RUNNER:
        found = read_slide_runner(source, slides or source.parent, tumor_type, scanner)
    else:
        found = read_yolo(source, tumor_type, scanner)
    splits = split_cases({slide.case: slide.tumor_type for slide in found}, seed=seed)
    for folder in ("windows", "patches"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    windows, frames, patches, rng = Labels(), Labels(), Patches(output), np.random.default_rng(seed)
    for slide in track(found, "slides"):
        if splits[slide.case] != "test":
            patches.cut(slide, splits[slide.case], spacing)
        if splits[slide.case] == "train":
            cut_tiles(slide, output, windows, spacing, empty_share, rng)
            continue
        with open_slide(slide.path, spacing) as image:
            points = [(o.x_px, o.y_px, o.category) for o in slide.objects]
            frames.add(str(slide.path.resolve()), slide, splits[slide.case], image.spacing.x_um, points)
    windows.write(output / "windows.json")
    frames.write(output / "frames.json")
    patches.write()
    (output / "splits.json").write_text(json.dumps(splits, indent=1, sort_keys=True))
    counts = f"{len(windows.images)} training tiles, {len(frames.images)} whole images of val and test"
    print(f"{counts}, {len(patches.rows)} patches -> {output}")


if __name__ == "__main__":
    typer.run(main)
