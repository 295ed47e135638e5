"""Where the tissue is, so that empty glass is neither read at full resolution nor run through a network.

Errs on the side of keeping: glass is only what is both bright and colourless, and nearly as bright as the slide's own
glass, and everything within ``MARGIN_UM`` of anything else is kept. So is all of a slide with hardly any glass. A
mitotic figure is a dark nucleus of some 10 um, so it can only be lost where it and all around it look like glass at
8 um per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.slide import Slide

SPACING_UM = 8.0  # of the mask: a cell is a pixel
BRIGHT, COLOURLESS = 205, 18  # of 255: what is darker or more coloured is never glass, however grey the slide
DARKER, TINTED = 12, 8  # than the slide's own glass: pale tissue. At 8 um per pixel glass itself varies by 2 to 5
LEAST_GLASS = 0.01  # share of the picture from which on its glass is known
MARGIN_UM = 100.0


@dataclass(frozen=True)
class TissueMask:
    """A coarse map of a slide: ``kept`` includes the margin, ``tissue`` does not; both (h, w) bool.

    ``scale`` is level-0 pixels per mask pixel: pixel i covers those from ``i * scale`` to ``(i + 1) * scale``.
    ``size_px`` is the slide's width and height, where the mask reaches beyond them.
    """

    tissue: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    scale: float
    size_px: tuple[int, int] | None = None

    def touches(self, x_px: float, y_px: float, side_px: float) -> bool:
        """Tell whether a square of level-0 pixels holds anything to keep, or lies within a mask pixel of it."""
        x1, y1 = (max(0, int(v / self.scale) - 1) for v in (x_px, y_px))
        x2, y2 = (int(np.ceil((v + side_px) / self.scale)) + 1 for v in (x_px, y_px))
        return bool(self.kept[y1:y2, x1:x2].any())

    def area_mm2(self, spacing_um: tuple[float, float]) -> float:
        """Return the area of tissue on the slide, without the margin."""
        rows, columns = self.tissue.shape
        width, height = self.size_px or (columns * self.scale, rows * self.scale)
        across, down = shares(columns, width / self.scale), shares(rows, height / self.scale)
        return float(down @ self.tissue @ across) * self.scale**2 * spacing_um[0] * spacing_um[1] / 1e6


def shares(count: int, length: float) -> NDArray[np.float64]:
    """Return which share of each of ``count`` pixels lies within ``length`` of them: 1, but for the last."""
    return np.clip(length - np.arange(count, dtype=np.float64), 0, 1)


def is_tissue(rgb: NDArray[np.uint8], bright: float = BRIGHT, colourless: float = COLOURLESS) -> NDArray[np.bool_]:
    """Tell tissue from glass: (h, w, 3) -> (h, w)."""
    low, high = rgb.min(axis=2), rgb.max(axis=2)
    return np.asarray((low < bright) | (high - low > colourless))


def limits(rgb: NDArray[np.uint8]) -> tuple[float, float] | None:
    """Return a slide's own ``bright`` and ``colourless`` for ``is_tissue``; what is tissue by default stays tissue.

    None where it has too little glass to know its own.
    """
    glass = rgb[~is_tissue(rgb)]
    if len(glass) < LEAST_GLASS * rgb[..., 0].size:
        return None
    low, tint = glass.min(axis=1), np.ptp(glass, axis=1)
    return max(BRIGHT, float(np.percentile(low, 95)) - DARKER), min(COLOURLESS, float(np.median(tint)) + TINTED)


def find_tissue(slide: Slide) -> TissueMask:
    """Map a slide strip by strip, from a coarse level where it has one. Raises InputError where it is damaged.

    A slide that seems to be nothing but glass is kept whole: it may be pale all over. So is one with hardly any glass,
    in which what is bright may as well be fat or a pale lake with a cell in it.
    """
    picture, scale = coarse_picture(slide)
    own = limits(picture)
    tissue = is_tissue(picture, *own) if own else is_tissue(picture)
    reach = int(np.ceil(MARGIN_UM / (scale * slide.spacing.x_um)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    kept = cv2.dilate(tissue.astype(np.uint8), disc).astype(bool)
    if own is None or not kept.any():
        kept = np.ones_like(kept)
    return TissueMask(tissue, kept, scale, (slide.width_px, slide.height_px))


def coarse_picture(slide: Slide) -> tuple[NDArray[np.uint8], float]:
    """Return the picture that a slide is judged by as a whole, and its scale; the slide keeps it for the next who asks.

    Raises InputError where the slide is damaged.
    """
    scale = max(1.0, SPACING_UM / slide.spacing.x_um)
    return slide.coarse(scale), scale
