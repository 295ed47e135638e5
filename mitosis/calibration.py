"""From both stages' scores to one probability.

The paper publishes stage 2's score alone. Where a bundle carries a calibration, the probability is logistic in the
logits of both scores (Platt 1999, with two inputs): what stage 1 knew of each cell's wider surroundings is not lost.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mitosis.bundle import Calibration
from mitosis.detections import Detections

Floats = NDArray[np.float64]

SMALLEST = 1e-6  # scores nearer to 0 or 1 are held there: their logits would outweigh everything


def logits(scores: NDArray[np.floating]) -> Floats:
    """Return log(p / (1 - p)), bounded."""
    p = np.clip(scores.astype(np.float64), SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(p / (1 - p)))


def probabilities(rows: Detections, calibration: Calibration | None) -> NDArray[np.floating]:
    """Return each row's probability of being a mitotic figure, (n,) in 0..1."""
    if calibration is None:
        score: NDArray[np.floating] = rows["classifier_score"]
        return score
    margin = (
        calibration.detector_weight * logits(rows["detector_score"])
        + calibration.classifier_weight * logits(rows["classifier_score"])
        + calibration.bias
    )
    return np.asarray(1 / (1 + np.exp(-margin)))
