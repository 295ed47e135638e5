"""What a reader should know before trusting a slide's count: flags that are measured, not judged."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.hotspot import Hotspot
from mitosis.slide import Slide
from mitosis.tissue import TissueMask, is_tissue

RGB = NDArray[np.uint8]

LITTLE_TISSUE_MM2 = 2.37  # one hotspot: below it no full field can be counted
SHARP = 0.02  # see sharpness(); cells of MITOS-ATYPIA-14 have 0.02 to 0.33, median 0.11; blurred by 2 px 0.008
INK_SHARE = 0.005  # of the tissue; a pen's line around a lesion is more
# A fold is two layers of tissue, so its optical density is about twice the rest's, in every colour and in a strip:
FOLD_UM = 20.0  # a pixel of the picture it is sought in: nuclei are averaged out, a fold is several pixels wide
FOLD_DENSITY, FOLD_ALIKE = 1.6, 1.35  # times the tissue's median, and how far colours differ: in an epidermis red leads
FOLD_MM2, FOLD_SLENDER = 0.01, 3.0  # least area of a strip, and its length over its width
FOLD_SHARE = 0.002  # of the tissue
ON_GLASS = 0.5  # share of tissue below which a hotspot is said to lie on an edge


def quality_flags(
    slide: Slide, tissue: TissueMask, thumbnail: RGB, thumbnail_um: float, crops: list[RGB], hotspots: list[Hotspot]
) -> list[str]:
    """Return one sentence for everything remarkable; an empty list is a clean bill.

    ``thumbnail`` is the whole slide at ``thumbnail_um`` micrometres per pixel, ``crops`` are level-0 neighbourhoods of
    candidates.
    """
    flags = []
    if slide.spacing.source.startswith("option"):
        flags.append(f"Spacing {slide.spacing.x_um:g} µm per pixel was given by hand; sizes and areas rest on it.")
    area = tissue.area_mm2((slide.spacing.x_um, slide.spacing.y_um))
    if area < LITTLE_TISSUE_MM2:
        flags.append(f"Little tissue: {area:.2f} mm², less than one field of {LITTLE_TISSUE_MM2} mm².")
    if crops and (median := float(np.median([sharpness(c) for c in crops]))) < SHARP:
        flags.append(f"Blurred: the cells' sharpness is {median:.3f}, below {SHARP}; mitoses may be missed.")
    if (share := ink_share(thumbnail)) > INK_SHARE:
        flags.append(f"Pen or marker: {share:.1%} of the stained area has an ink's colour.")
    if (share := fold_share(thumbnail, thumbnail_um)) > FOLD_SHARE:
        flags.append(f"Folds, or very dense strips: {share:.1%} of the tissue.")
    shares = [(spot.rank, (spot.tissue_mm2 or 0.0) / spot.area_mm2) for spot in hotspots]
    flags += [
        f"Hotspot {rank} lies on an edge: {share:.0%} of it is tissue." for rank, share in shares if share < ON_GLASS
    ]
    return flags


def fold_share(rgb: RGB, spacing_um: float) -> float:
    """Return which share of the tissue lies in folds: dark strips, about twice as dense as the tissue's median."""
    shrink = FOLD_UM / spacing_um
    if shrink > 1:
        size = (max(1, round(rgb.shape[1] / shrink)), max(1, round(rgb.shape[0] / shrink)))
        rgb, spacing_um = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), FOLD_UM
    tissue = is_tissue(rgb)
    if not tissue.any():
        return 0.0
    density = -np.log((rgb.astype(np.float64) + 1) / 256)
    times = density / np.maximum(np.median(density[tissue], axis=0), 0.02)  # denser than usual, by colour
    least, most = times.min(axis=2), times.max(axis=2)
    dark = (tissue & (least > FOLD_DENSITY) & (most < FOLD_ALIKE * least)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(dark, connectivity=8)
    folded = 0
    for index in range(1, count):
        pixels = int(stats[index, cv2.CC_STAT_AREA])
        if pixels * spacing_um**2 / 1e6 >= FOLD_MM2 and slenderness(labels == index) >= FOLD_SLENDER:
            folded += pixels
    return folded / int(tissue.sum())


def slenderness(region: NDArray[np.bool_]) -> float:
    """Return length over width of a region, a bent one too: a strip l x w has an area l w and an outline 2 (l + w)."""
    outlines, _ = cv2.findContours(np.pad(region, 1).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    area, half = float(region.sum()), sum(cv2.arcLength(one, True) for one in outlines) / 2 + 2  # pixels have a width
    root = float(np.sqrt(max(half**2 / 4 - area, 0.0)))
    return (half / 2 + root) / max(half / 2 - root, 1.0)


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
