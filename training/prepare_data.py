"""Turns a published data set into what training reads: windows.json, frames.json, patches.csv and their pictures.

    python -m training.prepare_data --format midog++ --source MIDOGpp --output data/midogpp
    python -m training.prepare_data --format slide-runner --source MITOS_WSI_CCMCT_ODAEL_train_dcc.sqlite \\
        --slides WSI --tumor-type "canine cutaneous mast cell tumour" --output data/ccmct

Training cases are cut into tiles of 512 x 512 px with 20 % overlap: all that hold a labelled object, and a share of the
others that show tissue. Images of val and test stay whole, linked or copied into frames/ and described in frames.json;
those of val that training cannot read whole are cut into frames without overlap, chosen likewise. Around every mitosis
of train and val a patch is cut; those of val are held out. Whatever is cut has the networks' 0.25 um a pixel where its
slide is far from that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from mitosis.config import Config
from mitosis.errors import InputError
from mitosis.slide import open_slide
from mitosis.spacing import fallback
from mitosis.tiling import tiles
from training.data.cutting import TILE_PX, Cutter, Grid, Labels, Patches, frames_of, whole_image
from training.data.images import MITOTIC
from training.data.importers import LabelledSlide, read_midogpp, read_slide_runner
from training.data.splits import split_cases
from training.data.yolo import read_yolo


class Format(StrEnum):
    """The forms that data sets come in."""

    MIDOGPP = "midog++"
    SLIDE_RUNNER = "slide-runner"
    YOLO = "yolo"


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


def check_splits(source: Path, slides: list[LabelledSlide], splits: Mapping[str, str]) -> str | None:
    """Refuse data without a mitosis to train on; return a warning where val, which later stages need, has none."""
    with_mitosis = {splits[s.case] for s in slides if any(o.category == MITOTIC for o in s.objects)}
    if "train" not in with_mitosis:
        raise InputError(f"{source}: no training case has a mitotic figure; label some, or try another --seed")
    if "val" in with_mitosis:
        return None
    return (
        f"warning: none of {len(splits)} cases is a val case with a mitotic figure; stage 1 can be trained, stage 2 "
        "and the threshold cannot. Label more cases, find more in the files' names with --case-pattern, or try another "
        "--seed"
    )


def main(
    source: Annotated[Path, typer.Option(help="Folder of MIDOG++ or YOLO, or SlideRunner's .sqlite")],
    output: Annotated[Path, typer.Option(help="Where windows.json, windows/ and frames.json go")],
    kind: Annotated[Format, typer.Option("--format", help="The form of the data set")],
    slides: Annotated[Path | None, typer.Option(help="SlideRunner: folder of the slides")] = None,
    tumor_type: Annotated[str, typer.Option(help="Where the data set does not say")] = "unknown",
    scanner: Annotated[str, typer.Option(help="Where the data set does not say")] = "unknown",
    spacing: Annotated[
        float | None, typer.Option(help="Micrometres per pixel where neither labels nor files say")
    ] = None,
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
    warning = check_splits(source, found, splits)
    for folder in ("windows", "frames", "patches"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    windows, frames, patches = Labels(), Labels(), Patches(output)
    cutter = Cutter(empty_share, np.random.default_rng(seed))
    for slide in track(found, "slides"):
        split = splits[slide.case]
        with open_slide(slide.path, fallback(slide.spacing_um or spacing)) as image:
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
    if warning:
        print(warning)


if __name__ == "__main__":
    typer.run(main)
