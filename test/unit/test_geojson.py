"""QuPath's files: RFC 7946, points on the centres, outlines that hold what they count."""

import json
from pathlib import Path

import numpy as np
import pytest

from mitosis.detections import empty_detections
from mitosis.hotspot import Shape, find_hotspots
from mitosis.output.geojson import TO_QUPATH_PX, detection_features, hotspot_features, write_features


def area(ring: list[list[float]]) -> float:
    """Return the ring's signed area: positive where it turns from x to y."""
    (x, y) = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def inside(ring: np.ndarray, point: np.ndarray) -> bool:
    """Tell whether a point lies in a convex ring, borders included."""
    edges, to = np.diff(ring, axis=0), point - ring[:-1]
    return bool((edges[:, 0] * to[:, 1] - edges[:, 1] * to[:, 0] >= -0.02 * np.linalg.norm(edges, axis=1)).all())


@pytest.mark.parametrize("shape", list(Shape))
def test_outlines(shape: Shape, tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(0, 8000, (200, 2))
    spots = find_hotspots(points, np.ones(200), 0.5, (8001, 8001), (0.25, 0.2), 0.3, 3, shape)
    write_features(tmp_path / "hotspots.geojson", hotspot_features(spots))
    document = json.loads((tmp_path / "hotspots.geojson").read_text())
    assert document["type"] == "FeatureCollection"
    for spot, feature in zip(spots, document["features"], strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert area(ring) * 0.25 * 0.2 / 1e6 == pytest.approx(0.3, rel=1e-3)
        held = [inside(np.array(ring), point + TO_QUPATH_PX) for point in points]
        assert sum(held) == feature["properties"]["measurements"]["count"] == spot.count
        assert feature["properties"]["objectType"] == "annotation"


def test_points(tmp_path: Path) -> None:
    rows = empty_detections(2)
    rows["x1"], rows["x2"], rows["y2"], rows["probability"] = (10, 30), (20, 41), 8, (0.9, 0.1)
    rows["detector_score"] = rows["classifier_score"] = 0.5
    rows["is_mitotic_figure"] = (True, False)
    write_features(tmp_path / "detections.geojson", detection_features(rows))
    features = json.loads((tmp_path / "detections.geojson").read_text())["features"]
    assert [f["geometry"]["coordinates"] for f in features] == [[15.5, 4.5], [36.0, 4.5]]
    assert [f["properties"]["classification"]["name"] for f in features] == ["mitotic figure", "non-mitotic figure"]
    assert features[0]["properties"]["measurements"]["stage 1 score"] == 0.5


def test_nothing_found(tmp_path: Path) -> None:
    write_features(tmp_path / "empty.geojson", [])
    assert json.loads((tmp_path / "empty.geojson").read_text()) == {"type": "FeatureCollection", "features": []}
