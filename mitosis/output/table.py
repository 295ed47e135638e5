"""detections.csv: one line per candidate, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mitosis.detections import MITOTIC_FIGURE, NON_MITOTIC_FIGURE, Detections, centres_px
from mitosis.hotspot import Hotspot
from mitosis.output.atomic import write_whole

COLUMNS = (
    "label", "probability", "detector_score", "classifier_score", "x_px", "y_px", "x_mm", "y_mm",
    "x1_px", "y1_px", "x2_px", "y2_px", "hotspot",
)  # fmt: skip


def lines(rows: Detections, xy_mm: NDArray[np.float64], hotspots: list[Hotspot]) -> Iterator[bytes]:
    """Yield the header and the lines. ``hotspot`` is the rank of the field that holds the candidate, else empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    centres = centres_px(rows)
    rank = np.zeros(len(rows), int)
    for spot in hotspots:
        rank[spot.holds(centres)] = spot.rank
    for index, row in enumerate(rows):
        scores = (f"{row[name]:.5f}" for name in ("probability", "detector_score", "classifier_score"))
        places = (f"{v:.2f}" for v in centres[index]), (f"{v:.6f}" for v in xy_mm[index])
        box = (f"{row[name]:.2f}" for name in ("x1", "y1", "x2", "y2"))
        label = MITOTIC_FIGURE if row["is_mitotic_figure"] else NON_MITOTIC_FIGURE
        writer.writerow([label, *scores, *places[0], *places[1], *box, rank[index] or ""])
        if buffer.tell() > 1 << 20:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def write_table(path: Path, rows: Detections, xy_mm: NDArray[np.float64], hotspots: list[Hotspot]) -> None:
    """Write the table, whole or not at all; raises OutputError."""
    write_whole(path, lines(rows, xy_mm, hotspots))
