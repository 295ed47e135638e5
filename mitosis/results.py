"""Detects on images and writes each one's folder of results."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mitosis.detections import Detections, boxes_px, centres_px
from mitosis.errors import InputError, MitosisError
from mitosis.output.grand_challenge import FILE_NAME, Points, write_points
from mitosis.output.overlay import write_overlay
from mitosis.pipeline import Model, Progress, detect
from mitosis.slide import IMAGE_SUFFIXES, Slide, open_slide
from mitosis.terminal import progress_bar

log = logging.getLogger(__name__)

OVERLAY_NAME = "overlay.png"
OVERLAY_PX = 64_000_000  # larger slides would need a picture that no viewer opens


@dataclass(frozen=True)
class Options:
    """What a user chooses for a run, apart from the model."""

    spacing_um: float | None = None
    overlay: bool = True


def to_points(slide: Slide, rows: Detections) -> Points:
    """Turn detections into what the challenge's file holds: centres in millimetres."""
    return Points(slide.point_mm(centres_px(rows)), rows["is_mitotic_figure"], rows["probability"].astype(np.float64))


def process_image(path: Path, target: Path, model: Model, options: Options, progress: Progress | None = None) -> int:
    """Detect on one image, write ``target`` (mitotic-figures.json); returns the number of mitotic figures.

    With ``options.overlay`` a picture of the result lies beside it. Raises MitosisError; then nothing was written.
    """
    started = time.monotonic()
    with open_slide(path, options.spacing_um) as slide:
        rows = detect(slide, model, progress)
        if options.overlay and slide.width_px * slide.height_px <= OVERLAY_PX:
            image = slide.read(0, 0, slide.width_px, slide.height_px)
            write_overlay(
                target.with_name(OVERLAY_NAME),
                image,
                boxes_px(rows),
                rows["is_mitotic_figure"],
                rows["probability"],
            )
        write_points(target, to_points(slide, rows))
        count = int(rows["is_mitotic_figure"].sum())
        log.info(
            "%s: %d mitotic figures, %d rejected candidates, %d x %d px at %.4g um (%s), %.1f s",
            path.name, count, len(rows) - count, slide.width_px, slide.height_px,
            slide.spacing.x_um, slide.spacing.source, time.monotonic() - started,
        )  # fmt: skip
    return count


def process_images(paths: Sequence[Path], output: Path, model: Model, options: Options) -> None:
    """Detect on every image and write ``output/<stem>/``; one that fails does not stop the rest.

    Raises InputError at the end, naming how many failed and why the first did.
    """
    check_names(paths)
    failed: list[MitosisError] = []
    with progress_bar() as bar:
        images = bar.add_task("images", total=len(paths))
        tiles = bar.add_task("tiles", total=None)
        for path in paths:
            try:
                process_image(path, output / path.stem / FILE_NAME, model, options, tile_counter(bar.update, tiles))
            except MitosisError as error:
                failed.append(error)
                log.error("%s", error)
            bar.advance(images)
    if len(failed) == 1 and len(paths) == 1:
        raise failed[0]
    if failed:
        raise InputError(f"{len(failed)} of {len(paths)} images failed, the others are done; first: {failed[0]}")


def tile_counter(update: Callable[..., None], task: object) -> Progress:
    """Return a progress callback that moves one task of a progress bar."""
    return lambda done, total: update(task, completed=done, total=total)


def check_names(paths: Sequence[Path]) -> None:
    """Refuse two images whose results would share a folder."""
    seen: dict[str, Path] = {}
    for path in paths:
        if (other := seen.setdefault(path.stem, path)) != path:
            raise InputError(f"{path}: its results would overwrite those of {other}; rename one or run them apart")


def images_in(folder: Path) -> list[Path]:
    """Return the images directly in a folder, by name; raises InputError where there is none."""
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"{folder}: no image there; put one of {', '.join(IMAGE_SUFFIXES)} into it")
    return found
