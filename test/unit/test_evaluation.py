"""The challenge's matching against the documented rule, and sums over images rather than means."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

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


def document(**annotation: Any) -> dict[str, Any]:
    """Two good images, and two annotations of which the second differs as told."""
    good = {"image_id": 7, "category_id": 1, "bbox": [100, 200, 150, 250]}
    return {
        "categories": [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}],
        "images": [{"id": n, "file_name": f"{n}.tiff", "spacing_um": 0.25, "split": "test"} for n in (7, 8)],
        "annotations": [good, good | {"id": 33} | annotation],
    }


def labels(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox": [900, 800, 50, 50]}, "COCO"),
        ({"bbox": [10, 800, 50, 50]}, "COCO"),
        ({"bbox": [10, 10, 10, 60]}, "COCO"),
        ({"bbox": [10, 10, float("nan"), 60]}, "COCO"),
        ({"image_id": 9}, "no image of id 9"),
    ],
)
def test_an_annotation_that_cannot_be_meant_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=rf"a\.json: annotation 33: .*{reason}"):
        read_labels(labels(tmp_path / "a.json", document(**change)))
    no_id = document(**change)
    del no_id["annotations"][1]["id"]
    with pytest.raises(InputError, match=rf"a\.json: annotation at place 1: .*{reason}"):
        read_labels(labels(tmp_path / "a.json", no_id))


def test_categories_are_known_by_any_spelling_or_refused(tmp_path: Path) -> None:
    content = document(category_id=2)
    for mitotic, other in (("Mitotic Figure", "Hard_Negative"), ("MITOSIS", "non-mitotic figure")):
        content["categories"] = [{"id": 1, "name": mitotic}, {"id": 2, "name": other}, {"id": 3, "name": "unused"}]
        first, second = read_labels(labels(tmp_path / "a.json", content))
        assert (len(first.mitotic_figures_px), len(first.look_alikes_px)) == (1, 1)
        assert (len(second.mitotic_figures_px), len(second.look_alikes_px)) == (0, 0)
    content["categories"][1]["name"] = "mitotic figures?"
    with pytest.raises(InputError, match=r"a\.json: annotation 33: .*'mitotic figures\?'"):
        read_labels(labels(tmp_path / "a.json", content))


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    content = document()
    content["images"][1]["file_name"] = "7.svs"
    with pytest.raises(InputError, match=r"a\.json: 7\.tiff and 7\.svs share the stem '7'"):
        read_labels(labels(tmp_path / "a.json", content))
    content["images"][1]["split"] = "val"  # they are then scored apart
    assert len(read_labels(labels(tmp_path / "a.json", content), "test")) == 1
    content["images"][1] |= {"file_name": "8.tiff", "id": 7}
    with pytest.raises(InputError, match=r"a\.json: two images have id 7"):
        read_labels(labels(tmp_path / "a.json", content))


def test_the_origin_of_run_json_is_subtracted(tmp_path: Path) -> None:
    labelled, origin = image("a", "one", 5), np.array([12.5, -3.0])
    xy_mm = labelled.mitotic_figures_px * 0.25e-3 + origin
    write_points(tmp_path / "a/mitotic-figures.json", Points(xy_mm, np.ones(5, bool), np.ones(5)))
    assert evaluate(tmp_path, [labelled]).total == Counts(0, 5, 5)
    for content, expected in (
        ({"slide": {"origin_mm": origin.tolist()}}, Counts(5, 0, 0)),
        ({"slide": {}}, Counts(0, 5, 5)),  # of an earlier version
    ):
        (tmp_path / "a/run.json").write_text(json.dumps(content))
        assert evaluate(tmp_path, [labelled]).total == expected
    for text in ("", "{}", '{"slide": {"origin_mm": [1]}}'):
        (tmp_path / "a/run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json.*detect again"):
            evaluate(tmp_path, [labelled])


def test_places_written_with_another_spacing_are_the_same_pixels(tmp_path: Path) -> None:
    """1 % at 7,000 px is 17 um: without it, all would miss."""
    labelled = replace(image("a", "one", 5), mitotic_figures_px=np.linspace(5000, 7000, 10).reshape(5, 2))
    write_points(
        tmp_path / "a/mitotic-figures.json",
        Points(labelled.mitotic_figures_px * 0.2525e-3, np.ones(5, bool), np.ones(5)),
    )
    assert evaluate(tmp_path, [labelled]).total.tp == 0
    (tmp_path / "a/run.json").write_text(json.dumps({"slide": {"spacing_um": [0.2525, 0.2525]}}))
    assert evaluate(tmp_path, [labelled]).total == Counts(5, 0, 0)


@pytest.mark.parametrize("spacing_um", [0, -0.25, 0.00025, float("nan"), 250])
def test_a_spacing_that_no_microscope_gives_is_refused(tmp_path: Path, spacing_um: float) -> None:
    content = document()
    content["images"][1]["spacing_um"] = spacing_um
    with pytest.raises(InputError, match=r"a\.json: image 8: its spacing_um is"):
        read_labels(labels(tmp_path / "a.json", content))


def test_images_are_named_and_there(tmp_path: Path) -> None:
    content = document()
    content["images"][1] |= {"file_name": 12, "split": 1}
    assert len(read_labels(labels(tmp_path / "a.json", content), "test")) == 1
    with pytest.raises(InputError, match=r"a\.json: image 8: its file_name 12"):
        read_labels(labels(tmp_path / "a.json", content), "1")
    with pytest.raises(InputError, match=r"a\.json: lists no image"):
        read_labels(labels(tmp_path / "a.json", content | {"images": [], "annotations": []}))


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
