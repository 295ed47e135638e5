"""Many slides: complete folders, one broken slide, resuming, manifests."""

import csv
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
from entry import detect, start_detect

import mitosis.results
from mitosis import detect as detect_slide
from mitosis import load_model, open_slide
from mitosis.detections import centres_px
from mitosis.errors import OutputError, UnexpectedError
from mitosis.inputs import find_slides
from mitosis.results import Options, process_slides

FILES = [
    "detections.csv",
    "detections.geojson",
    "hotspots.geojson",
    "mitotic-figures.json",
    "overlay.png",
    "report.html",
    "run.json",
]


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
    """Return every file, hidden ones too, but those that hold times."""
    without = ("run.json", "summary.csv")
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in without
    }


def summary(output: Path) -> list[dict[str, str]]:
    with (output / "summary.csv").open(newline="") as file:
        return list(csv.DictReader(file))


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
        assert run["slide"]["origin_mm"] == [0.0, 0.0]
        assert "OpenVINO" in run["runtime"]["detector"]
        assert run["result"]["mitotic_count"] == hotspots[0]["properties"]["measurements"]["count"]
        assert sorted(run["files"]) == sorted(set(FILES) - {"run.json"})
        check_seconds(run["seconds"])
        columns = -(-(800 - 512) // 409) + 1
        assert {int(row["tile"]) for row in rows} <= set(range(columns * 4))
        for row in rows:  # the tile that is named holds the centre
            number = int(row["tile"])
            left, top = min(number % columns * 409, 800 - 512), min(number // columns * 409, 1536 - 512)
            assert left <= float(row["x_px"]) <= left + 512
            assert top <= float(row["y_px"]) <= top + 512
    assert [line["status"] for line in summary(tmp_path)] == ["done"] * 3


def check_seconds(seconds: dict[str, float]) -> None:
    """Every step is timed, and one after the other they are the whole."""
    steps = {"opening", "reading", "tissue", "detector", "classifier", "candidates", "hotspots", "writing"}
    assert steps <= seconds.keys()
    assert min(seconds.values()) >= 0
    assert seconds["detector"] > 0
    assert sum(seconds[step] for step in steps) <= seconds["total"] * 1.6  # threads that read ahead count apart
    assert sum(seconds[step] for step in steps) > seconds["total"] * 0.8


def test_one_broken_slide_stops_nothing(slides: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.tiff").write_bytes(b"II*\0nonsense")
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(f"path,patient\nbroken.tiff,1\n{slides / 'part0.tiff'},2\n")
    code, err = detect(manifest, "--output", tmp_path / "out")
    assert code == 2
    assert "1 of 2 images failed" in err.splitlines()[-1]
    assert "broken.tiff" in err.splitlines()[-1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["part0", "summary.csv"]
    failed, done = summary(tmp_path / "out")
    assert (failed["status"], done["status"]) == ("failed", "done")
    assert "broken.tiff" in failed["reason"]
    assert "1 done, 1 failed" in err


def test_any_error_of_a_slide_stops_nothing(
    slides: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library's own exception in the second of three slides."""
    real, seen = mitosis.results.find_tissue, []

    def fails(slide: mitosis.Slide) -> object:
        seen.append(slide.path.name)
        if len(seen) == 2:
            raise KeyError("no such tag")
        return real(slide)

    monkeypatch.setattr(mitosis.results, "find_tissue", fails)
    with pytest.raises(UnexpectedError, match=r"1 of 3 images failed.*unexpected KeyError: 'no such tag'"):
        process_slides(find_slides([slides]), tmp_path, load_model(root / "model"), Options())
    assert [line["status"] for line in summary(tmp_path)] == ["done", "failed", "done"]


def test_resuming_after_kills_gives_the_same(slides: Path, tmp_path: Path) -> None:
    """Killed at the start, in the middle of writing and after a slide; then it equals an undisturbed run."""
    killed = tmp_path / "killed"

    def kill_when(happens: Callable[[], bool]) -> None:
        process = start_detect(slides, "--output", killed)
        while not happens():
            assert process.poll() is None, "it ended before the moment came"
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    kill_when(lambda: True)
    assert not killed.exists()
    kill_when(lambda: (killed / "part0/detections.csv").exists())
    assert not (killed / "part0/run.json").exists()  # half-done, and known to be
    (killed / "part0/.report.html.abcd1234").write_text("half a pa")  # what a kill inside a write leaves
    kill_when(lambda: (killed / "part0/run.json").exists())
    kept = (killed / "part0/run.json").stat().st_mtime_ns
    code, err = detect(str(slides / "part*.tiff"), "--output", killed)
    assert code == 0, err
    assert (killed / "part0/run.json").stat().st_mtime_ns == kept
    assert [line["status"] for line in summary(killed)] == ["skipped", "done", "done"]
    assert detect(slides, "--output", tmp_path / "whole")[0] == 0
    assert content(killed) == content(tmp_path / "whole")
    figures = [[line["mitotic_figures"] for line in summary(folder)] for folder in (killed, tmp_path / "whole")]
    assert figures[0] == figures[1]


def test_the_same_run_json_gives_the_same_files(slides: Path, tmp_path: Path) -> None:
    options = ("--hotspot-area", 0.02, "--hotspot-shape", "circle", "--hotspots", 2, "--parquet", "--asap")
    assert detect(slides / "part1.tiff", "--output", tmp_path / "first", *options)[0] == 0
    record = tmp_path / "first/part1/run.json"
    code, err = detect("--like", record, "--output", tmp_path / "second", "--precision", "auto", "--cache", tmp_path)
    assert code == 0, err
    assert "all 8 files are the same" in " ".join(err.split())
    assert content(tmp_path / "first") == content(tmp_path / "second")
    first, second = (json.loads((tmp_path / name / "part1/run.json").read_text()) for name in ("first", "second"))
    assert first["settings"] == second["settings"]
    assert first["files"] == second["files"]
    code, err = detect("--like", record, "--output", tmp_path / "third", "--hotspots", 1)
    assert code == 2
    assert "--hotspots contradicts --like" in err.splitlines()[-1]
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(slides / "part1.tiff", tmp_path / "moved")
    code, err = detect(moved, "--like", record, "--output", tmp_path / "third", "--cache", tmp_path)
    assert code == 0, err
    assert "all 8 files are the same" in " ".join(err.split())
    first["settings"]["bundle"]["calibration"] = None
    record.write_text(json.dumps(first))
    code, err = detect("--like", record, "--output", tmp_path / "fourth")
    assert code == 4
    assert "is not the bundle" in err.splitlines()[-1]
    assert "differs in calibration" in err.splitlines()[-1]


def test_parquet_and_python_say_what_the_csv_says(slides: Path, root: Path, tmp_path: Path) -> None:
    """The command line's table against the package's ``detect``, and against its typed copy."""
    assert detect(slides / "part2.tiff", "--output", tmp_path, "--hotspot-area", 0.02, "--parquet")[0] == 0
    with (tmp_path / "part2/detections.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    typed = pq.read_table(tmp_path / "part2/detections.parquet")
    assert typed.column_names == list(lines[0])
    assert [str(v) for v in typed["label"].to_pylist()] == [line["label"] for line in lines]
    assert typed["hotspot"].to_pylist() == [int(line["hotspot"]) if line["hotspot"] else None for line in lines]
    assert typed["tile"].to_pylist() == [int(line["tile"]) for line in lines]
    with open_slide(slides / "part2.tiff") as slide:
        rows = detect_slide(slide, load_model(root / "model"))
    for name, values in (("x_px", centres_px(rows)[:, 0]), ("probability", rows["probability"])):
        assert np.allclose(typed[name].to_numpy(), values)
        assert np.allclose([float(line[name]) for line in lines], values, atol=0.006)


def test_other_settings_are_not_skipped(slides: Path, tmp_path: Path) -> None:
    one = slides / "part0.tiff"
    assert detect(one, "--output", tmp_path)[0] == 0
    assert "skipped" in detect(one, "--output", tmp_path)[1]
    assert "skipped" not in detect(one, "--output", tmp_path, "--overwrite")[1]
    assert (tmp_path / "part0/overlay.png").exists()
    assert "skipped" not in detect(one, "--output", tmp_path, "--hotspot-area", 1.0, "--no-overlay")[1]
    assert not (tmp_path / "part0/overlay.png").exists()  # of other settings
    (tmp_path / "part0/detections.csv").unlink()
    assert "skipped" not in detect(one, "--output", tmp_path, "--hotspot-area", 1.0, "--no-overlay")[1]


def test_a_slide_that_is_gone_keeps_its_result(slides: Path, tmp_path: Path) -> None:
    """A drive that is not mounted today must not cost yesterday's folder."""
    one = tmp_path / "one.tiff"
    one.write_bytes((slides / "part0.tiff").read_bytes())
    assert detect(one, "--output", tmp_path / "out")[0] == 0
    before = content(tmp_path / "out")
    one.unlink()
    assert detect(one, "--output", tmp_path / "out")[0] == 2
    assert content(tmp_path / "out") == before
    assert (tmp_path / "out/one/run.json").exists()


def test_a_failed_slide_leaves_no_older_result(slides: Path, tmp_path: Path) -> None:
    """A lone one: neither its folder nor the table may go on telling of the image that it was."""
    one, out = tmp_path / "one.tiff", tmp_path / "out"
    one.write_bytes((slides / "part0.tiff").read_bytes())
    assert detect(one, "--output", out)[0] == 0
    (out / "one/notes.txt").write_text("mine")
    one.write_bytes(b"II*\0nonsense")
    code, err = detect(one, "--output", out)
    assert code == 2, err
    assert [p.name for p in (out / "one").iterdir()] == ["notes.txt"]
    (line,) = summary(out)
    assert (line["slide"], line["status"]) == ("one.tiff", "failed")
    assert "one.tiff" in line["reason"]


def test_names_of_any_kind(slides: Path, tmp_path: Path) -> None:
    """A folder that looks like markup's end, a name that looks like markup, and one in Latin-1."""
    folder = tmp_path / "q[/y]"
    folder.mkdir(parents=True)
    latin = os.fsdecode(b"caf\xe9.tiff")
    for name in ("case[a].tiff", latin):
        (folder / name).write_bytes((slides / "part0.tiff").read_bytes())
    (folder / "broken.tiff").write_bytes(b"II*\0nonsense")
    code, err = detect(folder, "--output", tmp_path / "out")
    assert code == 2, err
    assert "1 of 3 images failed" in err.splitlines()[-1]
    assert "q[/y]/broken.tiff" in err.splitlines()[-1]
    found = {line["slide"]: line["status"] for line in summary(tmp_path / "out")}
    assert found == {"broken.tiff": "failed", "case[a].tiff": "done", "caf\\udce9.tiff": "done"}
    assert "│ case[a].tiff" in err
    assert "caf\\udce9.tiff" in (tmp_path / "out" / Path(latin).stem / "report.html").read_text(encoding="utf-8")
    assert "3 slides" in err


@pytest.mark.parametrize("output", ["file", "file/deeper", "/proc/nope"])
def test_an_unusable_output_is_noticed_at_once(slides: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("in the way")
    code, err = detect(slides / "part0.tiff", "--output", tmp_path / output)
    assert code == 6, err
    assert str(tmp_path / output) in err.splitlines()[-1]
    assert "choose a writable --output" in err.splitlines()[-1]
    assert "1/1" not in err  # the slide was not begun
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_file_in_the_way_of_a_slides_folder(slides: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "part0").write_text("in the way")
    with pytest.raises(OutputError, match="choose a folder that can be written to"):
        process_slides([slides / "part0.tiff"], tmp_path, load_model(root / "model"), Options())
    assert [line["status"] for line in summary(tmp_path)] == ["failed"]


def test_a_pattern_without_match(tmp_path: Path) -> None:
    code, err = detect(tmp_path / "*.svs", "--output", tmp_path / "out")
    assert code == 2
    assert "matches no file" in err.splitlines()[-1]


def test_a_part_is_of_the_case(slides: Path) -> None:
    assert np.asarray(tifffile.imread(slides / "part0.tiff")).shape == (1536, 800, 3)
