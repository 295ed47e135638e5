"""The mitotic count: where a field of a given area holds the most mitotic figures, found exactly.

Fields lie inside the slide: upright rectangles of 4:3, or circles. 2.37 mm2 is Meuten et al. 2016 (ten high-power
fields); Cree et al. 2021 ask for counts per mm2 rather than per field, and other tumours for other areas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mitosis.circle_search import REACH, Room, best_centre
from mitosis.rectangle_search import GAP_PX, best_corner
from mitosis.tissue import TissueMask

Floats = NDArray[np.float64]

DEFAULT_AREA_MM2 = 2.37
ASPECT = 4 / 3  # width over height
NEAR = 0.1  # the count is also stated at thresholds this far to either side
STEPS = 17  # places tried along each axis when a field is moved onto the tissue


class Shape(StrEnum):
    """A field's outline."""

    RECTANGLE = "rectangle"
    CIRCLE = "circle"


@dataclass(frozen=True)
class Hotspot:
    """A ranked field: its box in level-0 pixels (a circle touches its sides) and how many mitotic figures lie in it.

    Figures on the border count. ``tissue_mm2`` is what of the area is tissue; None where no tissue map was given.
    """

    rank: int
    x1_px: float
    y1_px: float
    x2_px: float
    y2_px: float
    area_mm2: float
    count: int
    count_if_stricter: int  # at a threshold higher by NEAR
    count_if_laxer: int  # at a threshold lower by NEAR
    shape: Shape = Shape.RECTANGLE
    tissue_mm2: float | None = None

    @property
    def per_mm2(self) -> float:
        """Mitotic figures per square millimetre of the field."""
        return self.count / self.area_mm2

    @property
    def per_mm2_of_tissue(self) -> float | None:
        """Mitotic figures per square millimetre of tissue in the field; None where that is not known or nothing."""
        return self.count / self.tissue_mm2 if self.tissue_mm2 else None

    @property
    def middle_px(self) -> tuple[float, float]:
        """The field's centre."""
        return (self.x1_px + self.x2_px) / 2, (self.y1_px + self.y2_px) / 2

    @property
    def radii_px(self) -> tuple[float, float]:
        """Half the box's sides: of a circle, its radius along x and y, unequal where the spacing is."""
        return (self.x2_px - self.x1_px) / 2, (self.y2_px - self.y1_px) / 2

    def holds(self, points_px: Floats) -> NDArray[np.bool_]:
        """Tell which of (n, 2) points lie in the field."""
        if self.shape is Shape.CIRCLE:
            return np.asarray(np.hypot(*((points_px - self.middle_px) / self.radii_px).T) <= REACH)
        low, high = (self.x1_px, self.y1_px), (self.x2_px, self.y2_px)
        return np.asarray(((points_px >= low) & (points_px <= high)).all(axis=1))

    def moved(self, x_px: float, y_px: float) -> Hotspot:
        """Return the same field with its box's upper left corner elsewhere."""
        wide, high = self.x2_px - self.x1_px, self.y2_px - self.y1_px
        return replace(self, x1_px=x_px, y1_px=y_px, x2_px=x_px + wide, y2_px=y_px + high)


def find_hotspots(
    points_px: Floats,
    probability: NDArray[np.floating],
    threshold: float,
    size_px: tuple[int, int],
    spacing_um: tuple[float, float],
    area_mm2: float = DEFAULT_AREA_MM2,
    number: int = 3,
    shape: Shape = Shape.RECTANGLE,
    tissue: TissueMask | None = None,
) -> list[Hotspot]:
    """Return up to ``number`` fields without overlap, each the best of what the better ones left.

    Args:
        points_px: (n, 2) centres of all candidates, x and y in level-0 pixels.
        probability: (n,); a candidate is a mitotic figure from ``threshold`` on.
        threshold: see above.
        size_px: width and height of the slide. A field that does not fit is cut to it (a circle: made smaller), and its
            area is stated so.
        spacing_um: micrometres per pixel along x and y.
        area_mm2: the field's area.
        number: how many fields to look for.
        shape: the field's outline.
        tissue: where the tissue is. Of the places where a field holds the same figures, that with most tissue is taken.

    """
    limits = size_px[0] - 1, size_px[1] - 1
    wide, high, real_mm2 = field_size(shape, area_mm2, limits, spacing_um)
    figures = points_px[probability >= threshold]
    free = (limits[0] - wide, limits[1] - high)
    found: list[Hotspot] = []
    while len(found) < number and real_mm2 > 0:
        taken = [(spot.x1_px, spot.y1_px) for spot in found]
        if shape is Shape.CIRCLE:
            best = best_circle(figures, (wide, high), free, taken, spacing_um)
        else:
            best = best_corner(figures, wide, high, free, taken)
        if best is None or best[2] == 0:
            break
        x, y, _ = best
        spot = Hotspot(len(found) + 1, x, y, x + wide, y + high, real_mm2, 0, 0, 0, shape)
        if tissue is not None:
            spot = settled(spot, figures, free, apart_from(found, spacing_um), tissue, spacing_um)
        # From the field as it is stated, so that the count is what a reader of it counts.
        inside = probability[spot.holds(points_px)]
        counts = [int((inside >= threshold + shift).sum()) for shift in (0.0, NEAR, -NEAR)]
        found.append(replace(spot, count=counts[0], count_if_stricter=counts[1], count_if_laxer=counts[2]))
    return found


def hotspot_ranks(points_px: Floats, hotspots: list[Hotspot]) -> NDArray[np.int64]:
    """Return for each of (n, 2) points the rank of the field that holds it, 0 for none."""
    rank = np.zeros(len(points_px), np.int64)
    for spot in hotspots:
        rank[spot.holds(points_px)] = spot.rank
    return rank


def field_size(
    shape: Shape, area_mm2: float, limits_px: tuple[int, int], spacing_um: tuple[float, float]
) -> tuple[float, float, float]:
    """Return a field's width and height in pixels and its area in mm2, cut to a slide of ``limits_px``."""
    if shape is Shape.CIRCLE:
        slide_um = (limit * um for limit, um in zip(limits_px, spacing_um, strict=True))
        radius_um = min(math.sqrt(area_mm2 * 1e6 / math.pi), *(side / 2 for side in slide_um))
        return 2 * radius_um / spacing_um[0], 2 * radius_um / spacing_um[1], math.pi * radius_um**2 / 1e6
    height_um = math.sqrt(area_mm2 * 1e6 / ASPECT)
    width, height = min(ASPECT * height_um / spacing_um[0], limits_px[0]), min(height_um / spacing_um[1], limits_px[1])
    return width, height, (width * spacing_um[0]) * (height * spacing_um[1]) / 1e6


def best_circle(
    figures_px: Floats,
    size_px: tuple[float, float],
    free_px: tuple[float, float],
    taken_px: list[tuple[float, float]],
    spacing_um: tuple[float, float],
) -> tuple[float, float, int] | None:
    """Return the upper left corner of the box of the circle with most figures; all corners are those of boxes."""
    scale = np.array(spacing_um)
    radius_um = size_px[0] / 2 * spacing_um[0]
    to_middle = np.array(size_px) / 2
    low, high = to_middle * scale, (np.maximum(free_px, 0) + to_middle) * scale
    taken = (np.array(taken_px).reshape(-1, 2) + to_middle) * scale
    room = Room((low[0], low[1], high[0], high[1]), taken, 2 * radius_um + GAP_PX * max(spacing_um))
    best = best_centre(figures_px * scale, radius_um, room)
    if best is None:
        return None
    x, y = np.clip(best[:2] / scale - to_middle, 0, np.maximum(free_px, 0))
    return float(x), float(y), best[2]


def apart_from(taken: list[Hotspot], spacing_um: tuple[float, float]) -> Callable[[Hotspot], bool]:
    """Return a test whether a field keeps its distance from those found before."""

    def allowed(spot: Hotspot) -> bool:
        for other in taken:
            dx, dy = abs(spot.x1_px - other.x1_px), abs(spot.y1_px - other.y1_px)
            if spot.shape is Shape.CIRCLE:
                least_um = 2 * spot.radii_px[0] * spacing_um[0] + GAP_PX * max(spacing_um)
                if math.hypot(dx * spacing_um[0], dy * spacing_um[1]) < least_um * (1 - 1e-9):
                    return False
            elif dx < 2 * spot.radii_px[0] + GAP_PX and dy < 2 * spot.radii_px[1] + GAP_PX:
                return False
        return True

    return allowed


def settled(
    spot: Hotspot,
    figures_px: Floats,
    free_px: tuple[float, float],
    allowed: Callable[[Hotspot], bool],
    tissue: TissueMask,
    spacing_um: tuple[float, float],
) -> Hotspot:
    """Move a field to where it holds the same figures and the most tissue, and state how much that is.

    Of places with equally much tissue the middle one is taken, so that figures do not lie on the border.
    """
    held = figures_px[spot.holds(figures_px)]
    wide, high = (2 * r for r in spot.radii_px)
    xs = np.linspace(max(0.0, held[:, 0].max() - wide), min(held[:, 0].min(), max(free_px[0], 0.0)), STEPS)
    ys = np.linspace(max(0.0, held[:, 1].max() - high), min(held[:, 1].min(), max(free_px[1], 0.0)), STEPS)
    best, best_key = spot, (round(tissue_in(spot, tissue, spacing_um), 3), -math.inf)
    for x, y in ((float(x), float(y)) for x in xs for y in ys):
        place = spot.moved(x, y)
        if place.holds(held).all() and allowed(place):
            key = (round(tissue_in(place, tissue, spacing_um), 3), -math.hypot(x - xs.mean(), y - ys.mean()))
            if key > best_key:
                best, best_key = place, key
    return replace(best, tissue_mm2=min(tissue_in(best, tissue, spacing_um), best.area_mm2))


def tissue_in(spot: Hotspot, tissue: TissueMask, spacing_um: tuple[float, float]) -> float:
    """Return how much tissue a field holds, in mm2: line by line of the map, its pixels cut by the field's outline."""
    scale = tissue.scale
    # Pixel i of the map covers i - 0.5 to i + 0.5 in the map's frame, where the field is:
    x, y = ((v + 0.5) / scale - 0.5 for v in spot.middle_px)
    wide, high = (v / scale for v in spot.radii_px)
    lines = np.arange(max(0, math.floor(y - high)), min(tissue.tissue.shape[0], math.ceil(y + high) + 1))
    top, bottom = np.maximum(lines - 0.5, y - high), np.minimum(lines + 0.5, y + high)
    inside = np.maximum(0, bottom - top)  # share of each line
    half = np.full(len(lines), wide)
    if spot.shape is Shape.CIRCLE:
        half = wide * np.sqrt(np.maximum(0, 1 - (((top + bottom) / 2 - y) / max(high, 1e-9)) ** 2))
    left = max(0, math.floor(x - wide))
    part = tissue.tissue[lines[0] : lines[-1] + 1, left : math.ceil(x + wide) + 2] if len(lines) else tissue.tissue[:0]
    sums = np.pad(np.cumsum(part, axis=1, dtype=np.float64), ((0, 0), (1, 0)))  # of all pixels to the left of an edge
    covered = at_edges(sums, x + half + 0.5 - left) - at_edges(sums, x - half + 0.5 - left)
    return float((inside * covered).sum()) * scale**2 * spacing_um[0] * spacing_um[1] / 1e6


def at_edges(sums: Floats, edges: Floats) -> Floats:
    """Interpolate each line of (n, m) running sums at its own (n,) edge."""
    edges = np.clip(edges, 0, sums.shape[1] - 1)
    whole = np.minimum(edges.astype(int), max(sums.shape[1] - 2, 0))
    line = np.arange(len(edges))
    left, right = sums[line, whole], sums[line, np.minimum(whole + 1, sums.shape[1] - 1)]
    return np.asarray(left + (edges - whole) * (right - left), dtype=np.float64)
