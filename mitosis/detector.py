"""Stage 1: tiles -> candidates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mitosis.detections import Detections, empty_detections
from mitosis.merging import suppress
from mitosis.tiling import Tile

CUT_MARGIN_PX = 8.0  # one cell of the finest grid (P3/8): a predicted box rarely ends exactly on the tile's edge


def read_candidates(raw: NDArray[np.float32], tile: Tile, confidence: float, nms_iou: float) -> Detections:
    """Turn the network's output for one tile into candidates in the *tile's* pixels, best score first.

    Args:
        raw: (5, n): centre x, centre y, width, height in pixels, score in 0..1.
        tile: where the tile lies; decides which boxes its inner edges cut.
        confidence: lowest score to keep (inclusive).
        nms_iou: overlap at which the lower score is dropped.

    """
    raw = raw[:, raw[4] >= confidence]
    half = raw[2:4] / 2
    boxes = np.concatenate([raw[:2] - half, raw[:2] + half]).T.clip(0, tile.side_px)  # (n, 4)
    keep = suppress(boxes, raw[4], nms_iou)
    rows = empty_detections(len(keep))
    for axis, name in enumerate(("x1", "y1", "x2", "y2")):
        rows[name] = boxes[keep, axis]
    rows["detector_score"] = raw[4][keep]
    rows["tile"] = tile.number
    near = np.concatenate([boxes[keep, :2] < CUT_MARGIN_PX, boxes[keep, 2:] > tile.side_px - CUT_MARGIN_PX], axis=1)
    rows["cut"] = (near & np.array(tile.inner)).any(axis=1)
    return rows
