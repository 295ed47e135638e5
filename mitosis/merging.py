"""One mitosis, one detection: suppresses the doubles inside a tile and across tiles."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mitosis.detections import Detections, boxes_px

Floats = NDArray[np.floating]
Indices = NDArray[np.int64]

ROUNDS = 20
USUAL = 0.95  # share of the boxes in the smallest class of size
PART = 1 << 16  # boxes that are paired at once: what they need stays in the processor's cache


def areas(boxes: Floats) -> Floats:
    """Return the areas of (n, 4) corner boxes; an inverted box has none."""
    sides: Floats = np.maximum(0, boxes[..., 2:] - boxes[..., :2])
    area: Floats = sides[..., 0] * sides[..., 1]
    return area


def intersections(first: Floats, second: Floats) -> Floats:
    """Return the areas that boxes share: (4,) with each of (n, 4), or (n, 4) pairwise."""
    corners = [np.maximum(first[..., :2], second[..., :2]), np.minimum(first[..., 2:], second[..., 2:])]
    return areas(np.concatenate(corners, axis=-1))


def suppress(boxes: Floats, scores: Floats, iou: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression inside one tile: indices to keep, best score first (ties: first come)."""
    order = np.argsort(-scores, kind="stable")
    keep: list[int] = []
    while order.size:
        best, rest = order[0], order[1:]
        keep.append(int(best))
        shared = intersections(boxes[best], boxes[rest])
        union = areas(boxes[best]) + areas(boxes[rest]) - shared
        order = rest[shared < iou * np.maximum(union, 1e-9)]
    return np.array(keep, dtype=np.int64)


def merge(rows: Detections, iou: float) -> Detections:
    """Merge detections across tiles; returns the kept rows in reading order (y, then x). Time grows as n log n.

    Two rows are one object when their boxes overlap and their IoU reaches ``iou`` (paper: 0.5). A box that a tile's
    edge cut shows only part of the object, and so its IoU with the whole box can be anything: for such a pair the
    shared area is held against the smaller box instead. Whole boxes win over cut ones, higher probabilities over lower,
    higher stage 1 scores over lower; the winner's row is kept unchanged. So a cell is judged by its best view, of which
    the tiles' overlap always holds one, and what is merged does not depend on the threshold.
    """
    boxes = boxes_px(rows)
    first, second = overlapping_pairs(boxes)
    one, other = boxes[first].astype(np.float64), boxes[second].astype(np.float64)
    shared, area, other_area = intersections(one, other), areas(one), areas(other)
    cut = rows["cut"][first] | rows["cut"][second]
    whole = np.where(cut, np.minimum(area, other_area), area + other_area - shared)
    same = shared >= iou * np.maximum(whole, 1e-9)
    order = best_first(rows)
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows))
    first, second = rank[first[same]], rank[second[same]]
    kept = rows[order[survivors(np.minimum(first, second), np.maximum(first, second), len(rows))]]
    place = sortable(kept["y1"]).astype(np.uint64) << 32 | sortable(kept["x1"])
    return kept[np.argsort(place, kind="stable")]


def sortable(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return whole numbers in the order of the values: integers sort several times faster, and can be joined."""
    bits = (values + np.float32(0)).view(np.uint32)  # the sum turns -0.0 into 0.0
    return np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31)).astype(np.uint32)


def best_first(rows: Detections) -> Indices:
    """Return the order in which rows win over others; ties are broken by place, whatever the input's order."""
    probability, score = (~sortable(rows[name]) for name in ("probability", "detector_score"))
    last = rows["cut"].astype(np.uint64) << 63
    rough = last | probability.astype(np.uint64) << 31 | score >> 1  # all but the score's last bit
    order = np.argsort(rough)
    rough = rough[order]
    tied = np.zeros(len(rows) + 1, np.bool_)
    tied[1:-1] = rough[1:] == rough[:-1]
    tied = tied[1:] | tied[:-1]
    some = rows[order[tied]]
    keys = (some["y2"], some["x2"], some["x1"], some["y1"], -some["detector_score"], rough[tied])
    order[tied] = order[tied][np.lexsort(keys)]
    return order


def survivors(better: Indices, worse: Indices, count: int) -> NDArray[np.bool_]:
    """Suppress greedily: a row goes when a better one that stays is the same object. Indices are ranks.

    In each round, rows without a living better one stay, and end the others. Most heaps are settled after two rounds;
    what long chains leave after ``ROUNDS`` is gone through one by one.
    """
    alive = np.ones(count, np.bool_)
    for _ in range(ROUNDS):
        challenged = np.zeros(count, np.bool_)
        challenged[worse] = True
        stays = ~challenged[better]
        alive[worse[stays]] = False
        open_ = ~stays & alive[better] & alive[worse]
        better, worse = better[open_], worse[open_]
        if not len(better):
            return alive
    living = alive.tolist()
    order = np.argsort(better, kind="stable")
    for winner, loser in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if living[winner]:
            living[loser] = False
    return np.array(living, dtype=np.bool_)


def overlapping_pairs(boxes: NDArray[np.float32]) -> tuple[Indices, Indices]:
    """Return all pairs of (n, 4) boxes that overlap, each once, as two index arrays.

    Boxes fall into classes by size. For each class, it and all smaller boxes are sorted into square cells as wide as
    the class's widest box may be, so that what overlaps lies in the same or in adjacent cells: a few large boxes do not
    make the cells of all others large.
    """
    if not len(boxes):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    sides = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0).astype(np.float64)
    widest = float(sides.max())
    smallest_class = widest / 2.0 ** math.floor(math.log2(widest / float(np.quantile(sides, USUAL))))
    size = np.ceil(np.log2(np.maximum(sides / smallest_class, 1.0))).astype(np.int64)
    found = [pairs_of_class(boxes, size, one, smallest_class * 2.0**one) for one in np.unique(size).tolist()]
    first, second = zip(*found, strict=True)
    return np.concatenate(first), np.concatenate(second)


def pairs_of_class(boxes: NDArray[np.float32], size: Indices, one: int, side: float) -> tuple[Indices, Indices]:
    """Pair the boxes of one class with each other and with all smaller ones; none is wider than ``side``."""
    members = np.flatnonzero(size <= one)
    centre = (boxes[members, :2].astype(np.float64) + boxes[members, 2:]) / 2
    column, line = np.floor(centre / side).astype(np.int64).T
    width = int(column.max() - column.min()) + 2  # one empty column: a line's last cell and the next's first are apart
    cell = line * width + column
    order = np.argsort(cell)
    cell, members = cell[order], members[order]
    own = size[members] == one
    x1, y1, x2, y2 = np.ascontiguousarray(boxes[members].T)
    lines = (0, 1) if own.all() else (-1, 0, 1)  # among equals, each pair is found from one side
    first, second = [], []
    asking = np.flatnonzero(own)
    for a_part in np.array_split(asking, len(asking) // PART + 1):
        for step in lines:
            begin = np.searchsorted(cell, cell[a_part] + (step * width - 1))
            counts = np.searchsorted(cell, cell[a_part] + (step * width + 1), side="right") - begin
            a = np.repeat(a_part, counts)
            b = np.arange(len(a)) + np.repeat(begin - np.cumsum(counts) + counts, counts)
            for low, high in ((x1, x2), (y1, y2)):
                keep = np.minimum(high[a], high[b]) > np.maximum(low[a], low[b])
                a, b = a[keep], b[keep]
            keep = (b > a) | ~own[b]  # of two of the class, each finds the other
            first.append(members[a[keep]])
            second.append(members[b[keep]])
    return np.concatenate(first), np.concatenate(second)
