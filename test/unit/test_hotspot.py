"""Hotspots equal brute force; they never overlap, never leave the slide, and zero is zero."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitosis.circle_search import Room, best_centre
from mitosis.hotspot import Shape, find_hotspots, tissue_in
from mitosis.rectangle_search import GAP_PX, best_corner
from mitosis.tissue import TissueMask

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


Circle = tuple[float, float, float]  # x, y, radius


def meetings(first: Circle, second: Circle) -> list[Corner]:
    """Return where two circles meet, by angles rather than by the search's own formula."""
    (x, y, a), (u, v, b) = first, second
    d = math.dist((x, y), (u, v))
    if d == 0 or d > a + b + 1e-9 or d < abs(a - b) - 1e-9:
        return []
    towards, aside = math.atan2(v - y, u - x), math.acos(max(-1, min(1, (a * a + d * d - b * b) / (2 * a * d))))
    return [(x + a * math.cos(towards + s * aside), y + a * math.sin(towards + s * aside)) for s in (-1, 1)]


def every_centre(circles: list[Circle], limit: Corner, radius: float) -> list[Corner]:
    """Return every corner of the arrangement: where circles meet each other, the room's sides, or are alone."""
    low, high = (radius, radius), (limit[0] - radius, limit[1] - radius)
    found = [(x, y) for x in (low[0], high[0]) for y in (low[1], high[1])]
    for one, two in itertools.combinations(circles, 2):
        found += meetings(one, two)
    for x, y, r in circles:
        found += [(x + r, y), (x - r, y), (x, y + r), (x, y - r)]
        for at in (low[0], high[0]):
            if abs(at - x) <= r:
                found += [(at, y + s * math.sqrt(r * r - (at - x) ** 2)) for s in (-1, 1)]
        for at in (low[1], high[1]):
            if abs(at - y) <= r:
                found += [(x + s * math.sqrt(r * r - (at - y) ** 2), at) for s in (-1, 1)]
    return found


def brute_force_circle(points: np.ndarray, radius: float, limit: Corner, taken: list[Corner], apart: float) -> int:
    """Try every corner, one by one."""
    near = 1e-7
    best = 0
    circles = [(float(x), float(y), radius) for x, y in points] + [(*t, apart) for t in taken]
    for c in every_centre(circles, limit, radius):
        room = all(radius - near <= c[i] <= limit[i] - radius + near for i in (0, 1))
        if room and all(math.dist(c, t) >= apart - near for t in taken):
            best = max(best, sum(math.dist(c, p) <= radius + near for p in points.tolist()))
    return best


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(0, 2), st.booleans())
def test_circle_equals_brute_force(seed: int, count: int, fields: int, on_a_grid: bool) -> None:
    """On a grid of tens, a radius of 25 puts many points exactly on rims (3, 4, 5) and makes circles touch."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 150, (count, 2))
    if on_a_grid:
        points = np.rint(points / 5) * 5
    radius, apart, limit = 25.0, 51.0, (150.0, 110.0)
    taken: list[Corner] = []
    for _ in range(fields + 1):
        room = Room((radius, radius, limit[0] - radius, limit[1] - radius), np.array(taken).reshape(-1, 2), apart)
        found = best_centre(points, radius, room)
        assert (found[2] if found else 0) == brute_force_circle(points, radius, limit, taken, apart)
        if not found:
            break
        assert room.allows(np.array([found[:2]])).all()
        assert sum(math.dist(found[:2], p) <= radius + 1e-6 for p in points.tolist()) == found[2]
        taken.append(found[:2])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_no_other_circle_holds_more(seed: int) -> None:
    """Ten thousand random centres on a slide with unequal spacing: none beats the first hotspot, none is nearer."""
    rng = np.random.default_rng(seed)
    points, spacing, size = rng.uniform(0, 4000, (60, 2)) * (1, 0.75), (0.25, 0.5), (4001, 3001)
    spots = find_hotspots(points, np.ones(60), 0.5, size, spacing, 0.1, 3, Shape.CIRCLE)
    assert spots[0].area_mm2 == pytest.approx(0.1)
    radius_um = math.sqrt(0.1e6 / math.pi)
    rx, ry = radius_um / spacing[0], radius_um / spacing[1]
    centres = rng.uniform((rx, ry), (4000 - rx, 3000 - ry), (10_000, 2))
    um = np.array(spacing)
    held = np.hypot(*((centres[:, None] - points[None]) * um).transpose(2, 0, 1)) <= radius_um
    assert held.sum(axis=1).max() <= spots[0].count
    for one, two in itertools.combinations(spots, 2):
        assert math.dist(one.middle_px * um, two.middle_px * um) >= 2 * radius_um
    for spot in spots:
        assert spot.x1_px >= -1e-6 <= spot.y1_px
        assert spot.x2_px <= 4000 + 1e-6
        assert spot.y2_px <= 3000 + 1e-6
        assert spot.holds(points).sum() == spot.count


def test_many_circles_in_time() -> None:
    """5,000 figures on 625 mm2, then 20,000 in a field's size."""
    rng = np.random.default_rng(0)
    started = time.process_time()
    points = rng.uniform(0, 100_000, (5_000, 2))
    assert len(find_hotspots(points, np.ones(5_000), 0.5, (100_000,) * 2, (0.25, 0.25), 2.37, 3, Shape.CIRCLE)) == 3
    points = rng.uniform(0, 7_000, (20_000, 2))
    (spot,) = find_hotspots(points, np.ones(20_000), 0.5, (7_200, 7_200), (0.25, 0.25), 2.37, 3, Shape.CIRCLE)
    assert 15_000 < spot.count < 17_000  # pi / 4 of all, and a little more
    assert time.process_time() - started < 60


def half_tissue() -> TissueMask:
    """Return a slide of 4000 x 4000 px whose left half is tissue, mapped at 32 px."""
    tissue = np.zeros((125, 125), bool)
    tissue[:, :62] = True  # to 62 * 32 = 1984 px
    return TissueMask(tissue, tissue, 32.0)


@pytest.mark.parametrize("shape", list(Shape))
def test_a_field_moves_onto_the_tissue(shape: Shape) -> None:
    """One figure near the edge: the field that holds it could hang over the glass, and does not."""
    point = np.array([[1900.0, 2000.0]])
    (spot,) = find_hotspots(point, np.ones(1), 0.5, (4000, 4000), (0.25, 0.25), 0.05, 1, shape, half_tissue())
    assert spot.count == 1
    assert spot.holds(point).all()
    assert spot.tissue_mm2 == pytest.approx(0.05, rel=0.02)
    assert spot.per_mm2_of_tissue == pytest.approx(20, rel=0.02)


@pytest.mark.parametrize("shape", list(Shape))
def test_a_field_on_an_edge_states_its_tissue(shape: Shape) -> None:
    """Two figures on either side of the edge: the field spans it, whole in area and partly tissue."""
    across = 280.0 if shape is Shape.RECTANGLE else 240.0
    points = np.array([[1984 - across, 2000.0], [1984 + across, 2000.0]])
    (spot,) = find_hotspots(points, np.ones(2), 0.5, (4000, 4000), (0.25, 0.25), 0.02, 1, shape, half_tissue())
    assert spot.count == (2 if 2 * across <= 2 * spot.radii_px[0] else 1)
    assert spot.area_mm2 == pytest.approx(0.02)
    exact = sum(spot.holds(np.array([[x, y]]))[0] for x in range(1400, 1984, 4) for y in range(1600, 2400, 4)) * 16
    assert spot.tissue_mm2 == pytest.approx(exact * 0.25**2 / 1e6, rel=0.02)
    assert spot.per_mm2 == pytest.approx(spot.count / 0.02)


def test_tissue_in_a_circle_beyond_the_map() -> None:
    tissue = np.ones((10, 10), bool)
    mask = TissueMask(tissue, tissue, 10.0)
    points = np.array([[50.0, 50.0]])
    (spot,) = find_hotspots(points, np.ones(1), 0.5, (101, 101), (1.0, 1.0), 1.0, 1, Shape.CIRCLE, mask)
    assert spot.area_mm2 == pytest.approx(math.pi * 50**2 / 1e6)
    assert tissue_in(spot, mask, (1.0, 1.0)) == pytest.approx(spot.area_mm2, rel=0.05)
