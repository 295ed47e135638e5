"""Seconds per mm2, end to end and both stages: of a bundle, or of the paper's profile with random weights.

    taskset -c 0,1 python -m benchmarks.per_area [REGION]                     the default bundle
    taskset -c 0,1 python -m benchmarks.per_area [REGION] --paper             improved YOLO11x and ConvNeXt-Tiny

Random weights cost what trained ones do, but propose anything. So their lowest stage 1 score is chosen to give stage 2
as much work as labels would: ``--candidates-per-mm2``. Detection runs from the file to the written
mitotic-figures.json.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from benchmarks.memory import peak_mb
from benchmarks.regions import SPACING_UM, densest_window, region
from mitosis.config import Config
from mitosis.detector import read_candidates
from mitosis.output.grand_challenge import FILE_NAME, read_points
from mitosis.pipeline import Model, load_model, tiles_to_read
from mitosis.results import process_case
from mitosis.slide import open_slide

ROOT = Path(__file__).parents[1]
CANDIDATES_PER_MM2 = 50.0
SHORT_LIST = 200  # scores of a tile, before its overlaps are dropped


def paper_model(path: Path, folder: Path, scale: str, classifier: str, per_mm2: float) -> Model:
    """Build the paper's networks with random weights; torch is imported for the export alone."""
    from benchmarks.random_bundle import random_bundle

    bundle = random_bundle(folder, "improved", scale, classifier, densest_window(path))  # type: ignore[arg-type]
    return at_work(bundle, path, per_mm2)


def at_work(bundle: Path, path: Path, per_mm2: float = CANDIDATES_PER_MM2) -> Model:
    """Load a bundle of random weights, which propose anything, so that stage 2 gets ``per_mm2`` candidates."""
    config = Config()
    confidence = score_for(load_model(bundle, config=config), path, per_mm2)
    return load_model(bundle, config=config.model_copy(update={"detector_confidence": confidence}))


def score_for(model: Model, path: Path, per_mm2: float) -> float:
    """Return the stage 1 score that about ``per_mm2`` candidates reach, each tile's own overlaps dropped."""
    scores = []
    with open_slide(path, SPACING_UM) as slide:
        tiles = tiles_to_read(slide, model, None)
        batches = ((t, slide.read(t.x_px, t.y_px, t.side_px, t.side_px)[None]) for t in tiles)
        for tile, raw in model.detector.map(batches):
            lowest = float(np.partition(raw[0, 4], -SHORT_LIST)[-SHORT_LIST])
            scores.append(read_candidates(raw[0], tile, lowest, model.config.nms_iou)["detector_score"])
        area_mm2 = slide.width_px * slide.height_px * (SPACING_UM / 1000) ** 2
    return float(np.sort(np.concatenate(scores))[-max(1, round(per_mm2 * area_mm2))])


def seconds_of(path: Path, loaded: Model, folder: Path, rounds: int) -> list[float]:
    """Return the seconds that detection takes each time, from the file to the written result in ``folder``."""
    seconds = []
    for number in range(rounds):
        started_s = time.perf_counter()
        process_case(path, folder / FILE_NAME, loaded, SPACING_UM)
        seconds.append(time.perf_counter() - started_s)
        print(f"round {number + 1}: {seconds[-1]:.2f} s", file=sys.stderr)
    return seconds


def area_mm2_of(path: Path) -> float:
    """Return the area of a region."""
    with Image.open(path) as opened:
        return float(opened.width * opened.height * (SPACING_UM / 1000) ** 2)


def main(
    image: Annotated[Path | None, typer.Argument(help="A JPEG or PNG region; default: a drawn one")] = None,
    model: Annotated[Path, typer.Option(help="The bundle")] = ROOT / "model",
    paper: Annotated[bool, typer.Option("--paper", help="The paper's profile instead, random weights")] = False,
    scale: Annotated[str, typer.Option(help="Of --paper's YOLO11")] = "x",
    classifier: Annotated[str, typer.Option(help="Of --paper")] = "convnext_tiny",
    candidates_per_mm2: Annotated[float, typer.Option(help="For stage 2 of --paper")] = CANDIDATES_PER_MM2,
    rounds: Annotated[int, typer.Option(help="Detections; the median is printed")] = 3,
) -> None:
    """Print one line of the table in benchmarks/README.md."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = region(image, folder)
        loaded = paper_model(path, folder, scale, classifier, candidates_per_mm2) if paper else load_model(model)
        seconds = seconds_of(path, loaded, folder, rounds)
        found, area_mm2 = len(read_points(folder / FILE_NAME).xy_mm), area_mm2_of(path)
    about, middle = loaded.bundle.description, statistics.median(seconds)
    print("| networks | runtime | s | s/mm2 | candidates per mm2 | peak MB |\n|---|---|---|---|---|---|")
    cells = [" + ".join(part.architecture for part in about.parts), loaded.runtime]
    cells += [f"{middle:.1f}", f"{middle / area_mm2:.2f}", f"{found / area_mm2:.0f}", f"{peak_mb():.0f}"]
    print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    typer.run(main)
