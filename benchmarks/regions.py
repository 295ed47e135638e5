"""The region that a benchmark runs on: a file of one's own, or a drawn one of challenge size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from make_case import Plan, draw
from numpy.typing import NDArray
from PIL import Image

SPACING_UM = 0.25
Image.MAX_IMAGE_PIXELS = None  # for every benchmark that opens a region
WIDTH_PX, HEIGHT_PX = 7215, 5412  # a region of the challenge: 2.44 mm2


def region(image: Path | None, folder: Path) -> Path:
    """Return ``image``, or draw a region into ``folder``: the test case's tissue, repeated until it has the size."""
    if image:
        return image
    drawn, _ = draw(Plan(mitoses=3, look_alikes=6))
    repeats = (-(-HEIGHT_PX // drawn.shape[0]), -(-WIDTH_PX // drawn.shape[1]), 1)
    path = folder / "drawn-region.jpg"
    Image.fromarray(np.tile(drawn, repeats)[:HEIGHT_PX, :WIDTH_PX]).save(path, quality=88)
    return path


def densest_window(path: Path, side_px: int = 1024) -> NDArray[np.uint8]:
    """Return the darkest window of a region, (side, side, 3): where its tissue is."""
    with Image.open(path) as image:
        rgb = np.asarray(image.convert("RGB"))
    height, width = rgb.shape[:2]
    corners = [(y, x) for y in range(0, height - side_px + 1, side_px) for x in range(0, width - side_px + 1, side_px)]
    windows = [rgb[y : y + side_px, x : x + side_px] for y, x in corners]
    return min(windows, key=lambda window: float(window[::8, ::8].mean()))
