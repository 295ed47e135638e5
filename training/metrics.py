"""The challenge's metrics beyond F1, and intervals: average precision, FROC, bootstrap over cases."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.detection import MeanAveragePrecision

from mitosis.evaluation import Counts, match
from mitosis.labels import LabelledImage

AP_BOX_UM = 22.5  # MIDOG 2025's evaluator: boxes of this side around all points
FROC_STEPS = 40  # thresholds
FROC_LIMIT = 8.0  # false positives an image
RESAMPLES = 1000

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
        return np.asarray((distance * self.image.spacing_um <= 7.5).any(axis=1))


def pooled(images: list[Scored], threshold: float) -> Counts:
    """Sum the counts of all images."""
    return sum((image.counts(threshold) for image in images), Counts())


def curve(images: list[Scored], thresholds: Floats) -> list[Counts]:
    """Return the pooled counts at each threshold."""
    return [pooled(images, float(t)) for t in thresholds]


def best_threshold(images: list[Scored]) -> float:
    """Return the threshold of the best pooled F1, in steps of 0.01."""
    thresholds = np.arange(0.01, 1.0, 0.01)
    return float(thresholds[np.argmax(np.nan_to_num([c.f1 for c in curve(images, thresholds)]))])


def average_precision(images: list[Scored]) -> float:
    """Return torchmetrics' ``map_50`` on boxes of 22.5 um around candidates and labels, as the challenge does."""
    metric = MeanAveragePrecision(iou_thresholds=[0.5], max_detection_thresholds=[1, 10, 10_000])
    metric.warn_on_many_detections = False
    for one in images:
        found, truth = (boxes(points, one.image.spacing_um) for points in (one.points_px, one.image.mitotic_figures_px))
        labels = [torch.zeros(len(b), dtype=torch.int64) for b in (found, truth)]
        scores = torch.from_numpy(one.scores.astype(np.float32))
        metric.update(
            [{"boxes": found, "scores": scores, "labels": labels[0]}], [{"boxes": truth, "labels": labels[1]}]
        )
    return float(metric.compute()["map_50"])


def boxes(points_px: Floats, spacing_um: float) -> torch.Tensor:
    """Return (n, 4) corners of the evaluator's boxes, in pixels."""
    half = AP_BOX_UM / spacing_um / 2
    points = torch.from_numpy(points_px.astype(np.float32)).reshape(-1, 2)
    return torch.cat([points - half, points + half], dim=1)


def froc(images: list[Scored]) -> tuple[Floats, Floats]:
    """Return false positives an image and recall at 40 thresholds over all scores, by rising false positives."""
    scores = np.concatenate([one.scores for one in images])
    thresholds = np.linspace(scores.max(initial=0.0), scores.min(initial=0.0), FROC_STEPS)
    points = curve(images, thresholds)
    return np.array([c.fp / len(images) for c in points]), np.array([c.recall for c in points])


def froc_auc(images: list[Scored]) -> float:
    """Return the mean recall over 0 to 8 false positives an image; beyond the last threshold it stays as it was."""
    false_positives, recall = froc(images)
    grid = np.linspace(0, FROC_LIMIT, 801)
    return float(np.interp(grid, false_positives, recall, left=0.0).mean())


def f1_interval(images: list[Scored], threshold: float, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the pooled F1, drawing cases, not images: those of a case are alike."""
    cases: dict[str, Counts] = {}
    for one in images:
        cases[one.image.case] = cases.get(one.image.case, Counts()) + one.counts(threshold)
    table = np.array([(c.tp, c.fp, c.fn) for c in cases.values()])
    rng = np.random.default_rng(seed)
    drawn = table[rng.integers(len(table), size=(RESAMPLES, len(table)))].sum(axis=1)
    f1 = 2 * drawn[:, 0] / np.maximum(2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2], 1)
    low, high = np.quantile(f1, (0.025, 0.975))
    return float(low), float(high)
