"""The challenge's matching against the documented rule, and sums over images rather than means."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mitosis.errors import InputError
from mitosis.evaluation import RADIUS_UM, Counts, evaluate, match, render
from mitosis.labels import LabelledImage, read_labels
from mitosis.output.grand_challenge import Points, write_points


def match_by_the_rule(truth: NDArray[np.float64], found: NDArray[np.float64]) -> Counts:
    free = set(range(len(found)))
    tp = 0
    for label in truth:
        near = [(float(np.hypot(*(found[i] - label))), i) for i in free]
        near = sorted(pair for pair in near if pair[0] <= RADIUS_UM)
        if near:
            free.remove(near[0][1])
            tp += 1
    return Counts(tp, len(found) - tp, len(truth) - tp)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 15), st.integers(0, 15))
def test_equals_the_documented_rule(seed: int, labels: int, detections: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = rng.uniform(0, 40, (labels, 2)), rng.uniform(0, 40, (detections, 2))
    assert match(truth, found) == match_by_the_rule(truth, found)


def test_the_radius_is_inclusive() -> None:
    assert match(np.zeros((1, 2)), np.array([[RADIUS_UM, 0.0]])).tp == 1
    assert match(np.zeros((1, 2)), np.array([[RADIUS_UM + 1e-6, 0.0]])).tp == 0


def test_ratios() -> None:
    counts = Counts(8, 2, 4)
    assert (counts.precision, counts.recall, counts.f1) == pytest.approx((0.8, 2 / 3, 16 / 22))
    assert math.isnan(Counts().f1)


def write(folder: Path, labelled: LabelledImage, named: list[bool] | None = None) -> None:
    """Write the labels themselves as the result, each named a mitotic figure or as ``named`` says."""
    count = len(labelled.mitotic_figures_px)
    is_mitotic_figure = np.array([True] * count if named is None else named, bool)
    xy_mm = labelled.mitotic_figures_px * labelled.spacing_um / 1000
    write_points(folder / labelled.stem / "mitotic-figures.json", Points(xy_mm, is_mitotic_figure, np.ones(count)))


def image(stem: str, case: str, count: int) -> LabelledImage:
    places = np.column_stack([np.arange(count) * 200.0, np.zeros(count)])
    return LabelledImage(f"{stem}.tiff", case, "scanner", 0.25, places, np.zeros((0, 2)))


def test_counts_are_summed_over_images(tmp_path: Path) -> None:
    images = [image("a", "one", 10), image("b", "two", 1)]
    write_points(
        tmp_path / "a/mitotic-figures.json",
        Points(images[0].mitotic_figures_px * 0.25e-3, np.ones(10, bool), np.ones(10)),
    )
    write_points(tmp_path / "b/mitotic-figures.json", Points(np.zeros((0, 2)), np.ones(0, bool), np.ones(0)))
    found = evaluate(tmp_path, images)
    assert found.total == Counts(10, 0, 1)
    assert found.per_case == {"one": Counts(10, 0, 0), "two": Counts(0, 0, 1)}
    assert render(found).row_count == 4


def test_rejected_candidates_do_not_count(tmp_path: Path) -> None:
    labelled = image("a", "one", 2)
    write_points(
        tmp_path / "a/mitotic-figures.json",
        Points(labelled.mitotic_figures_px * 0.25e-3, np.array([True, False]), np.ones(2)),
    )
    assert evaluate(tmp_path, [labelled]).total == Counts(1, 0, 1)


def test_a_missing_result_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 of 1 .*first a"):
        evaluate(tmp_path, [image("a", "one", 1)])


def test_labels_of_another_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"images": []}))
    with pytest.raises(InputError, match=r"a\.json"):
        read_labels(tmp_path / "a.json")


@pytest.mark.data
def test_real_labels_score_one_against_themselves(data: Path, tmp_path: Path) -> None:
    images = read_labels(data / "frames.json", "test")
    with pytest.raises(InputError, match="choose one of test, val"):
        read_labels(data / "frames.json", "nonsense")
    for labelled in images:
        xy_mm = labelled.mitotic_figures_px * labelled.spacing_um / 1000
        write_points(
            tmp_path / labelled.stem / "mitotic-figures.json",
            Points(xy_mm, np.ones(len(xy_mm), bool), np.ones(len(xy_mm))),
        )
    total = evaluate(tmp_path, images).total
    assert (total.f1, total.tp) == (1.0, sum(len(i.mitotic_figures_px) for i in images))
