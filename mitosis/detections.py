"""The table that the steps of the pipeline hand on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MITOTIC_FIGURE = "mitotic figure"
NON_MITOTIC_FIGURE = "non-mitotic figure"

#: One row per candidate. Boxes are in level-0 pixels, x right, y down, pixel centres at whole numbers; a box covers
#: [x1, x2] x [y1, y2] in that frame. Scores are in 0..1; ``classifier_score`` is NaN before stage 2.
#: ``probability`` is what the threshold is held against and what is published: stage 2's score, or both scores as the
#: bundle calibrates them.
#: ``tile`` is the number of the tile that the row came from, in reading order over the whole slide.
#: ``cut`` marks a box that touches a tile's edge inside the image, so that part of the object may lie in the next tile.
DETECTION_DTYPE = np.dtype(
    [
        ("x1", "f4"),
        ("y1", "f4"),
        ("x2", "f4"),
        ("y2", "f4"),
        ("detector_score", "f4"),
        ("classifier_score", "f4"),
        ("probability", "f4"),
        ("tile", "i4"),
        ("is_mitotic_figure", "?"),
        ("cut", "?"),
    ]
)

#: A structured array of ``DETECTION_DTYPE``, shape (n,).
Detections = NDArray[np.void]


def empty_detections(count: int = 0) -> Detections:
    """Return ``count`` zeroed rows without a classifier score and a probability."""
    rows = np.zeros(count, DETECTION_DTYPE)
    rows["classifier_score"] = rows["probability"] = np.nan
    return rows


def boxes_px(rows: Detections) -> NDArray[np.float32]:
    """Return the boxes as (n, 4) float32: x1, y1, x2, y2 in level-0 pixels."""
    return np.stack([rows[name] for name in ("x1", "y1", "x2", "y2")], axis=-1)


def centres_px(rows: Detections) -> NDArray[np.float64]:
    """Return the boxes' centres as (n, 2) float64: x, y in level-0 pixels."""
    boxes = boxes_px(rows).astype(np.float64)
    return (boxes[:, :2] + boxes[:, 2:]) / 2
