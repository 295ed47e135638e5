"""Hotspots equal brute force; they never overlap, never leave the slide, and zero is zero."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitosis.hotspot import GAP_PX, best_corner, find_hotspots

Corner = tuple[float, float]


def along(values: np.ndarray, taken: list[float], side: float, limit: float) -> list[float]:
    """Return every coordinate of a corner that can matter along one axis."""
    all_of_them = [*values, *(t - side for t in taken), *(t + side for t in taken), 0, limit]
    return [v for v in all_of_them if 0 <= v <= limit]


def brute_force(points: np.ndarray, width: float, height: float, limit: Corner, taken: list[Corner]) -> int:
    """Try every corner, one by one."""
    best = -1
    wide, high = width + GAP_PX, height + GAP_PX
    for x in along(points[:, 0], [t[0] for t in taken], wide, limit[0]):
        for y in along(points[:, 1], [t[1] for t in taken], high, limit[1]):
            if any(abs(x - tx) < wide and abs(y - ty) < high for tx, ty in taken):
                continue
            low = points - (width, height)
            inside = ((low <= (x, y)) & (points >= (x, y))).all(axis=1)
            best = max(best, int(inside.sum()))
    return best


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 25), st.integers(0, 3), st.booleans())
def test_equals_brute_force(seed: int, count: int, fields: int, on_a_grid: bool) -> None:
    """Whole numbers make ties and touching borders frequent."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 100, (count, 2))
    if on_a_grid:
        points = np.rint(points / 10) * 10
    width, height, limit = 40.0, 30.0, (60.0, 70.0)
    taken: list[tuple[float, float]] = []
    for _ in range(fields + 1):
        found = best_corner(points, width, height, limit, taken)
        expected = brute_force(points, width, height, limit, taken)
        assert (found[2] if found else -1) == expected
        if not found:
            break
        taken.append(found[:2])


def test_a_planted_hotspot() -> None:
    """20 figures in one corner, 5 in another, far apart; 2 mm2 at 0.25 um is 6532 x 4899 px."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(30_000, 34_000, (20, 2)), rng.uniform(5_000, 7_000, (5, 2))])
    first, second = find_hotspots(points, np.full(25, 0.7), 0.5, (60_000, 60_000), (0.25, 0.25), 2.0)
    assert (first.count, second.count) == (20, 5)
    assert first.area_mm2 == pytest.approx(2.0)
    assert first.per_mm2 == pytest.approx(10.0)
    assert (first.x2_px - first.x1_px) / (first.y2_px - first.y1_px) == pytest.approx(4 / 3)
    assert first.holds(points).sum() == 20


def test_counts_at_other_thresholds() -> None:
    points = np.full((4, 2), 500.0)
    (spot,) = find_hotspots(points, np.array([0.45, 0.52, 0.58, 0.9]), 0.5, (2000, 2000), (0.25, 0.25), 0.01)
    assert (spot.count, spot.count_if_stricter, spot.count_if_laxer) == (3, 1, 4)


def test_zero_is_zero() -> None:
    assert find_hotspots(np.zeros((0, 2)), np.zeros(0), 0.5, (2000, 2000), (0.25, 0.25)) == []
    assert find_hotspots(np.ones((3, 2)), np.full(3, 0.1), 0.5, (2000, 2000), (0.25, 0.25)) == []


def test_a_slide_smaller_than_the_field() -> None:
    """The field is the slide, and says so."""
    (spot,) = find_hotspots(np.array([[10.0, 20.0]]), np.ones(1), 0.5, (1001, 801), (0.25, 0.5))
    assert (spot.x1_px, spot.y1_px, spot.x2_px, spot.y2_px) == (0, 0, 1000, 800)
    assert spot.area_mm2 == pytest.approx(0.25 * 0.4)


def test_many_figures() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100_000, (5_000, 2))
    assert len(find_hotspots(points, np.ones(5_000), 0.5, (100_000, 100_000), (0.25, 0.25))) == 3
