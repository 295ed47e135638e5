"""detections.csv and detections.parquet: one line per candidate, for a spreadsheet or a data frame."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mitosis.detections import MITOTIC_FIGURE, NON_MITOTIC_FIGURE, Detections, centres_px
from mitosis.errors import RuntimeUnavailableError
from mitosis.hotspot import Hotspot, hotspot_ranks
from mitosis.output.atomic import write_whole

TABLE_NAME, PARQUET_NAME = "detections.csv", "detections.parquet"
COLUMNS = (
    "label", "probability", "detector_score", "classifier_score", "x_px", "y_px", "x_mm", "y_mm",
    "x1_px", "y1_px", "x2_px", "y2_px", "tile", "hotspot",
)  # fmt: skip


def lines(rows: Detections, xy_mm: NDArray[np.float64], hotspots: list[Hotspot]) -> Iterator[bytes]:
    """Yield the header and the lines. ``hotspot`` is the rank of the field that holds the candidate, else empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    centres = centres_px(rows)
    rank = hotspot_ranks(centres, hotspots)
    for index, row in enumerate(rows):
        scores = (f"{row[name]:.5f}" for name in ("probability", "detector_score", "classifier_score"))
        places = (f"{v:.2f}" for v in centres[index]), (f"{v:.6f}" for v in xy_mm[index])
        box = (f"{row[name]:.2f}" for name in ("x1", "y1", "x2", "y2"))
        label = MITOTIC_FIGURE if row["is_mitotic_figure"] else NON_MITOTIC_FIGURE
        writer.writerow([label, *scores, *places[0], *places[1], *box, row["tile"], rank[index] or ""])
        if buffer.tell() > 1 << 20:
            yield buffer.getvalue().encode()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode()


def write_table(path: Path, rows: Detections, xy_mm: NDArray[np.float64], hotspots: list[Hotspot]) -> None:
    """Write the table, whole or not at all; raises OutputError."""
    write_whole(path, lines(rows, xy_mm, hotspots))


def check_parquet() -> None:
    """Raise RuntimeUnavailableError, before a slide is touched, where Parquet cannot be written."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise RuntimeUnavailableError("--parquet needs one more package; pip install 'mitosis[parquet]'") from error


def write_parquet(path: Path, rows: Detections, xy_mm: NDArray[np.float64], hotspots: list[Hotspot]) -> None:
    """Write the table's columns with their types, whole or not at all; raises OutputError.

    ``label`` is a dictionary, ``hotspot`` null outside of all of them; numbers are not rounded.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    centres = centres_px(rows)
    rank = hotspot_ranks(centres, hotspots)
    names = pa.array([NON_MITOTIC_FIGURE, MITOTIC_FIGURE])
    label = pa.DictionaryArray.from_arrays(pa.array(rows["is_mitotic_figure"].astype(np.int8)), names)
    scores = [rows[name] for name in ("probability", "detector_score", "classifier_score")]
    boxes = [rows[name] for name in ("x1", "y1", "x2", "y2")]
    numbers = [*scores, *centres.T, *xy_mm.T, *boxes, rows["tile"]]
    spot = pa.array(rank.astype(np.int32), mask=rank == 0)
    columns = [label, *(pa.array(np.ascontiguousarray(values)) for values in numbers), spot]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True))), sink)
    write_whole(path, sink.getvalue().to_pybytes())
