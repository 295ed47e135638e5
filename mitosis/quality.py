"""What a reader should know before trusting a slide's count: flags that are measured, not judged."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.slide import Slide
from mitosis.tissue import TissueMask

RGB = NDArray[np.uint8]

LITTLE_TISSUE_MM2 = 2.37  # one hotspot: below it no full field can be counted
SHARP = 0.02  # see sharpness(); cells of MITOS-ATYPIA-14 have 0.02 to 0.33, median 0.11; blurred by 2 px 0.008
INK_SHARE = 0.005  # of the tissue; a pen's line around a lesion is more


def quality_flags(slide: Slide, tissue: TissueMask, thumbnail: RGB, crops: list[RGB]) -> list[str]:
    """Return one sentence for everything remarkable; an empty list is a clean bill.

    ``thumbnail`` is the whole slide, ``crops`` are level-0 neighbourhoods of candidates.
    """
    flags = []
    if slide.spacing.source.startswith("option"):
        flags.append(f"Spacing {slide.spacing.x_um:g} um per pixel was given by hand; sizes and areas rest on it.")
    area = tissue.area_mm2((slide.spacing.x_um, slide.spacing.y_um))
    if area < LITTLE_TISSUE_MM2:
        flags.append(f"Little tissue: {area:.2f} mm2, less than one hotspot of {LITTLE_TISSUE_MM2} mm2.")
    if crops and (median := float(np.median([sharpness(c) for c in crops]))) < SHARP:
        flags.append(f"Blurred: the cells' sharpness is {median:.3f}, below {SHARP}; mitoses may be missed.")
    if (share := ink_share(thumbnail)) > INK_SHARE:
        flags.append(f"Pen or marker: {share:.1%} of the stained area has an ink's colour.")
    return flags


def sharpness(rgb: RGB) -> float:
    """Return the Laplacian's variance over the picture's own: fine detail relative to contrast, so stain cancels."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(cv2.Laplacian(grey, cv2.CV_32F).var() / max(float(grey.var()), 1.0))


def ink_share(rgb: RGB) -> float:
    """Return which share of the stained pixels is green, cyan or black, as neither stain of H&E is."""
    hue, saturation, value = (c.astype(int) for c in cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)))
    stained = (saturation > 25) | (value < 180)
    ink = ((hue > 40) & (hue < 112) & (saturation > 70)) | (value < 45)  # OpenCV's hue: degrees / 2
    return float((ink & stained).sum() / max(int(stained.sum()), 1))
