"""Many slides: complete folders, one broken slide, resuming, manifests."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

FILES = [
    "detections.csv",
    "detections.geojson",
    "hotspots.geojson",
    "mitotic-figures.json",
    "overlay.png",
    "report.html",
    "run.json",
]


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mitosis.cli", "detect", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "250", "NO_COLOR": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def detect(*arguments: object) -> tuple[int, str]:
    process = start(*arguments)
    _, err = process.communicate(timeout=300)
    return process.returncode, err


@pytest.fixture(scope="module")
def slides(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with three parts of the drawn case and a broken file."""
    folder = tmp_path_factory.mktemp("slides")
    case = root / "test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff"
    rgb = tifffile.imread(case)
    for index in range(3):
        part = rgb[:, 600 * index : 600 * index + 800]
        tags = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(folder / f"part{index}.tiff", part, photometric="rgb", **tags)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """Return every result file but run.json, which holds times."""
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != "run.json"
    }


def test_a_folder_is_complete(slides: Path, tmp_path: Path) -> None:
    code, err = detect(slides, "--output", tmp_path, "--hotspot-area", 0.02)
    assert code == 0, err
    for index in range(3):
        folder = tmp_path / f"part{index}"
        assert sorted(p.name for p in folder.iterdir()) == FILES
        run = json.loads((folder / "run.json").read_text())
        points = json.loads((folder / "mitotic-figures.json").read_text())["points"]
        features = json.loads((folder / "detections.geojson").read_text())["features"]
        hotspots = json.loads((folder / "hotspots.geojson").read_text())["features"]
        with (folder / "detections.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert run["result"]["candidates"] == len(points) == len(features) == len(rows)
        figures = [row for row in rows if row["label"] == "mitotic figure"]
        assert run["result"]["mitotic_figures"] == len(figures)
        for spot in hotspots:
            (x1, y1), _, (x2, y2), *_ = spot["geometry"]["coordinates"][0]
            inside = [f for f in figures if x1 <= float(f["x_px"]) + 0.51 and float(f["x_px"]) + 0.49 <= x2
                      and y1 <= float(f["y_px"]) + 0.51 and float(f["y_px"]) + 0.49 <= y2]  # fmt: skip
            assert len(inside) == spot["properties"]["measurements"]["count"]
        assert run["slide"]["spacing_source"].startswith("TIFF")
        assert "OpenVINO" in run["runtime"]["detector"]


def test_one_broken_slide_stops_nothing(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.tiff").write_bytes(b"II*\0nonsense")
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(f"path,patient\nbroken.tiff,1\n{slides / 'part0.tiff'},2\n")
    code, err = detect(manifest, "--output", tmp_path / "out")
    assert code == 2
    assert "1 of 2 images failed" in err.splitlines()[-1]
    assert "broken.tiff" in err.splitlines()[-1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["part0"]


def test_resuming_after_a_kill_gives_the_same(slides: Path, tmp_path: Path) -> None:
    """Killed after the first finished slide; the second run skips it, and all equals an undisturbed run."""
    process = start(slides, "--output", tmp_path / "killed")
    while not (tmp_path / "killed/part0/run.json").exists():
        assert process.poll() is None or process.returncode == 0
        time.sleep(0.02)
    process.kill()
    process.communicate()
    kept = (tmp_path / "killed/part0/run.json").stat().st_mtime_ns
    code, err = detect(str(slides / "part*.tiff"), "--output", tmp_path / "killed")
    assert code == 0, err
    assert "skipped" in err
    assert (tmp_path / "killed/part0/run.json").stat().st_mtime_ns == kept
    assert detect(slides, "--output", tmp_path / "whole")[0] == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_other_settings_are_not_skipped(slides: Path, tmp_path: Path) -> None:
    one = slides / "part0.tiff"
    assert detect(one, "--output", tmp_path)[0] == 0
    assert "skipped" in detect(one, "--output", tmp_path)[1]
    assert "skipped" not in detect(one, "--output", tmp_path, "--overwrite")[1]
    assert "skipped" not in detect(one, "--output", tmp_path, "--hotspot-area", 1.0)[1]


def test_a_pattern_without_match(tmp_path: Path) -> None:
    code, err = detect(tmp_path / "*.svs", "--output", tmp_path / "out")
    assert code == 2
    assert "matches no file" in err.splitlines()[-1]


def test_a_part_is_of_the_case(slides: Path) -> None:
    assert np.asarray(tifffile.imread(slides / "part0.tiff")).shape == (1536, 800, 3)
