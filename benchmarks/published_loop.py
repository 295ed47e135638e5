"""The inference that was published with the paper, written anew from its description.

Pillow opens the image and crops one tile after the other; each goes alone through Ultralytics in torch; boxes are moved
to the image's frame and suppressed across tiles in plain Python. There is no second stage in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

TILE_PX, OVERLAP = 512, 0.3
CONFIDENCE, NMS_IOU, MERGE_IOU = 0.2, 0.3, 0.3

Box = tuple[float, float, float, float, float]  # x1, y1, x2, y2 in the image's pixels, score


def starts(length_px: int) -> list[int]:
    """Return where tiles start along one axis; the last ones reach outside the image."""
    return list(range(0, length_px, int(TILE_PX * (1 - OVERLAP))))


def run_published_loop(path: Path, model: Any, confidence: float = CONFIDENCE) -> list[Box]:
    """Detect on one image with an ``ultralytics.YOLO``; returns the boxes kept across tiles."""
    boxes: list[Box] = []
    with Image.open(path) as image:
        rgb = image.convert("RGB")
        for y in starts(rgb.height):
            for x in starts(rgb.width):
                tile = rgb.crop((x, y, min(x + TILE_PX, rgb.width), min(y + TILE_PX, rgb.height)))
                results = model.predict(tile, conf=confidence, iou=NMS_IOU, imgsz=TILE_PX, device="cpu", verbose=False)
                for x1, y1, x2, y2, score, _ in results[0].boxes.data.tolist():
                    boxes.append((x1 + x, y1 + y, x2 + x, y2 + y, score))
    return suppress_in_python(boxes, MERGE_IOU)


def suppress_in_python(boxes: list[Box], iou: float) -> list[Box]:
    """Keep the best of overlapping boxes, pair by pair: time grows with the square of their number."""
    waiting, kept = sorted(boxes, key=lambda box: -box[4]), []
    while waiting:
        best = waiting.pop(0)
        kept.append(best)
        waiting = [box for box in waiting if overlap(best, box) < iou]
    return kept


def overlap(a: Box, b: Box) -> float:
    """Return the intersection of two boxes over their union."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0
