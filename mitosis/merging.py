"""One mitosis, one detection: suppresses the doubles inside a tile and across tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitosis.detections import Detections, boxes_px

Floats = NDArray[np.floating]


def areas(boxes: Floats) -> Floats:
    """Return the areas of (n, 4) corner boxes; an inverted box has none."""
    sides: Floats = np.maximum(0, boxes[..., 2:] - boxes[..., :2])
    area: Floats = sides[..., 0] * sides[..., 1]
    return area


def intersections(box: Floats, boxes: Floats) -> Floats:
    """Return the areas that (4,) ``box`` shares with each of (n, 4) ``boxes``."""
    corners = np.concatenate([np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])], axis=1)
    return areas(corners)


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
    """Merge detections across tiles; returns the kept rows in reading order (y, then x).

    Two rows are one object when their boxes' IoU reaches ``iou`` (paper: 0.5). A box that a tile's edge cut shows
    only part of the object, and so its IoU with the whole box can be anything: for such a pair the shared area is held
    against the smaller box instead. Mitotic figures win over rejected candidates, whole boxes over cut ones, higher
    stage 2 scores over lower, higher stage 1 scores over lower; the winner's row is kept unchanged.
    """
    if len(rows) == 0:
        return rows
    boxes = boxes_px(rows).astype(np.float64)
    area = areas(boxes)
    keys = (-rows["detector_score"], -rows["classifier_score"], rows["cut"], ~rows["is_mitotic_figure"])
    order = np.lexsort((boxes[:, 0], boxes[:, 1], *keys))
    neighbours = overlap_pairs(boxes)
    alive = np.ones(len(rows), bool)
    for index in order:
        if not alive[index]:
            continue
        others = neighbours[index]
        others = others[alive[others]]
        shared = intersections(boxes[index], boxes[others])
        pair_cut = rows["cut"][index] | rows["cut"][others]
        smaller = np.minimum(area[index], area[others])
        whole = np.where(pair_cut, smaller, area[index] + area[others] - shared)
        alive[others[shared >= iou * np.maximum(whole, 1e-9)]] = False
        alive[index] = True
    kept = rows[alive]
    return kept[np.lexsort((kept["x1"], kept["y1"]))]


def overlap_pairs(boxes: Floats) -> list[NDArray[np.int64]]:
    """Return for each box the indices of the others whose centres are near enough for the two to overlap."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = float(np.max(boxes[:, 2:] - boxes[:, :2], initial=0.0))
    near: list[list[int]] = [[] for _ in boxes]
    for first, second in cKDTree(centres).query_pairs(reach, p=np.inf, output_type="ndarray"):
        near[first].append(second)
        near[second].append(first)
    return [np.array(others, dtype=np.int64) for others in near]
