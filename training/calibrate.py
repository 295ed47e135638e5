"""Chooses both stages' thresholds on the validation frames and writes them into the bundle.

python -m training.calibrate --data ../shared/data --bundle model
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import yaml

from mitosis.bundle import DESCRIPTION
from mitosis.config import Config
from mitosis.detections import Detections, centres_px
from mitosis.evaluation import Counts, match
from mitosis.labels import LabelledImage, read_labels
from mitosis.pipeline import Model, detect, load_model
from mitosis.slide import open_slide

DETECTOR_GRID = np.arange(0.10, 0.71, 0.05)
LOWEST_RECALL = 0.7
CLASSIFIER_GRID = np.arange(0.0, 0.91, 0.05)


def detect_all(model: Model, folder: Path, images: list[LabelledImage]) -> list[Detections]:
    """Detect on every image, keeping all candidates."""
    found = []
    for image in images:
        with open_slide(folder / image.file_name, image.spacing_um) as slide:
            found.append(detect(slide, model))
    return found


def score(images: list[LabelledImage], found: list[Detections], detector: float, classifier: float) -> Counts:
    """Count matches when both scores must reach their thresholds."""
    total = Counts()
    for image, rows in zip(images, found, strict=True):
        kept = rows[(rows["detector_score"] >= detector) & (rows["classifier_score"] >= classifier)]
        total += match(image.mitotic_figures_px * image.spacing_um, centres_px(kept) * image.spacing_um)
    return total


def main(
    data: Annotated[Path, typer.Option(help="Folder with frames.json and frames/")],
    bundle: Annotated[Path, typer.Option(help="The bundle whose thresholds to choose")],
) -> None:
    """Take the thresholds with the best F1 on split val among those that keep recall; test frames are not looked at.

    Other laboratories' mitoses score lower than the validation case's, so that an operating point at the steep end of
    the curve finds next to nothing there.
    """
    keep_all = Config(detector_confidence=float(DETECTOR_GRID[0]), classifier_threshold=0.0)
    images = read_labels(data / "frames.json", "val")
    found = detect_all(load_model(bundle, config=keep_all), data / "frames", images)
    results = {(float(d), float(c)): score(images, found, d, c) for d, c in product(DETECTOR_GRID, CLASSIFIER_GRID)}
    paper = Config()
    for (detector, classifier), counts in results.items():
        if classifier == 0.0:
            print(f"one stage, detector {detector:.2f}: {counts} F1 {counts.f1:.3f}")
    at_paper = score(images, found, paper.detector_confidence, paper.classifier_threshold)
    print(f"paper's thresholds: {at_paper} F1 {at_paper.f1:.3f}")
    (detector, classifier), best = max(
        ((at, counts) for at, counts in results.items() if counts.recall >= LOWEST_RECALL), key=lambda item: item[1].f1
    )
    print(f"chosen: detector {detector:.2f}, classifier {classifier:.2f}: {best} F1 {best.f1:.3f}")
    description = yaml.safe_load((bundle / DESCRIPTION).read_text())
    description["operating_point"] = {
        "detector_confidence": round(detector, 2),
        "classifier_threshold": round(classifier, 2),
    }
    description["metrics"] = {"val_f1": round(best.f1, 3)}
    (bundle / DESCRIPTION).write_text(yaml.safe_dump(description, sort_keys=False))


if __name__ == "__main__":
    typer.run(main)
