"""Finds the disc of a given radius that holds the most points: exactly, by branch and bound over its centre.

The places where the centre may lie are cut into cells. In a cell, points that every centre reaches are certain, points
that only some reach are doubtful; together they bound what the cell can hold, and the cell with the highest bound is
looked at next. Where few points are in doubt, the optimum lies at a corner of the arrangement of circles around them,
and all corners are tried. Some thousand cells decide among thousands of points.

Coordinates are micrometres, because a disc is one only where both axes have one unit.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2

REACH = 1 + 1e-9  # a point on the rim is inside: rounding must not put it outside
IN_DOUBT = 96  # points in doubt at which a cell is solved by trying all corners
SMALLEST_UM = 1e-3  # cells are not cut further, however many points are in doubt


@dataclass(frozen=True)
class Room:
    """Where a centre may lie: in ``box``, and at least ``apart`` from every (m, 2) ``taken`` centre."""

    box: Box
    taken: Floats
    apart: float

    def allows(self, centres: Floats) -> NDArray[np.bool_]:
        """Tell which of (n, 2) centres are allowed, borders included."""
        slack = self.apart * 1e-9
        low, high = np.array(self.box[:2]) - slack, np.array(self.box[2:]) + slack
        far = distances(centres, self.taken) >= self.apart - slack
        return np.asarray(((centres >= low) & (centres <= high)).all(axis=1) & far.all(axis=1))


@dataclass(frozen=True)
class Cell:
    """A rectangle of centres: ``certain`` points are in every disc of it, those of index ``doubtful`` in some."""

    box: Box
    certain: int
    doubtful: NDArray[np.int64]


def best_centre(points: Floats, radius: float, room: Room) -> tuple[float, float, int] | None:
    """Return the centre whose closed disc holds the most of (n, 2) points, and how many; None where there is none.

    A point counts as often as it is given.
    """
    places, weights = np.unique(points.reshape(-1, 2), axis=0, return_counts=True)
    if not len(places) or room.box[0] > room.box[2] or room.box[1] > room.box[3]:
        return None
    order = itertools.count()  # equal bounds: first come
    start = narrowed(places, weights, radius, Cell(room.box, 0, np.arange(len(places))))
    queue = [(-bound(start, weights), next(order), start)]
    best, position = 0, (0.0, 0.0)
    while queue and -queue[0][0] > best:
        cell = heapq.heappop(queue)[2]
        x1, y1, x2, y2 = cell.box
        solved = len(cell.doubtful) <= IN_DOUBT or max(x2 - x1, y2 - y1) < SMALLEST_UM
        tried = corners(places[cell.doubtful], radius, room) if solved else np.array([[(x1 + x2) / 2, (y1 + y2) / 2]])
        tried = within(tried, cell.box)
        tried = tried[room.allows(tried)]
        if len(tried):
            held = distances(tried, places[cell.doubtful]) <= radius * REACH
            counts = cell.certain + held @ weights[cell.doubtful]
            first = int(np.argmax(counts))
            if counts[first] > best:
                best, position = int(counts[first]), (float(tried[first, 0]), float(tried[first, 1]))
        if not solved:
            for part in halves(cell.box):
                smaller = narrowed(places, weights, radius, Cell(part, cell.certain, cell.doubtful))
                if (limit := bound(smaller, weights)) > best:
                    heapq.heappush(queue, (-limit, next(order), smaller))
    return (*position, best) if best else None


def bound(cell: Cell, weights: NDArray[np.int64]) -> int:
    """Return how many points a disc of the cell holds at the most."""
    return cell.certain + int(weights[cell.doubtful].sum())


def narrowed(places: Floats, weights: NDArray[np.int64], radius: float, cell: Cell) -> Cell:
    """Move points that every disc of the cell holds to the certain ones, and drop those that none holds."""
    x1, y1, x2, y2 = cell.box
    low, high, near = np.array([x1, y1]), np.array([x2, y2]), places[cell.doubtful]
    nearest = np.hypot(*np.maximum(0, np.maximum(low - near, near - high)).T)
    farthest = np.hypot(*np.maximum(np.abs(near - low), np.abs(near - high)).T)
    certain = farthest <= radius
    doubtful = ~certain & (nearest <= radius * REACH)
    return Cell(cell.box, cell.certain + int(weights[cell.doubtful[certain]].sum()), cell.doubtful[doubtful])


def halves(box: Box) -> tuple[Box, Box]:
    """Cut a box across its longer side."""
    x1, y1, x2, y2 = box
    if x2 - x1 > y2 - y1:
        middle = (x1 + x2) / 2
        return (x1, y1, middle, y2), (middle, y1, x2, y2)
    middle = (y1 + y2) / 2
    return (x1, y1, x2, middle), (x1, middle, x2, y2)


def within(centres: Floats, box: Box) -> Floats:
    """Return those of (n, 2) centres that lie in a box, moved onto its border where only rounding put them beyond."""
    low, high = np.array(box[:2]), np.array(box[2:])
    slack = 1e-9 * max(1.0, float(np.abs(high).max()))
    kept = centres[((centres >= low - slack) & (centres <= high + slack)).all(axis=1)]
    return np.asarray(np.clip(kept, low, high), dtype=np.float64)


def corners(near: Floats, radius: float, room: Room) -> Floats:
    """Return where an optimal centre may lie if only (n, 2) points are in doubt.

    The best centres form a region bounded by circles around points, circles around taken fields and the room's sides.
    It has a corner where two of these meet, or is bounded by whole circles, and then holds the outermost points of one.
    """
    centres = np.concatenate([near, room.taken])
    radii = np.concatenate([np.full(len(near), radius), np.full(len(room.taken), room.apart)])
    x1, y1, x2, y2 = room.box
    found = [np.array([[x1, y1], [x1, y2], [x2, y1], [x2, y2]])]
    found += [centres + radii[:, None] * step for step in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    found += [crossings_with_line(centres, radii, axis, at) for axis, at in ((0, x1), (0, x2), (1, y1), (1, y2))]
    found += crossings(centres, radii)
    return np.concatenate(found)


def crossings_with_line(centres: Floats, radii: Floats, axis: int, at: float) -> Floats:
    """Return where circles meet the line on which coordinate ``axis`` is ``at``."""
    half = np.sqrt(np.maximum(0, radii**2 - (at - centres[:, axis]) ** 2))
    meet = np.abs(at - centres[:, axis]) <= radii * REACH
    out = np.full((2, int(meet.sum()), 2), at)
    out[0, :, 1 - axis] = (centres[:, 1 - axis] - half)[meet]
    out[1, :, 1 - axis] = (centres[:, 1 - axis] + half)[meet]
    return out.reshape(-1, 2)


def crossings(centres: Floats, radii: Floats) -> list[Floats]:
    """Return where each two circles meet; touching counts."""
    first, second = np.triu_indices(len(centres), 1)
    step = centres[second] - centres[first]
    apart = np.hypot(*step.T)
    a, b = radii[first], radii[second]
    meet = (apart > 0) & (apart <= (a + b) * REACH) & (apart * REACH >= np.abs(a - b))
    step, apart, a, b, origin = step[meet], apart[meet], a[meet], b[meet], centres[first[meet]]
    along = (apart**2 + a**2 - b**2) / (2 * apart)
    across = np.sqrt(np.maximum(0, a**2 - along**2))
    unit = step / apart[:, None]
    foot, normal = origin + along[:, None] * unit, np.stack([-unit[:, 1], unit[:, 0]], axis=1)
    return [foot + across[:, None] * normal, foot - across[:, None] * normal]


def distances(centres: Floats, others: Floats) -> Floats:
    """Return the (n, m) distances between (n, 2) and (m, 2)."""
    return np.asarray(np.hypot(*(centres[:, None] - others[None]).transpose(2, 0, 1)), dtype=np.float64)
