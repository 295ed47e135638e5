"""One probability from two scores."""

import numpy as np

from mitosis.bundle import Calibration
from mitosis.calibration import logits, probabilities
from mitosis.detections import empty_detections


def test_without_calibration_it_is_stage_2s_score() -> None:
    rows = empty_detections(3)
    rows["classifier_score"] = [0.1, 0.5, 0.9]
    np.testing.assert_array_equal(probabilities(rows, None), rows["classifier_score"])


def test_by_hand() -> None:
    rows = empty_detections(1)
    rows["detector_score"], rows["classifier_score"] = 0.8, 0.2  # logits log 4 and -log 4
    calibration = Calibration(detector_weight=2.0, classifier_weight=1.0, bias=0.0)
    np.testing.assert_allclose(probabilities(rows, calibration), 0.8, rtol=1e-6)


def test_certain_scores_stay_finite() -> None:
    assert np.isfinite(logits(np.array([0.0, 1.0]))).all()
