"""Labels against a bundle's probabilities: a label changed by hand is the most doubtful one."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from mitosis.labels import LabelledImage
from training.data.images import LOOK_ALIKE, MITOTIC
from training.doubtful_labels import labels_of, main, without_the_edge
from training.scored import Scored

MITOSES = np.array([[100.0, 100.0], [200.0, 200.0]])
LOOK_ALIKES = np.array([[120.0, 100.0], [400.0, 400.0]])


def scored(points: list[tuple[float, float]], scores: list[float]) -> Scored:
    image = LabelledImage("a.png", "A", "drawn", 0.25, MITOSES, LOOK_ALIKES)
    return Scored(image, np.array(points, np.float64).reshape(-1, 2), np.array(scores))


def test_a_candidate_belongs_to_the_nearest_label() -> None:
    """The one at 108 is within reach of a mitosis and a look-alike, 20 px apart; the one at 300 of none."""
    found = labels_of(scored([(108, 100), (104, 100), (119, 101), (300, 300)], [0.9, 0.7, 0.2, 0.8]), Path("a.png"))
    assert [(one.category, one.probability) for one in found] == [
        (MITOTIC, 0.9), (MITOTIC, 0.0), (LOOK_ALIKE, 0.2), (LOOK_ALIKE, 0.0),
    ]  # fmt: skip
    assert [one.doubtful(0.15) for one in found] == [False, True, True, False]
    assert [round(one.doubt, 6) for one in found] == [0.1, 1.0, 0.2, 0.0]


def test_without_candidates_every_mitosis_is_missed() -> None:
    assert [one.probability for one in labels_of(scored([], []), Path("a.png"))] == [0.0] * 4


def test_only_false_positives_at_the_edge_go() -> None:
    left = without_the_edge(scored([(200, 201), (300, 201), (300, 100), (20, 100), (490, 100)], [0.5] * 5), (512, 220))
    assert left.points_px.tolist() == [[200, 201], [300, 100]]
    assert len(without_the_edge(scored([], []), (512, 220)).scores) == 0


def test_a_wrong_label_comes_first(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A corner of the drawn case serves as window and as frame; one of its mitoses is called a look-alike."""
    pixels = tifffile.imread(next((root / "test/input/interf0/images").rglob("*.tiff")))[:1024, :1024]
    document = json.loads((root / "test/planted.json").read_text())
    inside = [a | {"image_id": 1} for a in document["annotations"] if 100 < min(a["bbox"]) < max(a["bbox"]) < 924]
    for kind, split in (("windows", "train"), ("frames", "val")):
        (tmp_path / kind).mkdir()
        Image.fromarray(pixels).save(tmp_path / kind / "a.png")
        image = document["images"][0] | {"id": 1, "file_name": "a.png", "split": split}
        (tmp_path / f"{kind}.json").write_text(json.dumps(document | {"images": [image], "annotations": inside}))
    wrong = next(a for a in inside if a["category_id"] == MITOTIC)
    wrong["category_id"] = LOOK_ALIKE
    (tmp_path / "windows.json").write_text(
        json.dumps(document | {"images": [image | {"split": "train"}], "annotations": inside})
    )

    main(tmp_path, root / "model", tmp_path / "out")
    with (tmp_path / "out/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(inside)
    x1, y1, x2, y2 = wrong["bbox"]
    expected = {"x_px": f"{(x1 + x2) / 2:.1f}", "y_px": f"{(y1 + y2) / 2:.1f}", "label": "not mitotic figure"}
    assert expected.items() <= rows[0].items()
    assert float(rows[0]["probability"]) > 0.5
    printed = capsys.readouterr().out
    table = [tuple(line.split(" | ")[:2]) for line in printed.splitlines() if line.startswith(("| train", "| val"))]
    assert table == [(f"| {key}", by) for by in ("stage 1", "stage 2", "both") for key in ("train", "val")]
    look_alikes = [float(row["probability"]) for row in rows if row["label"] == "not mitotic figure"]
    high = sum(p >= 0.28 for p in look_alikes)
    assert f"{high} of {len(look_alikes)} labels 'not mitotic figure' are on the wrong side" in printed
    assert (tmp_path / "out/labels.png").stat().st_size > 1000
