"""Stage 2: candidates -> probabilities. The crop's geometry is the one that training uses too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.bundle import ClassifierPart
from mitosis.detections import Detections, boxes_px
from mitosis.network import Network

RGB = NDArray[np.uint8]
WHITE = (255, 255, 255)


def crop(rgb: RGB, box: NDArray[np.floating], context: float, side_px: int) -> RGB:
    """Cut the square around a box out of an image and resize it to (side_px, side_px, 3).

    The square's side is ``context`` times the box's longer side, so that the shape of a thin box is not distorted and
    the cell's surroundings stay visible. Outside the image is white.

    Args:
        rgb: (H, W, 3).
        box: (4,) x1, y1, x2, y2 in the image's pixels, pixel centres at whole numbers.
        context: see above.
        side_px: side of the result.

    """
    reach = context * max(float(box[2] - box[0]), float(box[3] - box[1]), 1.0)
    scale = side_px / reach
    centre = (np.asarray(box[:2], np.float64) + box[2:]) / 2
    shift = (side_px - 1) / 2 - scale * centre
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    out = cv2.warpAffine(rgb, matrix, (side_px, side_px), flags=cv2.INTER_LINEAR, borderValue=WHITE)
    return np.asarray(out, dtype=np.uint8)


def crops(rgb: RGB, rows: Detections, part: ClassifierPart) -> NDArray[np.uint8]:
    """Cut out every row's square: (n, input_px, input_px, 3). The boxes are in the image's pixels."""
    side = part.input_px
    out = np.empty((len(rows), side, side, 3), np.uint8)
    for index, box in enumerate(boxes_px(rows)):
        out[index] = crop(rgb, box, part.context, side)
    return out


def prepare_crops(images: NDArray[np.uint8], part: ClassifierPart) -> NDArray[np.float32]:
    """(n, H, W, 3) RGB bytes -> (n, 3, H, W), normalised as the bundle says."""
    x = (images.astype(np.float32) / 255 - np.array(part.mean, np.float32)) / np.array(part.std, np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def mitosis_probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """(n, 2) logits of (look-alike, mitotic figure) -> (n,) probability of a mitotic figure."""
    margin = np.clip(logits[:, 1].astype(np.float64) - logits[:, 0], -80, 80)
    return np.asarray(1 / (1 + np.exp(-margin)))


def score_candidates(
    network: Network, found: Iterable[tuple[Detections, NDArray[np.uint8]]], part: ClassifierPart, batch: int
) -> Iterator[Detections]:
    """Fill in ``classifier_score`` for a stream of (rows, crops), in batches that reach across tiles."""

    def full_batches() -> Iterator[tuple[Detections, NDArray[np.float32]]]:
        for rows, images in rebatch(found, batch):
            x = prepare_crops(images, part)
            missing = batch - len(x)  # the network's shape is fixed; the last batch is filled up
            yield rows, np.concatenate([x, np.zeros((missing, *x.shape[1:]), np.float32)]) if missing else x

    for rows, logits in network.map(full_batches()):
        rows["classifier_score"] = mitosis_probability(logits[: len(rows)])
        yield rows


def rebatch(
    found: Iterable[tuple[Detections, NDArray[np.uint8]]], batch: int
) -> Iterator[tuple[Detections, NDArray[np.uint8]]]:
    """Regroup a stream of (rows, crops) into groups of ``batch`` rows; the last may be smaller."""
    waiting_rows: list[Detections] = []
    waiting_crops: list[NDArray[np.uint8]] = []
    count = 0
    for rows, images in found:
        waiting_rows.append(rows)
        waiting_crops.append(images)
        count += len(rows)
        while count >= batch:
            all_rows, all_crops = np.concatenate(waiting_rows), np.concatenate(waiting_crops)
            yield all_rows[:batch], all_crops[:batch]
            waiting_rows, waiting_crops, count = [all_rows[batch:]], [all_crops[batch:]], count - batch
    if count:
        yield np.concatenate(waiting_rows), np.concatenate(waiting_crops)
