"""The challenge's own score: matching within 7.5 um, and F1 over the sum of all images' counts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from mitosis.config import one_line
from mitosis.errors import InputError, RuntimeUnavailableError
from mitosis.labels import LabelledImage
from mitosis.output.grand_challenge import FILE_NAME, Points, read_points

RECORD_NAME = "run.json"  # see mitosis.provenance, which brings more than scoring needs
RADIUS_UM = 7.5  # MIDOG 2025's evaluator, inclusive


@dataclass(frozen=True)
class Counts:
    """True positives, false positives, false negatives. Ratios of nothing are NaN, never 0 or 1."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """TP / (TP + FP)."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """TP / (TP + FN)."""
        return ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN)."""
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


@dataclass(frozen=True)
class Evaluation:
    """Counts over all images, per case and per scanner."""

    total: Counts
    per_case: dict[str, Counts]
    per_scanner: dict[str, Counts]


def ratio(part: int, whole: int) -> float:
    """Return part / whole, NaN for 0 / 0."""
    return part / whole if whole else math.nan


def match(truth_um: NDArray[np.float64], found_um: NDArray[np.float64]) -> Counts:
    """Match (n, 2) labels with (m, 2) detections as the challenge does: one to one, greedy, in the labels' order."""
    # Imported here: it brings scikit-learn, two seconds that detection need not wait for.
    try:
        from grand_challenge_metrics.scorers import score_detection
    except ImportError as error:
        raise RuntimeUnavailableError("scoring needs more packages; pip install 'mitosis[evaluate]'") from error

    score = score_detection(ground_truth=truth_um.tolist(), predictions=found_um.tolist(), radius=RADIUS_UM)
    return Counts(score.true_positives, score.false_positives, score.false_negatives)


def assign(truth_um: NDArray[np.float64], found_um: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each of (n, 2) labels which of (m, 2) detections hit it, -1 for none: ``match``, with names."""
    hits = np.full(len(truth_um), -1, np.int64)
    taken: set[int] = set()
    for label, place in enumerate(truth_um):
        distance = np.linalg.norm(found_um - place, axis=1)
        near = np.flatnonzero(distance <= RADIUS_UM)
        free = [int(index) for index in near[np.argsort(distance[near], kind="stable")] if int(index) not in taken]
        if free:
            hits[label] = free[0]
            taken.add(free[0])
    return hits


def evaluate_image(image: LabelledImage, points: Points) -> Counts:
    """Score one image's mitotic figures, given from its first pixel; rejected candidates do not count."""
    return match(image.mitotic_figures_px * image.spacing_um, points.xy_mm[points.is_mitotic_figure] * 1000)


def read_result(folder: Path, spacing_um: float) -> Points:
    """Read an image's mitotic-figures.json, in millimetres from its first pixel, with ``spacing_um`` a pixel.

    Its run.json says from which origin and with which spacing the places were written; where labels state another, the
    pixels hold, or places far from the first one would miss. What the platform's entry point wrote has no run.json: it
    is taken as it is. Raises InputError.
    """
    points, record = read_points(folder / FILE_NAME), folder / RECORD_NAME
    if not record.is_file():
        return points
    try:
        slide = json.loads(record.read_text())["slide"]
        origin_mm = np.array(slide.get("origin_mm", (0, 0)), np.float64).reshape(2)
        written_um = np.array(slide.get("spacing_um", (spacing_um, spacing_um)), np.float64).reshape(2)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{record}: is no valid {RECORD_NAME} ({one_line(error)[:120]}); detect again") from error
    return points._replace(xy_mm=(points.xy_mm - origin_mm) * (spacing_um / written_um))


def evaluate(predictions: Path, images: Iterable[LabelledImage]) -> Evaluation:
    """Score ``predictions/<stem>/mitotic-figures.json`` against the labels.

    Raises InputError when a labelled image has no result: leaving it out would flatter the score.
    """
    images = list(images)
    files = {image.stem: predictions / image.stem / FILE_NAME for image in images}
    if missing := [stem for stem, file in files.items() if not file.is_file()]:
        raise InputError(
            f"{predictions}: {len(missing)} of {len(images)} labelled images have no {FILE_NAME}, first {missing[0]}; "
            "detect on all of them, or choose a --split"
        )
    per_case: dict[str, Counts] = {}
    per_scanner: dict[str, Counts] = {}
    total = Counts()
    for image in images:
        counts = evaluate_image(image, read_result(files[image.stem].parent, image.spacing_um))
        total += counts
        per_case[image.case] = per_case.get(image.case, Counts()) + counts
        per_scanner[image.scanner] = per_scanner.get(image.scanner, Counts()) + counts
    return Evaluation(total, per_case, per_scanner)


def render(evaluation: Evaluation) -> Table:
    """Lay the counts out as a table."""
    table = Table("", "TP", "FP", "FN", "precision", "recall", "F1")
    groups = [("case", evaluation.per_case), ("scanner", evaluation.per_scanner)]
    for kind, counts in groups:
        for name, row in sorted(counts.items()):
            add_row(table, f"{kind} {name}", row)
        table.add_section()
    add_row(table, "all", evaluation.total)
    return table


def add_row(table: Table, name: str, counts: Counts) -> None:
    """Add one line; '-' where a ratio has nothing to divide."""
    ratios = ("-" if math.isnan(v) else f"{v:.3f}" for v in (counts.precision, counts.recall, counts.f1))
    table.add_row(name, str(counts.tp), str(counts.fp), str(counts.fn), *ratios)
