"""Detects on images and writes each one's folder of results, complete by itself."""

from __future__ import annotations

import csv
import glob
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from mitosis.detections import Detections, boxes_px, centres_px
from mitosis.errors import InputError, MitosisError
from mitosis.hotspot import DEFAULT_AREA_MM2, Hotspot, find_hotspots
from mitosis.memory import said_of
from mitosis.output.asap import ASAP_NAME, write_asap
from mitosis.output.geojson import detection_features, hotspot_features, write_features
from mitosis.output.grand_challenge import FILE_NAME, Points, write_points
from mitosis.output.overlay import write_overlay
from mitosis.output.report import REPORT_NAME, write_report
from mitosis.output.table import write_table
from mitosis.pipeline import Model, Progress, detect
from mitosis.provenance import RUN_NAME, is_finished, settings, write_run
from mitosis.slide import IMAGE_SUFFIXES, WHOLE_PX, Slide, open_slide
from mitosis.terminal import console, progress_bar
from mitosis.tissue import find_tissue

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """What a user chooses for a run, apart from the model."""

    spacing_um: float | None = None
    overlay: bool = True
    hotspot_area_mm2: float = DEFAULT_AREA_MM2
    hotspots: int = 3
    report: bool = True
    asap: bool = False
    tissue_mask: bool = True  # for slides too large to be decoded whole


@dataclass(frozen=True)
class Summary:
    """What one slide came to."""

    name: str
    figures: int = 0
    candidates: int = 0
    hotspot: Hotspot | None = None
    seconds: float = 0.0
    skipped: bool = False
    error: MitosisError | None = None


def to_points(slide: Slide, rows: Detections) -> Points:
    """Turn detections into what the challenge's file holds: centres in millimetres."""
    return Points(slide.point_mm(centres_px(rows)), rows["is_mitotic_figure"], rows["probability"].astype(np.float64))


def process_case(path: Path, target: Path, model: Model, spacing_um: float | None) -> None:
    """Detect on one image and write ``target`` (mitotic-figures.json), nothing else: what the challenge asks for.

    Raises MitosisError; then nothing was written.
    """
    with said_of(path), open_slide(path, spacing_um) as slide:
        rows = detect(slide, model)
        write_points(target, to_points(slide, rows))
        log.info("%s: %d mitotic figures of %d candidates", path.name, rows["is_mitotic_figure"].sum(), len(rows))


def process_slide(
    path: Path, folder: Path, model: Model, options: Options, progress: Progress | None = None
) -> Summary:
    """Detect on one slide and fill its folder; run.json comes last. Raises MitosisError.

    A folder that was being filled when the power went has no run.json of these settings, and is filled anew.
    """
    started = time.perf_counter()
    (folder / RUN_NAME).unlink(missing_ok=True)
    with said_of(path), open_slide(path, options.spacing_um) as slide:
        wanted = settings(path, model, asdict(options))
        tissue = find_tissue(slide)
        masked = options.tissue_mask and slide.width_px * slide.height_px > WHOLE_PX
        rows = detect(slide, model, progress, tissue if masked else None)
        detected = time.perf_counter()
        points = to_points(slide, rows)
        spacing_um = (slide.spacing.x_um, slide.spacing.y_um)
        hotspots = find_hotspots(
            centres_px(rows),
            rows["probability"],
            model.config.classifier_threshold,
            (slide.width_px, slide.height_px),
            spacing_um,
            options.hotspot_area_mm2,
            options.hotspots,
        )
        write_points(folder / FILE_NAME, points)
        write_table(folder / "detections.csv", rows, points.xy_mm, hotspots)
        write_features(folder / "detections.geojson", detection_features(rows))
        write_features(folder / "hotspots.geojson", hotspot_features(hotspots))
        if options.overlay and slide.width_px * slide.height_px <= WHOLE_PX:
            image = slide.read(0, 0, slide.width_px, slide.height_px)
            labels = rows["is_mitotic_figure"]
            write_overlay(folder / "overlay.png", image, boxes_px(rows), labels, rows["probability"])
        if options.asap:
            write_asap(folder / ASAP_NAME, rows)
        if options.report:
            write_report(folder / REPORT_NAME, slide, model, rows, hotspots, tissue)
        done = time.perf_counter()
        figures = int(rows["is_mitotic_figure"].sum())
        tissue_mm2 = tissue.area_mm2(spacing_um)
        result = {
            "mitotic_figures": figures,
            "candidates": len(rows),
            "tissue_mm2": round(tissue_mm2, 4),
            "per_mm2_of_tissue": round(figures / tissue_mm2, 4) if tissue_mm2 else None,
            "hotspots": [asdict(h) | {"per_mm2": h.per_mm2} for h in hotspots],
        }
        write_run(folder, wanted, slide, model, {"detect": detected - started, "write": done - detected}, result)
    return Summary(path.name, figures, len(rows), hotspots[0] if hotspots else None, done - started)


def process_slides(
    paths: Sequence[Path], output: Path, model: Model, options: Options, overwrite: bool = False
) -> list[Summary]:
    """Fill ``output/<stem>/`` for every slide; one that fails does not stop the rest, a finished one is skipped.

    Prints a table at the end. Raises InputError then, naming how many failed and why the first did.
    """
    check_names(paths)
    summaries = []
    with progress_bar() as bar:
        slides = bar.add_task("slides", total=len(paths))
        tiles = bar.add_task("tiles", total=None)
        for path in paths:
            folder = output / path.stem
            try:
                if not overwrite and path.is_file() and is_finished(folder, settings(path, model, asdict(options))):
                    summaries.append(Summary(path.name, skipped=True))
                else:
                    summaries.append(process_slide(path, folder, model, options, tile_counter(bar.update, tiles)))
            except MitosisError as error:
                summaries.append(Summary(path.name, error=error))
                log.error("%s", error)
            bar.advance(slides)
    console.print(summary_table(summaries))
    failed = [s.error for s in summaries if s.error]
    if len(failed) == 1 and len(paths) == 1:
        raise failed[0]
    if failed:
        raise InputError(f"{len(failed)} of {len(paths)} images failed, the others are done; first: {failed[0]}")
    return summaries


def summary_table(summaries: list[Summary]) -> Table:
    """Lay out what each slide came to."""
    table = Table("slide", "mitotic figures", "rejected", "hotspot 1", "seconds", "remark")
    for s in summaries:
        if s.error or s.skipped:
            remark = f"failed: {s.error}" if s.error else "finished before, skipped; --overwrite repeats it"
            table.add_row(s.name, "", "", "", "", remark)
        else:
            spot = f"{s.hotspot.count} in {s.hotspot.area_mm2:.2f} mm2" if s.hotspot else "none"
            table.add_row(s.name, str(s.figures), str(s.candidates - s.figures), spot, f"{s.seconds:.1f}", "")
    return table


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


def find_slides(given: Sequence[Path]) -> list[Path]:
    """Resolve files, folders, globs (for shells that leave them alone) and manifests (.csv) to slides, each once.

    Raises InputError for a folder or a manifest without slides. A file that does not exist is kept, and fails by name.
    """
    return list(dict.fromkeys(path for one in given for path in expand(one)))


def expand(given: Path) -> Iterator[Path]:
    """Yield the slides that one argument stands for."""
    if given.is_dir():
        yield from images_in(given)
    elif given.suffix.lower() == ".csv":
        yield from read_manifest(given)
    elif not given.exists() and glob.has_magic(str(given)):
        found = sorted(map(Path, glob.glob(str(given), recursive=True)))  # noqa: PTH207 - may be absolute
        if not found:
            raise InputError(f"{given}: matches no file; check the pattern")
        yield from found
    else:
        yield given


def read_manifest(path: Path) -> list[Path]:
    """Read a CSV file with a column ``path``; relative paths start at the manifest's folder."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            slides = [path.parent / row["path"] for row in csv.DictReader(file) if row["path"]]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise InputError(f"{path}: is not a manifest; it needs a header with a column 'path'") from error
    if not slides:
        raise InputError(f"{path}: lists no slide; give each a line")
    return slides
