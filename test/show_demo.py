"""Draws the demo's result over the drawn case and holds it against what was planted.

python test/show_demo.py FOLDER        FOLDER holds mitotic-figures.json
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.console import Console

from mitosis.evaluation import evaluate_image
from mitosis.labels import read_labels
from mitosis.output.grand_challenge import FILE_NAME, read_points
from mitosis.output.overlay import draw_overlay, write_png
from mitosis.slide import open_slide

HERE = Path(__file__).parent
CASE = HERE / "input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff"
BOX_PX = 50.0


def main(folder: Path) -> None:
    """Write FOLDER/overlay.png and print planted against found."""
    points = read_points(folder / FILE_NAME)
    counts = evaluate_image(read_labels(HERE / "planted.json")[0], points)
    with open_slide(CASE) as slide:
        centres = points.xy_mm * 1000 / slide.spacing.x_um
        boxes = np.concatenate([centres - BOX_PX / 2, centres + BOX_PX / 2], axis=1)
        image = slide.read(0, 0, slide.width_px, slide.height_px)
    picture = draw_overlay(image, boxes, points.is_mitotic_figure, points.probability)
    write_png(folder / "overlay.png", picture, "--overlay")
    console = Console()
    console.print(
        f"planted {counts.tp + counts.fn} mitotic figures: {counts.tp} found, {counts.fn} missed, {counts.fp} false"
    )
    console.print(f"result:  {folder / FILE_NAME}\npicture: {folder / 'overlay.png'}  (open it: green boxes)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
