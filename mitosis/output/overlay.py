"""A picture of the result: boxes drawn on the image, as in the paper's Fig. 3."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.errors import OutputError
from mitosis.output.atomic import write_whole

RGB = NDArray[np.uint8]

OVERLAY_NAME = "overlay.png"
GREEN, ORANGE, WHITE = (0, 190, 60), (255, 140, 0), (255, 255, 255)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw_overlay(
    image: RGB, boxes_px: NDArray[np.floating], is_mitotic_figure: NDArray[np.bool_], scores: NDArray[np.floating]
) -> RGB:
    """Return a copy of an (h, w, 3) RGB image with (n, 4) boxes in its pixels.

    Mitotic figures are green and carry their score; rejected candidates are thin and orange. A legend has the counts.
    """
    out = image.copy()
    for box, mitotic, score in zip(np.rint(boxes_px).astype(int).tolist(), is_mitotic_figure, scores, strict=True):
        corner, opposite = (box[0], box[1]), (box[2], box[3])
        cv2.rectangle(out, corner, opposite, GREEN if mitotic else ORANGE, 3 if mitotic else 1)
        if mitotic:
            write_text(out, f"{score:.2f}", (box[0], max(14, box[1] - 6)), 0.6, GREEN)
    count = int(is_mitotic_figure.sum())
    size = max(0.6, min(out.shape[:2]) / 1600)
    line = round(36 * size)
    write_text(out, f"{count} mitotic figures", (12, line), size, GREEN)
    write_text(out, f"{len(boxes_px) - count} rejected candidates", (12, 2 * line), size, ORANGE)
    return out


def write_text(image: RGB, text: str, corner: tuple[int, int], size: float, colour: tuple[int, int, int]) -> None:
    """Write with a white rim, so that the text is legible on dark tissue too."""
    thickness = max(1, round(2 * size))
    cv2.putText(image, text, corner, FONT, size, WHITE, thickness + 4, cv2.LINE_AA)
    cv2.putText(image, text, corner, FONT, size, colour, thickness, cv2.LINE_AA)


def write_overlay(
    path: Path,
    image: RGB,
    boxes_px: NDArray[np.floating],
    is_mitotic_figure: NDArray[np.bool_],
    scores: NDArray[np.floating],
) -> None:
    """Write ``draw_overlay``'s picture as PNG, whole or not at all; raises OutputError."""
    drawn = draw_overlay(image, boxes_px, is_mitotic_figure, scores)
    done, content = cv2.imencode(".png", drawn[..., ::-1])
    if not done:
        raise OutputError(f"{path}: the picture cannot be encoded; run without --overlay")
    write_whole(path, content.tobytes())
