"""Detects on images and writes each one's folder of results, complete by itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import ConfigDict

from mitosis.adaptive import adapted
from mitosis.config import one_line
from mitosis.detections import Detections, boxes_px, centres_px
from mitosis.errors import InputError, MitosisError, UnexpectedError
from mitosis.hotspot import DEFAULT_AREA_MM2, Hotspot, Shape, find_hotspots
from mitosis.inputs import check_names
from mitosis.memory import said_of
from mitosis.output.asap import ASAP_NAME, write_asap
from mitosis.output.atomic import remove, remove_leftovers
from mitosis.output.geojson import DETECTIONS_NAME, HOTSPOTS_NAME, detection_features, hotspot_features, write_features
from mitosis.output.grand_challenge import FILE_NAME, Points, write_points
from mitosis.output.overlay import OVERLAY_NAME, draw_overlay, write_png
from mitosis.output.report import REPORT_NAME, write_report
from mitosis.output.table import PARQUET_NAME, TABLE_NAME, check_parquet, write_parquet, write_table
from mitosis.pipeline import Model, Progress, detect
from mitosis.provenance import RUN_NAME, finished_result, settings, write_run
from mitosis.slide import WHOLE_PX, Slide, is_file, open_slide
from mitosis.spacing import fallback
from mitosis.stopwatch import Stopwatch, TimedNetwork
from mitosis.summary import Summary, begin, concluded
from mitosis.terminal import SlideProgress
from mitosis.tissue import TissueMask, find_tissue

log = logging.getLogger(__name__)

# All that a run may leave in a slide's folder beside run.json.
RESULT_NAMES = (
    FILE_NAME, TABLE_NAME, PARQUET_NAME, DETECTIONS_NAME, HOTSPOTS_NAME, OVERLAY_NAME, ASAP_NAME, REPORT_NAME,
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What a user chooses for a run, apart from the model."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")  # where a run.json is read back

    spacing_um: float | None = None
    overlay: bool = True
    hotspot_area_mm2: float = DEFAULT_AREA_MM2
    hotspots: int = 3  # at least one: the mitotic count is that of the first
    report: bool = True
    asap: bool = False
    tissue_mask: bool = True  # for slides too large to be decoded whole
    hotspot_shape: Shape = Shape.RECTANGLE
    parquet: bool = False
    adaptive_threshold: bool = False

    def __post_init__(self) -> None:
        """Raise InputError where no field would be looked for: the count would be 0 whatever is on the slide."""
        if self.hotspots < 1:
            raise InputError(f"--hotspots {self.hotspots}: the mitotic count is that of hotspot 1; ask for 1 or more")


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

    What an earlier run left in the folder goes first: a folder without run.json, as a killed or failed run leaves it,
    holds no older result and is filled anew. Only a slide that is gone, as on a drive not mounted today, keeps its own.
    """
    began, watch = datetime.now(UTC), Stopwatch()
    if is_file(path):
        clear(folder)
    if options.parquet:
        check_parquet()
    with said_of(path), watch("opening"):
        slide = open_slide(path, fallback(options.spacing_um))
    with said_of(path), slide:
        slide.stopwatch = watch
        wanted = settings(path, model, asdict(options))
        with watch("tissue"):
            tissue = find_tissue(slide)
            if options.adaptive_threshold:
                model = adapted(model, slide)
        masked = options.tissue_mask and slide.width_px * slide.height_px > WHOLE_PX
        timed = replace(
            model,
            detector=TimedNetwork(model.detector, watch, "detector"),
            classifier=TimedNetwork(model.classifier, watch, "classifier"),
            second_look=model.second_look and TimedNetwork(model.second_look, watch, "detector"),
            repeating=model.repeating and TimedNetwork(model.repeating, watch, "detector"),
        )
        with watch("candidates"):
            rows = detect(slide, timed, progress, tissue if masked else None)
        with watch("hotspots"):
            hotspots = hotspots_of(slide, rows, model, options, tissue)
        with watch("writing"):
            write_files(folder, slide, model, options, rows, hotspots, tissue)
        result = outcome(slide, rows, hotspots, tissue)
        seconds = watch.seconds | {"total": watch.total()}
        write_run(folder, wanted, slide, model, began, seconds, result, RESULT_NAMES)
    return Summary(path.name, result, watch.total())


def clear(folder: Path) -> None:
    """Remove what an earlier run left in a slide's folder, first the mark that it was finished; other files stay.

    Raises OutputError.
    """
    names = (RUN_NAME, *RESULT_NAMES)
    for name in names:
        remove(folder / name)
    remove_leftovers(folder, names)


def hotspots_of(slide: Slide, rows: Detections, model: Model, options: Options, tissue: TissueMask) -> list[Hotspot]:
    """Rank the slide's fields as the user wants them."""
    return find_hotspots(
        centres_px(rows),
        rows["probability"],
        model.config.classifier_threshold,
        (slide.width_px, slide.height_px),
        (slide.spacing.x_um, slide.spacing.y_um),
        options.hotspot_area_mm2,
        options.hotspots,
        options.hotspot_shape,
        tissue,
    )


def write_files(
    folder: Path,
    slide: Slide,
    model: Model,
    options: Options,
    rows: Detections,
    hotspots: list[Hotspot],
    tissue: TissueMask,
) -> None:
    """Write all files of a slide's folder but run.json; raises InputError, OutputError."""
    points = to_points(slide, rows)
    write_points(folder / FILE_NAME, points)
    write_table(folder / TABLE_NAME, rows, points.xy_mm, hotspots)
    if options.parquet:
        write_parquet(folder / PARQUET_NAME, rows, points.xy_mm, hotspots)
    write_features(folder / DETECTIONS_NAME, detection_features(rows))
    write_features(folder / HOTSPOTS_NAME, hotspot_features(hotspots))
    if options.overlay and slide.width_px * slide.height_px <= WHOLE_PX:
        image = slide.read(0, 0, slide.width_px, slide.height_px)
        labels, scores = rows["is_mitotic_figure"], rows["probability"]
        picture = draw_overlay(image, boxes_px(rows), labels, scores, hotspots)
        write_png(folder / OVERLAY_NAME, picture, "--overlay")
    if options.asap:
        write_asap(folder / ASAP_NAME, rows)
    if options.report:
        write_report(folder / REPORT_NAME, slide, model, rows, hotspots, tissue)


def outcome(slide: Slide, rows: Detections, hotspots: list[Hotspot], tissue: TissueMask) -> dict[str, object]:
    """Return the slide's figures as run.json has them. The mitotic count is that of the first hotspot; none is 0."""
    figures = int(rows["is_mitotic_figure"].sum())
    tissue_mm2 = tissue.area_mm2((slide.spacing.x_um, slide.spacing.y_um))
    return {
        "mitotic_count": hotspots[0].count if hotspots else 0,
        "mitotic_figures": figures,
        "candidates": len(rows),
        "tissue_mm2": round(tissue_mm2, 4),
        "per_mm2_of_tissue": round(figures / tissue_mm2, 4) if tissue_mm2 else None,
        "hotspots": [described(spot) for spot in hotspots],
    }


def described(spot: Hotspot) -> dict[str, object]:
    """Return a hotspot as run.json has it: its place exact, areas and densities rounded."""
    numbers = {
        "area_mm2": spot.area_mm2,
        "tissue_mm2": spot.tissue_mm2,
        "per_mm2": spot.per_mm2,
        "per_mm2_of_tissue": spot.per_mm2_of_tissue,
    }
    return asdict(spot) | {name: None if v is None else round(v, 5) for name, v in numbers.items()}


def process_slides(
    paths: Sequence[Path], output: Path, model: Model, options: Options, overwrite: bool = False
) -> list[Summary]:
    """Fill ``output/<stem>/`` for every slide; one that fails does not stop the rest, a finished one is skipped.

    Prints a table at the end and writes it to ``output/summary.csv``. Raises then what ``concluded`` raises, and
    OutputError at once where nothing can be written to ``output``.
    """
    check_names(paths)
    begin(output)
    summaries = []
    with SlideProgress(len(paths)) as shown:
        for path in paths:
            summaries.append(attempt(path, output, model, options, overwrite, shown.begin(path.name)))
            shown.finish(summaries[-1].line(), bool(summaries[-1].error))
    return concluded(summaries, output)


def attempt(
    path: Path, output: Path, model: Model, options: Options, overwrite: bool, progress: Progress | None = None
) -> Summary:
    """Fill ``output/<stem>/`` unless it is finished already; what the slide fails with becomes part of its summary."""
    folder, started = output / path.stem, time.perf_counter()
    try:
        if not overwrite and is_file(path):
            result = finished_result(folder, settings(path, model, asdict(options)))
            if result is not None:
                return Summary(path.name, result, skipped=True)
        return process_slide(path, folder, model, options, progress)
    except MitosisError as error:
        log.debug("%s", path, exc_info=True)
        kept = type(error)(str(error))  # without its traceback, whose frames hold the slide's pixels until the end
        return Summary(path.name, error=kept, seconds=time.perf_counter() - started)
    except Exception as error:  # whatever one slide does to a library, the others go on
        log.debug("%s", path, exc_info=True)
        reason = f"{path}: unexpected {type(error).__name__}: {one_line(error)}; run with --debug and report it"
        return Summary(path.name, error=UnexpectedError(reason), seconds=time.perf_counter() - started)
