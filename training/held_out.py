"""Held-out patches as validation images: what share of many laboratories' mitoses is found at a threshold.

The labelled validation frames come from one case and one scanner; the held-out patches come from several laboratories.
Those of AMi-Br are whole slides that training never saw; those of AtNorM-MD name no slide and are held out one by one,
so that training may have seen their neighbours. They hold a mitosis each and little else: they say something of recall
and next to nothing of false positives.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.labels import LabelledImage
from training.data.images import PATCH_PX, Patch, load_patches

SIDE = 4  # patches along each side of an image: one tile of the network
SPACING_UM = 0.25


def write_mosaics(data: Path, target: Path) -> list[LabelledImage]:
    """Write the held-out patches into TARGET as images of 4 x 4, and return them with their labels.

    A patch whose slide is known brings all its labelled mitoses that lie inside it.
    """
    patches = load_patches(data, held_out=True)
    images = []
    for number in range(math.ceil(len(patches) / SIDE**2)):
        chosen = patches[number * SIDE**2 : (number + 1) * SIDE**2]
        name = f"patches-{number}.png"
        mitoses = write_mosaic(chosen, target / name)
        images.append(LabelledImage(name, f"patches {number}", "several", SPACING_UM, mitoses, np.empty((0, 2))))
    return images


def write_mosaic(patches: list[Patch], path: Path) -> NDArray[np.float64]:
    """Lay up to sixteen patches side by side, and return their mitoses' centres (n, 2) in the image's pixels."""
    canvas = np.full((SIDE * PATCH_PX, SIDE * PATCH_PX, 3), 255, np.uint8)
    centres = []
    for index, patch in enumerate(patches):
        y, x = (PATCH_PX * v for v in divmod(index, SIDE))
        canvas[y : y + PATCH_PX, x : x + PATCH_PX] = patch.rgb
        inside = ((patch.mitoses_px >= 0) & (patch.mitoses_px < PATCH_PX)).all(axis=1)
        centres.append(patch.mitoses_px[inside] + (x, y))
    cv2.imwrite(str(path), canvas[..., ::-1])
    return np.asarray(np.concatenate(centres), dtype=np.float64)
