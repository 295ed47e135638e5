"""Plots of a comparison: precision-recall, FROC, reliability, and galleries of hits and errors."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mitosis.output.gallery import cut_cells, judge, sheet
from mitosis.output.grand_challenge import Points
from mitosis.output.overlay import write_png
from mitosis.slide import open_slide
from training.metrics import FROC_LIMIT, froc
from training.scored import Scored, curve

mpl.use("Agg")
BINS = 10


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
    """Write a sheet of cells: hits, then false positives by falling score, then missed mitoses."""
    cells = []
    for one in images:
        points = Points(one.points_px * one.image.spacing_um / 1000, one.scores >= threshold, one.scores)
        with open_slide(folder / one.image.file_name, one.image.spacing_um) as slide:
            cells += cut_cells(slide, judge(one.image, points))
    write_png(path, sheet(cells), "--output")
