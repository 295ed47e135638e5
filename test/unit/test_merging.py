"""Merging equals brute force, and a mitosis anywhere on a tile's edge stays one detection."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitosis.detections import Detections, boxes_px, centres_px, empty_detections
from mitosis.detector import read_candidates
from mitosis.merging import ROUNDS, merge, overlapping_pairs, suppress
from mitosis.pipeline import moved
from mitosis.tiling import tiles

BOX_PX = 50.0


def table(seed: int, count: int, cut_share: float = 0.3) -> Detections:
    rng = np.random.default_rng(seed)
    rows = empty_detections(count)
    x, y = rng.uniform(0, 200, (2, count))
    w, h = rng.uniform(8, 60, (2, count))
    rows["x1"], rows["y1"], rows["x2"], rows["y2"] = x, y, x + w, y + h
    rows["detector_score"], rows["classifier_score"] = rng.uniform(size=(2, count))
    rows["probability"] = rows["classifier_score"]
    rows["is_mitotic_figure"] = rows["classifier_score"] >= 0.5
    rows["cut"] = rng.uniform(size=count) < cut_share
    return rows


def overlap(a: np.void, b: np.void) -> float:
    wide = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    high = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    shared = float(max(0, wide)) * float(max(0, high))
    area = [float(r["x2"] - r["x1"]) * float(r["y2"] - r["y1"]) for r in (a, b)]
    return shared / max(1e-9, min(area) if a["cut"] or b["cut"] else sum(area) - shared)


def merge_by_brute_force(rows: Detections, iou: float) -> set[tuple[float, ...]]:
    def rank(row: np.void) -> tuple[float, ...]:
        first = (row["cut"], -row["classifier_score"], -row["detector_score"])
        return (*first, row["y1"], row["x1"])

    kept: list[np.void] = []
    for row in sorted(rows, key=rank):
        if all((shared := overlap(row, other)) < iou or shared == 0 for other in kept):
            kept.append(row)
    return {tuple(row) for row in kept}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.sampled_from([0.3, 0.5, 0.7]))
def test_equals_brute_force(seed: int, count: int, iou: float) -> None:
    rows = table(seed, count)
    assert {tuple(row) for row in merge(rows, iou)} == merge_by_brute_force(rows, iou)


@pytest.mark.parametrize("seed", range(6))
def test_equals_brute_force_on_boxes_of_all_sizes(seed: int) -> None:
    """A few boxes a hundred times as wide as most, thin ones, ones of no size, at negative places, and equal scores."""
    rng = np.random.default_rng(seed)
    rows = table(seed, 300)
    side = np.exp(rng.uniform(np.log(4), np.log(600), 300))
    rows["x1"], rows["y1"] = rng.uniform(-500, 1500, (2, 300))
    rows["x2"], rows["y2"] = rows["x1"] + side, rows["y1"] + side * rng.uniform(0.1, 1, 300)
    rows["x2"][:5] = rows["x1"][:5]
    rows["detector_score"] = rng.integers(0, 5, 300) / 4
    rows["probability"] = rows["classifier_score"] = rng.integers(0, 5, 300) / 4
    assert {tuple(row) for row in merge(rows, 0.2)} == merge_by_brute_force(rows, 0.2)


@pytest.mark.parametrize("falling", [False, True])
def test_a_chain_longer_than_the_rounds(falling: bool) -> None:
    """Each box is one object with its neighbours only: the best stays, the next goes, the one after that stays."""
    count = 8 * ROUNDS + 1
    rows = table(0, count, cut_share=0)
    rows["x1"], rows["y1"] = 10.0 * np.arange(count), 0
    rows["x2"], rows["y2"] = rows["x1"] + 30, 30
    rows["probability"] = rows["classifier_score"] = np.linspace(0.9, 0.6, count)[:: 1 if falling else -1]
    rows["is_mitotic_figure"] = True
    kept = merge(rows, 0.45)
    assert kept["x1"].tolist() == list(range(0, 10 * count, 20))
    assert {tuple(row) for row in kept} == merge_by_brute_force(rows, 0.45)


@pytest.mark.parametrize("large", [0, 3])
def test_pairs_grow_with_what_overlaps_not_with_the_largest_box(large: int) -> None:
    """Of 40,000 small boxes far apart, none is paired; a box over everything is paired with each, once."""
    y, x = np.mgrid[:200, :200].reshape(2, -1).astype(np.float32) * 60
    boxes = np.stack([x, y, x + 40, y + 40], axis=1)
    over_all = np.tile(np.array([[-1, -1, 13000, 13000]], np.float32), (large, 1))
    first, second = overlapping_pairs(np.concatenate([boxes, over_all]))
    pairs = set(zip(np.minimum(first, second).tolist(), np.maximum(first, second).tolist(), strict=True))
    assert len(pairs) == len(first) == large * 40_000 + large * (large - 1) // 2


def test_order_of_input_does_not_matter() -> None:
    rows = table(3, 50)
    shuffled = np.random.default_rng(0).permutation(rows)
    np.testing.assert_array_equal(merge(rows, 0.5), merge(shuffled, 0.5))


def test_a_survivor_absorbs_the_rejected_double() -> None:
    rows = table(1, 2, cut_share=0)
    rows[1] = rows[0]
    rows["probability"], rows["is_mitotic_figure"] = [0.2, 0.7], [False, True]
    rows["detector_score"] = [0.9, 0.3]
    assert merge(rows, 0.5)["is_mitotic_figure"].tolist() == [True]


def test_the_whole_view_decides() -> None:
    rows = table(1, 2)
    rows[1] = rows[0]
    rows["cut"] = [True, False]
    rows["probability"], rows["is_mitotic_figure"] = [0.7, 0.2], [True, False]
    assert merge(rows, 0.5)["is_mitotic_figure"].tolist() == [False]


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_threshold_does_not_change_what_is_merged(seed: int, threshold: float) -> None:
    rows, other = table(seed, 40), table(seed, 40)
    other["is_mitotic_figure"] = other["probability"] >= threshold
    names = ["x1", "y1", "x2", "y2", "probability"]
    np.testing.assert_array_equal(merge(rows, 0.5)[names], merge(other, 0.5)[names])


def perfect_detector(centre: tuple[float, float], width_px: int, height_px: int) -> Detections:
    """What a detector that sees exactly what each tile shows would say of one mitosis."""
    found = []
    for tile in tiles(width_px, height_px, 512, 0.2):
        corners = np.array([[c - BOX_PX / 2, c + BOX_PX / 2] for c in centre])
        (x1, x2), (y1, y2) = (corners - [[tile.x_px], [tile.y_px]]).clip(0, 512)
        if x2 - x1 < 8 or y2 - y1 < 8:
            continue
        raw = np.array([[(x1 + x2) / 2], [(y1 + y2) / 2], [x2 - x1], [y2 - y1], [0.9]], np.float32)
        rows = moved(read_candidates(raw, tile, 0.2, 0.3), 1.0, (tile.x_px, tile.y_px))
        rows["classifier_score"], rows["is_mitotic_figure"] = 0.8, True
        found.append(rows)
    return np.concatenate(found)


@pytest.mark.parametrize("along_y", [False, True])
def test_a_mitosis_on_any_position_of_the_overlap_is_one_detection(along_y: bool) -> None:
    for position in range(360, 570):  # from before the second tile's first pixel to behind the first one's last
        centre = (700.0, float(position)) if along_y else (float(position), 700.0)
        kept = merge(perfect_detector(centre, 1330, 1330), 0.5)
        assert len(kept) == 1, f"{len(kept)} detections at {centre}"
        np.testing.assert_allclose(centres_px(kept)[0], centre, atol=0.01)
        np.testing.assert_allclose(np.diff(boxes_px(kept)[0].reshape(2, 2), axis=0), BOX_PX, atol=0.01)


def test_suppress_keeps_the_best_of_each_heap() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60]], float)
    assert suppress(boxes, np.array([0.5, 0.9, 0.1]), 0.3).tolist() == [1, 2]
