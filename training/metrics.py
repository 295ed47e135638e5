"""The challenge's metrics beyond F1, and intervals: average precision, FROC, bootstrap over cases."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchmetrics.detection import MeanAveragePrecision

from mitosis.evaluation import Counts
from training.scored import Scored, curve

AP_BOX_UM = 22.5  # MIDOG 2025's evaluator: boxes of this side around all points
FROC_STEPS = 40  # thresholds
FROC_LIMIT = 8.0  # false positives an image
RESAMPLES = 1000
ENOUGH_CASES = 5  # to draw from; of one or two, a bootstrap repeats what it was given

Floats = NDArray[np.float64]


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


def f1_interval(images: list[Scored], threshold: float, seed: int = 0) -> tuple[float, float, str]:
    """Return the 95 % bootstrap interval of the pooled F1, and what was drawn.

    Cases are drawn, not images: those of a case are alike. Where there are fewer than ``ENOUGH_CASES``, images are, and
    the interval is too narrow for other cases.
    """
    groups: dict[str, Counts] = {}
    by_case = len({one.image.case for one in images}) >= ENOUGH_CASES
    for one in images:
        group = one.image.case if by_case else one.image.file_name
        groups[group] = groups.get(group, Counts()) + one.counts(threshold)
    table = np.array([(c.tp, c.fp, c.fn) for c in groups.values()])
    rng = np.random.default_rng(seed)
    drawn = table[rng.integers(len(table), size=(RESAMPLES, len(table)))].sum(axis=1)
    f1 = 2 * drawn[:, 0] / np.maximum(2 * drawn[:, 0] + drawn[:, 1] + drawn[:, 2], 1)
    low, high = np.quantile(f1, (0.025, 0.975))
    return float(low), float(high), "cases" if by_case else "images"
