"""Finds the upright rectangle of a given size that holds the most points: exactly, in n log n."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GAP_PX = 1.0  # between fields, so that a figure on a border is not counted in two


class MaximumTree:
    """Adds to ranges of an array and finds its largest entry, each in log n: a segment tree without push-down."""

    def __init__(self, length: int) -> None:
        self.size = 1 << max(0, length - 1).bit_length()
        self.best = [0] * (2 * self.size)  # largest entry below a node, all additions at and below it counted
        self.added = [0] * (2 * self.size)
        self.add(length, self.size, -(1 << 40))  # entries that do not exist

    def add(self, begin: int, end: int, value: int) -> None:
        """Add ``value`` to the entries begin <= i < end."""
        if begin >= end:
            return
        left, right = begin + self.size, end + self.size
        first, last = left, right - 1
        while left < right:
            if left & 1:
                self._apply(left, value)
                left += 1
            if right & 1:
                right -= 1
                self._apply(right, value)
            left, right = left >> 1, right >> 1
        for node in (first, last):
            node >>= 1
            while node:
                self.best[node] = max(self.best[2 * node], self.best[2 * node + 1]) + self.added[node]
                node >>= 1

    def argmax(self) -> int:
        """Return the first index of the largest entry."""
        node = 1
        while node < self.size:
            node = 2 * node if self.best[2 * node] >= self.best[2 * node + 1] else 2 * node + 1
        return node - self.size

    def _apply(self, node: int, value: int) -> None:
        self.best[node] += value
        self.added[node] += value


def best_corner(
    points: Floats, width: float, height: float, corner_limit: tuple[float, float], taken: list[tuple[float, float]]
) -> tuple[float, float, int] | None:
    """Find the upper left corner of the rectangle that holds the most points; None where no rectangle fits.

    A point lies in the rectangle at corner (x, y) when x is in [px - width, px] and y in [py - height, py]; a taken
    corner forbids the open rectangle around it where another one would come nearer than ``GAP_PX``. An optimal corner
    can be moved right and down until its left and upper edges meet a point, a taken rectangle or the limit, so only
    those coordinates are tried; they are swept from above with a segment tree over x, in n log n. Of equally good
    corners the uppermost, then the leftmost is returned.
    """
    limit_x, limit_y = corner_limit
    wide, high = width + GAP_PX, height + GAP_PX
    forbidden = [(x - wide, x + wide, y - high, y + high) for x, y in taken]
    xs = candidates(points[:, 0], [f[0] for f in forbidden], limit_x)
    ys = candidates(points[:, 1], [f[2] for f in forbidden], limit_y)
    events: list[tuple[int, int, int, int]] = []  # index into ys, first and last x, value; applied before the query
    spans = [(px - width, px, py - height, py, 1, "left", "right") for px, py in points.tolist()]
    spans += [(*f, -(len(points) + 1), "right", "left") for f in forbidden]
    for x_low, x_high, y_low, y_high, value, low_side, high_side in spans:
        x_range = int(np.searchsorted(xs, x_low, low_side)), int(np.searchsorted(xs, x_high, high_side))  # type: ignore[call-overload]
        y_range = int(np.searchsorted(ys, y_low, low_side)), int(np.searchsorted(ys, y_high, high_side))  # type: ignore[call-overload]
        events += [(y_range[0], *x_range, value), (y_range[1], *x_range, -value)]
    events.sort(key=lambda event: event[0])
    tree = MaximumTree(len(xs))
    best, position, following = -1, (0.0, 0.0), 0
    for row, y in enumerate(ys.tolist()):
        while following < len(events) and events[following][0] <= row:
            tree.add(*events[following][1:])
            following += 1
        if tree.best[1] > best:
            best, position = tree.best[1], (float(xs[tree.argmax()]), y)
    return (*position, best) if best >= 0 else None


def candidates(values: Floats, edges: list[float], limit: float) -> Floats:
    """Return the coordinates at which a best corner may lie, sorted."""
    all_of_them = np.concatenate([values, edges, [0.0, limit]])
    return np.unique(all_of_them[(all_of_them >= 0) & (all_of_them <= limit)])
