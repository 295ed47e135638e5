"""A picture of the result: boxes drawn on the image, as in the paper's Fig. 3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.errors import OutputError
from mitosis.hotspot import Hotspot, Shape
from mitosis.output.atomic import write_whole

RGB = NDArray[np.uint8]
Colour = tuple[int, int, int]

OVERLAY_NAME = "overlay.png"
GREEN, ORANGE, RED, WHITE = (0, 170, 60), (255, 140, 0), (210, 25, 45), (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX
PX_PER_LINE = 750  # of the image's shorter side: lines stay visible when a whole region is shown on a screen


def draw_overlay(
    image: RGB,
    boxes_px: NDArray[np.floating],
    is_mitotic_figure: NDArray[np.bool_],
    scores: NDArray[np.floating],
    hotspots: Sequence[Hotspot] = (),
) -> RGB:
    """Return a copy of an (h, w, 3) RGB image with (n, 4) boxes in its pixels.

    Mitotic figures are green and carry their score; rejected candidates are thin and orange; hotspots are outlined in
    red. A legend has the counts.
    """
    out = image.copy()
    for spot in hotspots:
        draw_hotspot(out, spot)
    draw_boxes(out, boxes_px[~is_mitotic_figure], ORANGE, thickness=max(2, line_px(out) // 3))
    draw_boxes(out, boxes_px[is_mitotic_figure], GREEN, scores[is_mitotic_figure])
    count = int(is_mitotic_figure.sum())
    size = max(0.6, min(out.shape[:2]) / 1600)
    line = round(36 * size)
    write_text(out, f"{count} mitotic figures", (12, line), size, GREEN)
    write_text(out, f"{len(boxes_px) - count} rejected candidates", (12, 2 * line), size, ORANGE)
    return out


def line_px(image: RGB) -> int:
    """Return how thick lines are drawn: 3 to 8 pixels by the image's size."""
    height, width = image.shape[:2]
    return max(3, min(8, round(min(int(height), int(width)) / PX_PER_LINE)))


def draw_boxes(
    image: RGB,
    boxes_px: NDArray[np.floating],
    colour: Colour,
    scores: NDArray[np.floating] | None = None,
    thickness: int | None = None,
) -> None:
    """Draw boxes onto an image, around and not over what they hold, with scores above them where there are some."""
    thick = thickness or line_px(image)
    away = thick // 2 + 1
    for index, (x1, y1, x2, y2) in enumerate(np.rint(boxes_px).astype(int).tolist()):
        cv2.rectangle(image, (x1 - away, y1 - away), (x2 + away, y2 + away), colour, thick)
        if scores is not None and np.isfinite(scores[index]):
            size = 0.2 * thick
            write_text(image, f"{scores[index]:.2f}", (x1, max(round(24 * size), y1 - 2 * thick)), size, colour)


def draw_hotspot(image: RGB, spot: Hotspot) -> None:
    """Outline a field and write its rank and count into its lower left; the picture's upper left has the legend."""
    thick = line_px(image)
    x, y = (round(v) for v in spot.middle_px)
    rx, ry = (round(v) for v in spot.radii_px)
    if spot.shape is Shape.CIRCLE:
        cv2.ellipse(image, (x, y), (rx, ry), 0, 0, 360, RED, thick, cv2.LINE_AA)
    else:
        cv2.rectangle(image, (x - rx, y - ry), (x + rx, y + ry), RED, thick)
    inset = 1.0 if spot.shape is Shape.RECTANGLE else 0.71  # a circle's lower left is nearer its middle
    size = 0.3 * thick
    place = (round(x - inset * rx) + 4 * thick, round(y + inset * ry) - 4 * thick)
    write_text(image, f"hotspot {spot.rank}: {spot.count}", place, size, RED)


def write_text(image: RGB, text: str, corner: tuple[int, int], size: float, colour: Colour) -> None:
    """Write with a white rim, so that the text is legible on dark tissue too."""
    thickness = max(1, round(2 * size))
    cv2.putText(image, text, corner, FONT, size, WHITE, thickness + 4, cv2.LINE_AA)
    cv2.putText(image, text, corner, FONT, size, colour, thickness, cv2.LINE_AA)


def write_png(path: Path, rgb: RGB, option: str) -> None:
    """Write an RGB picture, whole or not at all; raises OutputError, naming the option that asks for the picture."""
    done, content = cv2.imencode(".png", rgb[..., ::-1])
    if not done:
        raise OutputError(f"{path}: the picture cannot be encoded; run without {option}")
    write_whole(path, content.tobytes())
