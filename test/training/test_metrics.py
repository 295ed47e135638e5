"""The challenge's further metrics on small cases whose answer is known."""

import math

import numpy as np
import pytest

from mitosis.labels import LabelledImage
from training.metrics import average_precision, f1_interval, froc_auc
from training.scored import Scored, best_threshold, lowest_of_the_best, pooled

LABELS = np.array([[100.0, 100], [300, 100], [500, 500]])
FALSE = np.array([[800.0, 800], [50, 700]])


def scored(points: np.ndarray, scores: list[float], case: str = "a", name: str = "a.png") -> Scored:
    image = LabelledImage(name, case, "s", 0.25, LABELS, np.zeros((0, 2)))
    return Scored(image, points, np.array(scores))


def test_a_perfect_detector_scores_one() -> None:
    images = [scored(LABELS, [0.9, 0.8, 0.7]), scored(LABELS + 2, [0.9, 0.8, 0.7])]
    assert average_precision(images) == pytest.approx(1.0)
    assert froc_auc(images) == pytest.approx(1.0)
    assert 0.0 < best_threshold(images) <= 0.7
    assert f1_interval(images, 0.5) == (1.0, 1.0, "images")


def test_the_threshold_is_the_lowest_with_about_the_best_f1() -> None:
    """At 0.5 F1 is 1; at 0.3 a false positive makes it 6 / 7; at 0.1 there are two."""
    one = scored(np.vstack([LABELS, FALSE]), [0.9, 0.9, 0.5, 0.3, 0.1])
    assert best_threshold([one]) == pytest.approx(0.31)
    assert lowest_of_the_best(np.array([0.2, 0.5, 0.96, 1.0, 0.0])) == 2
    assert lowest_of_the_best(np.array([np.nan, np.nan])) == 0


def test_one_false_positive_ranked_first() -> None:
    # Precision 0, 1/2, 2/3, 3/4 along the ranking; COCO takes the largest to the right, 3/4, at all 101 recalls.
    images = [scored(np.vstack([FALSE[:1], LABELS]), [0.95, 0.9, 0.8, 0.7])]
    assert average_precision(images) == pytest.approx(0.75)
    # No recall below one false positive an image, all of it there and beyond; linear in between as np.interp has it.
    assert 7 / 8 <= froc_auc(images) <= 7.6 / 8
    assert pooled(images, 0.85).tp == 1


def test_candidates_beyond_the_radius_do_not_count() -> None:
    near, far = LABELS + np.array([29.0, 0]), LABELS + np.array([31.0, 0])  # 7.25 and 7.75 um
    assert pooled([scored(near, [0.9] * 3)], 0.5).f1 == 1.0
    assert pooled([scored(far, [0.9] * 3)], 0.5).tp == 0
    assert scored(near, [0.9] * 3).positive.all()
    assert not scored(far, [0.9] * 3).positive.any()


def test_interval_draws_cases_where_there_are_some() -> None:
    good, bad = ([scored(p, [0.9] * len(p), case, f"{case}{len(p)}") for case in "abc"] for p in (LABELS, FALSE))
    low, high, drawn = f1_interval([*good, *bad[:2]], 0.5)
    assert (high, drawn) == (1.0, "images")
    assert low < 0.5
    many = [scored(LABELS if n % 2 else FALSE, [0.9] * (3 if n % 2 else 2), str(n // 2)) for n in range(20)]
    low, high, drawn = f1_interval(many, 0.5)  # every case has a good and a bad image, so all are alike
    assert drawn == "cases"
    assert low == high == pytest.approx(pooled(many, 0.5).f1)
    assert math.isnan(pooled([], 0.5).f1)
