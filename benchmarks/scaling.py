"""Measures how time grows with a slide's area, from 0.5 to 400 mm2, and draws it: docs/scaling.png.

    python -m benchmarks.scaling [--output docs/scaling.png]

Two rows of drawn slides: tissue from edge to edge, as regions are, and slides of which 2 % is tissue. Every
point is one `mitosis detect`, its results written; nothing is extrapolated. The plot shows the processor's own time,
which a busy machine does not change much. Takes about two minutes on two idle cores.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import typer

from benchmarks.draw_slide import SPACING_UM, write_slide
from mitosis.pipeline import Model, load_model
from mitosis.provenance import RUN_NAME
from mitosis.results import Options, process_slide

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
ROWS = {1.0: (0.5, 1, 2, 4, 8), 0.02: (8, 16, 40, 100, 200, 400)}  # share of tissue: areas in mm2


@dataclass(frozen=True)
class Point:
    """One slide: its area and what it cost, results written. The processor's seconds add up over the cores."""

    share: float
    area_mm2: float
    candidates: int
    wall_s: float
    processor_s: float
    after_s: float  # of wall_s: for ranking hotspots and writing


def measure(model: Model, share: float, area_mm2: float) -> Point:
    """Draw a slide and process it."""
    side_px = round(math.sqrt(area_mm2) * 1000 / SPACING_UM)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tiff"
        write_slide(path, side_px, share)
        began = time.process_time()
        process_slide(path, Path(folder), model, Options(overlay=False))
        processor_s = time.process_time() - began
        run = json.loads((Path(folder) / RUN_NAME).read_text())
    seconds = run["seconds"]
    after_s = seconds["hotspots"] + seconds["writing"]
    return Point(share, area_mm2, run["result"]["candidates"], seconds["total"], processor_s, after_s)


def plot(points: list[Point], path: Path) -> None:
    """Draw the processor's seconds over area, both logarithmic, with lines for growth in proportion."""
    figure, axes = plt.subplots(figsize=(6.4, 4.4), dpi=100)
    for share, colour in zip(ROWS, ("tab:purple", "tab:blue"), strict=True):
        row = [p for p in points if p.share == share]
        areas = [p.area_mm2 for p in row]
        axes.plot(areas, [p.processor_s for p in row], "o-", color=colour, label=f"{share:.0%} of the slide is tissue")
        axes.plot(areas, [row[-1].processor_s * a / row[-1].area_mm2 for a in areas], color="grey", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="slide area, mm2", ylabel="processor seconds, all cores together")
    axes.set_title("mitosis detect, results written; grey: in proportion to the area", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main(
    model: Annotated[Path, typer.Option(help="Model bundle")] = ROOT / "model",
    output: Annotated[Path, typer.Option(help="Where the plot goes")] = ROOT / "docs/scaling.png",
) -> None:
    """Print a table and draw the plot."""
    loaded = load_model(model)
    points = []
    print("| tissue | mm2 | candidates | s | of it ranking and writing | processor s | processor s per mm2 of tissue |")
    print("|---|---|---|---|---|---|---|")
    for share, areas in ROWS.items():
        for area in areas:
            points.append(p := measure(loaded, share, area))
            seconds = (p.wall_s, p.after_s, p.processor_s, p.processor_s / (area * share))
            cells = (f"{share:.0%}", area, p.candidates, *(f"{value:.2f}" for value in seconds))
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    plot(points, output)


if __name__ == "__main__":
    typer.run(main)
