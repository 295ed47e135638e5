"""What many slides came to: the table at the end, and summary.csv."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from mitosis.errors import InputError, MitosisError
from mitosis.output.atomic import check_folder, remove, write_whole
from mitosis.terminal import console

SUMMARY_NAME = "summary.csv"
COLUMNS = (
    "slide", "status", "mitotic_count", "hotspot_mm2", "hotspot_per_mm2", "mitotic_figures", "rejected_candidates",
    "tissue_mm2", "per_mm2_of_tissue", "seconds", "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """What one slide came to: the ``result`` of its run.json, or an ``error``."""

    name: str
    result: dict[str, Any] | None = None
    seconds: float = 0.0
    skipped: bool = False
    error: MitosisError | None = None

    @property
    def status(self) -> str:
        """One word for the table."""
        return "failed" if self.error else "skipped" if self.skipped else "done"

    def line(self) -> str:
        """Say in a line what the slide came to."""
        if self.error or self.result is None:
            return str(self.error)
        if self.skipped:
            return f"{self.name}: finished before, skipped"
        return f"{self.name}: {self.result['mitotic_figures']} mitotic figures in {self.seconds:.1f} s"

    def row(self) -> tuple[str | int | float | None, ...]:
        """Return the values of ``COLUMNS``."""
        if self.result is None:
            return (self.name, self.status, *[None] * 7, round(self.seconds, 2), str(self.error))
        found, spots = self.result, self.result["hotspots"]
        spot = (round(spots[0]["area_mm2"], 4), round(spots[0]["per_mm2"], 4)) if spots else (None, 0.0)
        rejected = found["candidates"] - found["mitotic_figures"]
        counts = (found["mitotic_figures"], rejected, found["tissue_mm2"], found["per_mm2_of_tissue"])
        seconds = None if self.skipped else round(self.seconds, 2)
        return (self.name, self.status, found["mitotic_count"], *spot, *counts, seconds, None)


def begin(output: Path) -> None:
    """Make the folder of all results and remove an older command's table; raises OutputError where that fails."""
    check_folder(output)
    remove(output / SUMMARY_NAME)


def concluded(summaries: list[Summary], output: Path) -> list[Summary]:
    """Write ``output/summary.csv``, print the table and return the summaries.

    Raises where slides failed: a lone slide's own error; of many, one of the kind that all failures share, InputError
    where only some are the input's fault. Raises OutputError where the table cannot be written.
    """
    failed = [s.error for s in summaries if s.error]
    text = to_csv(summaries).encode(errors="backslashreplace")
    write_whole(output / SUMMARY_NAME, text if text.isascii() else codecs.BOM_UTF8 + text)  # or Excel takes it for ANSI
    if len(failed) == 1 and len(summaries) == 1:
        raise failed[0]
    console.print(summary_table(summaries))
    if failed:
        mixed = len({type(error) for error in failed}) > 1 and any(isinstance(error, InputError) for error in failed)
        kind = InputError if mixed else type(failed[0])
        raise kind(f"{len(failed)} of {len(summaries)} images failed, the others are done; first: {failed[0]}")
    return summaries


def to_csv(summaries: Sequence[Summary]) -> str:
    """Return the table for a spreadsheet, one line a slide, in the order in which they were named."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(s.row() for s in summaries)
    return buffer.getvalue()


def summary_table(summaries: Sequence[Summary]) -> Table:
    """Lay out what each slide came to, and their sum."""
    table = Table(show_footer=len(summaries) > 1)
    table.add_column("slide", overflow="fold")
    for title in ("in hotspot 1", "mitotic figures", "rejected", "per mm2 of tissue", "seconds"):
        table.add_column(title, justify="right")
    table.add_column("remark", overflow="fold")
    for s in summaries:
        name, _, count, area, _, figures, rejected, _, density, seconds, reason = s.row()
        spot = "" if count is None else f"{count} in {area:.2f} mm2" if area else str(count)
        per_mm2 = "" if density is None else f"{density:.2f}"
        remark = f"failed: {reason}" if s.error else "finished before, skipped; --overwrite repeats it" * s.skipped
        cells = ("" if v is None else str(v) for v in (figures, rejected))
        table.add_row(str(name), spot, *cells, per_mm2, "" if seconds is None else f"{seconds:.1f}", remark)
    counts = [(word, sum(s.status == word for s in summaries)) for word in ("done", "skipped", "failed")]
    table.columns[0].footer = f"{len(summaries)} slides"
    table.columns[2].footer = str(sum(s.result["mitotic_figures"] for s in summaries if s.result))
    table.columns[6].footer = ", ".join(f"{number} {word}" for word, number in counts if number)
    return table
