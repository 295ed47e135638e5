"""ASAP's XML parses, and the package's front door is what the command line uses."""

import xml.etree.ElementTree as ET
from pathlib import Path

import mitosis
from mitosis.detections import empty_detections
from mitosis.output.asap import write_asap

ROOT = Path(__file__).parents[2]


def test_dots_lie_on_the_centres(tmp_path: Path) -> None:
    rows = empty_detections(2)
    rows["x1"], rows["x2"], rows["y2"], rows["probability"] = (10, 30), (20, 41), 8, (0.9, 0.1)
    rows["is_mitotic_figure"] = (True, False)
    write_asap(tmp_path / "asap.xml", rows)
    document = ET.parse(tmp_path / "asap.xml")
    dots = document.findall("Annotations/Annotation")
    assert [dot.get("PartOfGroup") for dot in dots] == ["mitotic figure", "non-mitotic figure"]
    places = [(float(c.get("X", 0)), float(c.get("Y", 0))) for c in document.iter("Coordinate")]
    assert places == [(15.0, 4.0), (35.5, 4.0)]
    assert len(document.findall("AnnotationGroups/Group")) == 2


def test_from_python() -> None:
    model = mitosis.load_model(ROOT / "model")
    with mitosis.open_slide(next((ROOT / "test/input/interf0").rglob("*.tiff"))) as slide:
        rows = mitosis.detect(slide, model)
    assert rows.dtype == mitosis.DETECTION_DTYPE
    assert rows["is_mitotic_figure"].sum() > 10
