"""QuPath's GeoJSON (RFC 7946): detections as points, hotspots as annotations. Coordinates are level-0 pixels.

Written feature by feature: a slide with a million candidates needs no more memory than one with none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mitosis.detections import MITOTIC_FIGURE, NON_MITOTIC_FIGURE, Detections
from mitosis.hotspot import Hotspot, Shape
from mitosis.output.atomic import write_whole

DETECTIONS_NAME, HOTSPOTS_NAME = "detections.geojson", "hotspots.geojson"
COLOURS = {MITOTIC_FIGURE: [0, 190, 60], NON_MITOTIC_FIGURE: [255, 140, 0]}
# QuPath puts a pixel's corner, not its centre, at whole numbers.
TO_QUPATH_PX = 0.5
CIRCLE_CORNERS = 180  # GeoJSON knows no circles; the polygon is 0.02 % larger than the circle and holds all of it


def collection(features: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield a FeatureCollection in pieces, one feature a line."""
    yield b'{"type": "FeatureCollection", "features": ['
    for index, feature in enumerate(features):
        yield (b",\n" if index else b"\n") + json.dumps(feature).encode()
    yield b"\n]}\n"


def detection_features(rows: Detections) -> Iterator[dict[str, Any]]:
    """Yield a point for each candidate, with both stages' scores as measurements."""
    for row in rows:
        name = MITOTIC_FIGURE if row["is_mitotic_figure"] else NON_MITOTIC_FIGURE
        x, y = (float(row[a] + row[b]) / 2 + TO_QUPATH_PX for a, b in (("x1", "x2"), ("y1", "y2")))
        yield {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [round(x, 2), round(y, 2)]},
            "properties": {
                "objectType": "detection",
                "classification": {"name": name, "color": COLOURS[name]},
                "measurements": {
                    key: round(float(row[field]), 5)
                    for key, field in (
                        ("probability", "probability"),
                        ("stage 1 score", "detector_score"),
                        ("stage 2 score", "classifier_score"),
                    )
                },
            },
        }


def hotspot_features(hotspots: Iterable[Hotspot]) -> Iterator[dict[str, Any]]:
    """Yield an outline for each hotspot, with its count, area and densities as measurements."""
    for spot in hotspots:
        measurements: dict[str, float] = {
            "count": spot.count,
            "area mm2": round(spot.area_mm2, 4),
            "per mm2": round(spot.per_mm2, 4),
            "count if stricter": spot.count_if_stricter,
            "count if laxer": spot.count_if_laxer,
        }
        if spot.tissue_mm2 is not None:
            measurements["tissue mm2"] = round(spot.tissue_mm2, 4)
        if spot.per_mm2_of_tissue is not None:
            measurements["per mm2 of tissue"] = round(spot.per_mm2_of_tissue, 4)
        yield {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [outline(spot)]},
            "properties": {
                "objectType": "annotation",
                "name": f"hotspot {spot.rank}: {spot.count} in {spot.area_mm2:.2f} mm2",
                "classification": {"name": "hotspot", "color": [220, 30, 30]},
                "measurements": measurements,
            },
        }


def outline(spot: Hotspot) -> list[list[float]]:
    """Return a field's closed ring; counter-clockwise as RFC 7946 has it, were y upwards."""
    x1, y1, x2, y2 = (v + TO_QUPATH_PX for v in (spot.x1_px, spot.y1_px, spot.x2_px, spot.y2_px))
    if spot.shape is Shape.RECTANGLE:
        ring = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    else:
        outside = math.cos(math.pi / CIRCLE_CORNERS)  # sides touch the circle
        rx, ry = (r / outside for r in spot.radii_px)
        turns = [2 * math.pi * i / CIRCLE_CORNERS for i in range(CIRCLE_CORNERS)]
        ring = [((x1 + x2) / 2 + rx * math.cos(turn), (y1 + y2) / 2 + ry * math.sin(turn)) for turn in turns]
    return [[round(x, 2), round(y, 2)] for x, y in (*ring, ring[0])]


def write_features(path: Path, features: Iterable[dict[str, Any]]) -> None:
    """Write a FeatureCollection, whole or not at all; raises OutputError."""
    write_whole(path, collection(features))
