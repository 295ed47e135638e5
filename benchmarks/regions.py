"""The region that a benchmark runs on: a file of one's own, or a drawn one of challenge size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from make_case import Plan, draw  # type: ignore[import-not-found]
from PIL import Image

SPACING_UM = 0.25
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
