"""Labelled images with a variant's candidates, and what a threshold makes of them. Needs no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from mitosis.bundle import Calibration
from mitosis.config import Config
from mitosis.detections import centres_px
from mitosis.evaluation import RADIUS_UM, Counts, match
from mitosis.labels import LabelledImage, read_labels
from mitosis.pipeline import Model, detect
from mitosis.slide import open_slide

PLATEAU = 0.05  # of F1; what 39 mitoses, even seen six ways, cannot tell apart
LOWEST_CONFIDENCE = 0.05  # of stage 1, where all candidates are wanted
STAGE_1_ALONE = Calibration(detector_weight=1, classifier_weight=0, bias=0)  # its score is the probability
STAGE_2_ALONE = Calibration(detector_weight=0, classifier_weight=1, bias=0)
THRESHOLDS = np.arange(0.01, 1.0, 0.01)
SETS = {  # of a data folder: where the pictures are, their labels, the split
    "val": ("frames", "frames.json", "val"),
    "test": ("frames", "frames.json", "test"),
    "aperio": ("aperio", "aperio.json", None),
}

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """One image's labels and one variant's candidates: ``points_px`` (n, 2) in the image's pixels, ``scores`` (n,)."""

    image: LabelledImage
    points_px: Floats
    scores: Floats

    def counts(self, threshold: float) -> Counts:
        """Match the candidates from ``threshold`` on as the challenge does."""
        um = self.image.spacing_um
        return match(self.image.mitotic_figures_px * um, self.points_px[self.scores >= threshold] * um)

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """Whether a labelled mitotic figure is within the challenge's radius of each candidate, (n,)."""
        distance = np.linalg.norm(self.points_px[:, None] - self.image.mitotic_figures_px[None], axis=2)
        return np.asarray((distance * self.image.spacing_um <= RADIUS_UM).any(axis=1))


def keeping_all(config: Config) -> Config:
    """Return a configuration that lets every candidate through, for a threshold that is chosen afterwards."""
    return config.model_copy(update={"detector_confidence": LOWEST_CONFIDENCE, "classifier_threshold": 0.0})


def sets_in(data: Path) -> list[str]:
    """Return those of ``SETS`` that the data folder has an image of: one of one's own has no aperio.

    Raises InputError where there is none of split val, without which there is no threshold.
    """
    images_of(data, "val")
    of_frames = {str(image.get("split")) for image in json.loads((data / "frames.json").read_text())["images"]}
    wanted = {None, *of_frames}
    return [name for name, (_, labels, split) in SETS.items() if split in wanted and (data / labels).is_file()]


def images_of(data: Path, name: str) -> tuple[list[LabelledImage], list[Path]]:
    """Return the labelled images of one of ``SETS`` and where they lie."""
    folder, labels, split = SETS[name]
    images = read_labels(data / labels, split)
    return images, [data / folder / image.file_name for image in images]


def score(model: Model, images: list[LabelledImage], paths: list[Path], what: str) -> list[Scored]:
    """Detect on every image; all candidates that the model's configuration lets through, with their probability."""
    scored = []
    for image, path in track(list(zip(images, paths, strict=True)), what):
        with open_slide(path, image.spacing_um) as slide:
            rows = detect(slide, model)
        scored.append(Scored(image, centres_px(rows), rows["probability"].astype(np.float64)))
    return scored


def pooled(images: list[Scored], threshold: float) -> Counts:
    """Sum the counts of all images."""
    return sum((image.counts(threshold) for image in images), Counts())


def curve(images: list[Scored], thresholds: Floats) -> list[Counts]:
    """Return the pooled counts at each threshold."""
    return [pooled(images, float(t)) for t in thresholds]


def f1_curve(images: list[Scored]) -> Floats:
    """Return the pooled F1 at each of ``THRESHOLDS``; NaN where there is neither candidate nor mitotic figure."""
    return np.array([c.f1 for c in curve(images, THRESHOLDS)])


def lowest_of_the_best(f1: Floats) -> int:
    """Return the first of the F1s, by rising threshold, that is within ``PLATEAU`` of the best.

    The curve is flat at its top, and other laboratories' mitoses score lower than the validation case's: at the upper
    end of the flat part an operating point is at the steep end of the curve elsewhere.
    """
    known = np.nan_to_num(f1)
    return int(np.argmax(known >= known.max() - PLATEAU))


def best_threshold(images: list[Scored]) -> float:
    """Return the lowest of ``THRESHOLDS`` with about the best pooled F1; see ``lowest_of_the_best``."""
    return float(THRESHOLDS[lowest_of_the_best(f1_curve(images))])
