"""Measures how time grows with a slide's area, from 0.5 to 400 mm2, and draws it: docs/scaling.png.

    python benchmarks/scaling.py [--output docs/scaling.png]

Two rows of drawn slides: tissue from edge to edge, as regions are, and slides of which a twentieth is tissue. Every
point is one `mitosis detect`, its results written; nothing is extrapolated. Takes about two minutes on two cores.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import typer

sys.path.insert(0, str(Path(__file__).parent))
from draw_slide import SPACING_UM, write_slide

from mitosis.pipeline import Model, load_model
from mitosis.provenance import RUN_NAME
from mitosis.results import Options, process_slide

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
ROWS = {1.0: (0.5, 1, 2, 4, 8, 16), 0.05: (8, 16, 40, 100, 200, 400)}  # share of tissue: areas in mm2


@dataclass(frozen=True)
class Point:
    """One slide: its area, and the seconds for finding and for everything after (merged, ranked, written)."""

    share: float
    area_mm2: float
    candidates: int
    detect_s: float
    write_s: float


def measure(model: Model, share: float, area_mm2: float) -> Point:
    """Draw a slide and process it."""
    side_px = round(math.sqrt(area_mm2) * 1000 / SPACING_UM)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tiff"
        write_slide(path, side_px, share)
        process_slide(path, Path(folder), model, Options(overlay=False))
        run = json.loads((Path(folder) / RUN_NAME).read_text())
    return Point(share, area_mm2, run["result"]["candidates"], run["seconds"]["detect"], run["seconds"]["write"])


def plot(points: list[Point], path: Path) -> None:
    """Draw seconds over area, both logarithmic, with a line for growth in proportion."""
    figure, axes = plt.subplots(figsize=(6.4, 4.4), dpi=100)
    for share, colour in zip(ROWS, ("tab:purple", "tab:blue"), strict=True):
        row = [p for p in points if p.share == share]
        areas = [p.area_mm2 for p in row]
        axes.plot(areas, [p.detect_s for p in row], "o-", color=colour, label=f"{share:.0%} tissue: found and merged")
        axes.plot(areas, [p.write_s for p in row], "s:", color=colour, label=f"{share:.0%} tissue: results written")
        last = row[-1]
        axes.plot(areas, [last.detect_s * a / last.area_mm2 for a in areas], color="grey", linewidth=0.8)
    axes.set(xscale="log", yscale="log", xlabel="slide area, mm2", ylabel="seconds")
    axes.set_title("Grey: in proportion to the area", fontsize=9)
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
    print("| tissue | mm2 | candidates | found, s | written, s | s per mm2 of tissue |\n|---|---|---|---|---|---|")
    for share, areas in ROWS.items():
        for area in areas:
            points.append(p := measure(loaded, share, area))
            per_mm2 = (p.detect_s + p.write_s) / (area * share)
            cells = (f"{share:.0%}", area, p.candidates, f"{p.detect_s:.2f}", f"{p.write_s:.2f}", f"{per_mm2:.2f}")
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    plot(points, output)


if __name__ == "__main__":
    typer.run(main)
