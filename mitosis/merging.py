"""One mitosis, one detection: suppresses the doubles inside a tile and across tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mitosis.detections import Detections, boxes_px

Floats = NDArray[np.floating]
Indices = NDArray[np.int64]


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

    Two rows are one object when their boxes' IoU reaches ``iou`` (paper: 0.5). A box that a tile's edge cut shows
    only part of the object, and so its IoU with the whole box can be anything: for such a pair the shared area is held
    against the smaller box instead. Mitotic figures win over rejected candidates, whole boxes over cut ones, higher
    probabilities over lower, higher stage 1 scores over lower; the winner's row is kept unchanged.
    """
    corners = boxes_px(rows)
    keys = (-rows["detector_score"], -rows["probability"], rows["cut"], ~rows["is_mitotic_figure"])
    ranked = rows[np.lexsort((corners[:, 0], corners[:, 1], *keys))]  # best first: an index is a rank from here on
    boxes = boxes_px(ranked).astype(np.float64)
    better, worse = near_pairs(boxes)
    shared = intersections(boxes[better], boxes[worse])
    area = areas(boxes)
    smaller, both = np.minimum(area[better], area[worse]), area[better] + area[worse] - shared
    whole = np.where(ranked["cut"][better] | ranked["cut"][worse], smaller, both)
    same = shared >= iou * np.maximum(whole, 1e-9)
    kept = ranked[survivors(better[same], worse[same], len(ranked))]
    return kept[np.lexsort((kept["x1"], kept["y1"]))]


def survivors(better: Indices, worse: Indices, count: int) -> NDArray[np.bool_]:
    """Suppress greedily: a row goes when a better one that stays is the same object. Indices are ranks."""
    alive = [True] * count
    order = np.argsort(better, kind="stable")
    for winner, loser in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if alive[winner]:
            alive[loser] = False
    return np.array(alive, dtype=np.bool_)


def near_pairs(boxes: Floats) -> tuple[Indices, Indices]:
    """Return all pairs i < j of (n, 4) boxes that may overlap, as two index arrays.

    Boxes are sorted into square cells as wide as the widest box, so that overlapping ones lie in the same or in
    adjacent cells; each cell is joined with itself and with four of its neighbours.
    """
    side = max(float(np.max(boxes[:, 2:] - boxes[:, :2], initial=0.0)), 1.0)
    column, line = np.floor((boxes[:, :2] + boxes[:, 2:]).T / 2 / side).astype(np.int64)
    column -= column.min(initial=0)
    width = int(column.max(initial=0)) + 2  # one empty column: a row's last cell has no neighbour in the next row
    cell = line * width + column
    order = np.argsort(cell, kind="stable")
    cell = cell[order]
    pairs = [joined(order, cell, step) for step in (0, 1, width - 1, width, width + 1)]
    first, second = (np.concatenate(part) for part in zip(*pairs, strict=True))
    return np.minimum(first, second), np.maximum(first, second)


def joined(order: Indices, cell: Indices, step: int) -> tuple[Indices, Indices]:
    """Pair every box with those ``step`` cells further (0: with those behind it in its own); ``cell`` is sorted."""
    begin = np.searchsorted(cell, cell + step) if step else np.arange(1, len(cell) + 1)
    counts = np.searchsorted(cell, cell + step, side="right") - begin
    first = np.repeat(np.arange(len(cell)), counts)
    within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[first], order[np.repeat(begin, counts) + within]
