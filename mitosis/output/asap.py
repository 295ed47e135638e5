"""asap.xml: candidates as dots for ASAP, the viewer of Radboud's Computational Pathology Group. Level-0 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mitosis.detections import MITOTIC_FIGURE, NON_MITOTIC_FIGURE, Detections, centres_px
from mitosis.output.atomic import write_whole
from mitosis.output.geojson import COLOURS

ASAP_NAME = "asap.xml"


def elements(rows: Detections) -> Iterator[bytes]:
    """Yield the document, one dot a line, then the two groups that the viewer colours and hides."""
    yield b'<?xml version="1.0"?>\n<ASAP_Annotations>\n<Annotations>\n'
    for index, (row, (x, y)) in enumerate(zip(rows, centres_px(rows), strict=True)):
        group = MITOTIC_FIGURE if row["is_mitotic_figure"] else NON_MITOTIC_FIGURE
        yield (
            f'<Annotation Name="{index}: {row["probability"]:.3f}" Type="Dot" PartOfGroup="{group}" '
            f'Color="{colour(group)}"><Coordinates><Coordinate Order="0" X="{x:.2f}" Y="{y:.2f}"/></Coordinates>'
            "</Annotation>\n"
        ).encode()
    yield b"</Annotations>\n<AnnotationGroups>\n"
    for group in (MITOTIC_FIGURE, NON_MITOTIC_FIGURE):
        yield f'<Group Name="{group}" PartOfGroup="None" Color="{colour(group)}"><Attributes/></Group>\n'.encode()
    yield b"</AnnotationGroups>\n</ASAP_Annotations>\n"


def colour(group: str) -> str:
    """Return a group's colour as #rrggbb."""
    return "#" + "".join(f"{value:02x}" for value in COLOURS[group])


def write_asap(path: Path, rows: Detections) -> None:
    """Write the document, whole or not at all; raises OutputError."""
    write_whole(path, elements(rows))
