"""Plots of a comparison: precision-recall, FROC, reliability, and galleries of hits and errors."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.data.images import RGB, read_rgb
from training.metrics import FROC_LIMIT, Scored, curve, froc

mpl.use("Agg")
BINS = 10
CROP_PX, COLUMNS, GAP_PX = 64, 14, 4
KINDS = {"TP": (0, 150, 60), "FP": (230, 120, 0), "FN": (200, 30, 30)}  # RGB of the frame


def draw_curves(folder: Path, variants: dict[str, list[Scored]]) -> None:
    """Write pr.png and froc.png, one line a variant."""
    thresholds = np.arange(0.02, 1.0, 0.02)
    pr, fr = (Figure(figsize=(5, 4), layout="constrained") for _ in range(2))
    pr_axes, fr_axes = (
        pr.add_subplot(xlabel="recall", ylabel="precision"),
        fr.add_subplot(xlabel="false positives an image", ylabel="recall"),
    )
    for name, images in variants.items():
        counts = curve(images, thresholds)
        pr_axes.plot([c.recall for c in counts], [c.precision for c in counts], label=name)
        fr_axes.plot(*froc(images), label=name)
    fr_axes.set(xlim=(0, FROC_LIMIT), ylim=(0, 1))
    pr_axes.set(xlim=(0, 1), ylim=(0, 1))
    for figure, axes, name in ((pr, pr_axes, "pr.png"), (fr, fr_axes, "froc.png")):
        axes.legend()
        axes.grid(alpha=0.3)
        figure.savefig(folder / name, dpi=120)


def draw_reliability(path: Path, variants: dict[str, list[Scored]]) -> None:
    """Plot the share of mitoses among candidates against the score that they got."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="score", ylabel="share of mitotic figures", xlim=(0, 1), ylim=(0, 1))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    for name, images in variants.items():
        scores, positive = (np.concatenate([getattr(i, key) for i in images]) for key in ("scores", "positive"))
        bins = np.minimum((scores * BINS).astype(int), BINS - 1)
        filled = [b for b in range(BINS) if (bins == b).any()]
        axes.plot(
            [scores[bins == b].mean() for b in filled], [positive[bins == b].mean() for b in filled], "o-", label=name
        )
    axes.legend()
    figure.savefig(path, dpi=120)


def draw_gallery(path: Path, folder: Path, images: list[Scored], threshold: float) -> None:
    """Write rows of crops: hits, then false positives by falling score, then missed mitoses, framed by kind."""
    found: dict[str, list[tuple[float, RGB]]] = {kind: [] for kind in KINDS}
    for one in images:
        rgb = read_rgb(folder / one.image.file_name)
        kept = one.scores >= threshold
        for point, score, positive in zip(one.points_px[kept], one.scores[kept], one.positive[kept], strict=True):
            found["TP" if positive else "FP"].append((float(score), crop(rgb, point)))
        hits = one.points_px[kept]
        for point in one.image.mitotic_figures_px:
            if not len(hits) or (np.linalg.norm(hits - point, axis=1) * one.image.spacing_um).min() > 7.5:
                found["FN"].append((0.0, crop(rgb, point)))
    rows = []
    for kind, colour in KINDS.items():
        crops = [c for _, c in sorted(found[kind], key=lambda item: -item[0])][: 3 * COLUMNS]
        framed = [bordered(c, GAP_PX, colour) for c in crops]
        side = CROP_PX + 2 * GAP_PX
        framed += [np.full((side, side, 3), 255, np.uint8)] * (-len(framed) % COLUMNS)
        rows += [np.hstack(framed[i : i + COLUMNS]) for i in range(0, len(framed), COLUMNS)]
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


def crop(rgb: RGB, point: NDArray[np.float64]) -> RGB:
    """Cut a square around a point; white outside."""
    padded = bordered(rgb, CROP_PX, (255, 255, 255))
    x, y = (round(float(v)) + CROP_PX // 2 for v in point)
    return np.asarray(padded[y : y + CROP_PX, x : x + CROP_PX], dtype=np.uint8)


def bordered(rgb: RGB, width_px: int, colour: tuple[int, int, int]) -> RGB:
    """Add a border of one colour on all sides."""
    w = width_px
    return np.asarray(cv2.copyMakeBorder(rgb, w, w, w, w, cv2.BORDER_CONSTANT, value=colour), dtype=np.uint8)
