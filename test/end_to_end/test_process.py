"""The entry points as processes, on the drawn case and on real frames."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from challenge_case import BAD_CASES, RESULT, last_line, make_case, make_metaimage_case, no_spacing
from entry import run

from mitosis.evaluation import evaluate_image
from mitosis.labels import read_labels
from mitosis.output.grand_challenge import evaluator_problems, read_points


def test_the_drawn_case(root: Path, tmp_path: Path) -> None:
    """Found against planted, same bytes twice, nothing else written, and no torch on the way."""
    for name in ("first", "second"):
        result = run(root, "--input", root / "test/input/interf0", "--output", tmp_path / name)
        assert result.returncode == 0, result.stderr
        assert [p.name for p in (tmp_path / name).iterdir()] == ["mitotic-figures.json"]
    first, second = (tmp_path / n / "mitotic-figures.json" for n in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    points = read_points(first)
    assert evaluator_problems(points) == []
    assert (points.xy_mm >= 0).all()
    assert (points.xy_mm <= np.array([2047, 1535]) * 0.25e-3).all()
    counts = evaluate_image(read_labels(root / "test/planted.json")[0], points)
    assert counts.recall >= 0.5


def test_nobody_is_told(root: Path) -> None:
    """No name is looked up and no address called: OpenVINO would report each start."""
    code = """
import sys, time
called = []
sys.addaudithook(lambda event, _: called.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
import process
process.load_model(process.OWN_MODEL)
time.sleep(1)
sys.exit(str(called) if called else 0)
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_inference_never_imports_torch(root: Path) -> None:
    code = "import sys, process; sys.exit(bool({'torch', 'ultralytics', 'timm'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


@pytest.mark.data
def test_a_real_frame_as_tiff(root: Path, data: Path, tmp_path: Path) -> None:
    """The validation frame with most mitoses: valid output that finds some of them."""
    labelled = max(read_labels(data / "frames.json", "val"), key=lambda i: len(i.mitotic_figures_px))
    rgb = cv2.imread(str(data / "frames" / labelled.file_name))[..., ::-1]
    make_case(tmp_path / "case", "frame.tiff", rgb, labelled.spacing_um)
    result = run(root, "--input", tmp_path / "case", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    points = read_points(tmp_path / "out/mitotic-figures.json")
    assert evaluator_problems(points) == []
    assert (points.xy_mm <= np.array(rgb.shape[1::-1]) * labelled.spacing_um / 1000).all()
    assert evaluate_image(labelled, points).tp >= 1


def test_a_metaimage_case(root: Path, tmp_path: Path) -> None:
    make_metaimage_case(tmp_path / "case")
    result = run(root, "--input", tmp_path / "case", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert len(read_points(tmp_path / "out" / RESULT).xy_mm) == 0  # smaller than a tile, and white


def test_a_folder_without_inputs_json(root: Path, tmp_path: Path) -> None:
    """Every image is handled; a broken one is named at the end and costs no other's result."""
    (tmp_path / "in").mkdir()
    for name in ("one.tiff", "two.tif"):
        shutil.copy(make_case(tmp_path / name), tmp_path / "in" / name)
    (tmp_path / "in/three.png").write_bytes(b"broken")
    (tmp_path / "in/notes.txt").write_text("not an image")
    result = run(root, "--input", tmp_path / "in", "--output", tmp_path / "out")
    assert result.returncode != 0
    assert "1 of 3 images failed" in last_line(result)
    assert "three.png" in last_line(result)
    for stem in ("one", "two"):
        assert (tmp_path / "out" / stem / "mitotic-figures.json").exists()
    assert not (tmp_path / "out/three").exists()


@pytest.mark.parametrize(("spoil", "message"), BAD_CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_bad_cases(root: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    make_case(tmp_path / "case")
    spoil(tmp_path / "case")
    result = run(root, "--input", tmp_path / "case", "--output", tmp_path / "out")
    assert result.returncode not in (0, 70)
    assert message in last_line(result)
    assert "Traceback" not in result.stderr
    assert not list((tmp_path / "out").rglob("*")) if (tmp_path / "out").exists() else True


def test_debug_shows_the_traceback(root: Path, tmp_path: Path) -> None:
    result = run(root, "--input", tmp_path / "none", "--output", tmp_path / "out", "--debug")
    assert "Traceback" in result.stderr
    assert "no such folder" in last_line(result)


def test_a_missing_bundle(root: Path, tmp_path: Path) -> None:
    make_case(tmp_path / "case")
    result = run(root, "--input", tmp_path / "case", "--output", tmp_path / "out", "--model", tmp_path)
    assert result.returncode == 4
    assert "bundle.yaml" in last_line(result)


def test_spacing_from_the_environment(root: Path, tmp_path: Path) -> None:
    make_case(tmp_path / "case")
    no_spacing(tmp_path / "case")
    result = run(root, "--input", tmp_path / "case", "--output", tmp_path / "out", MITOSIS_SPACING_UM="0.25")
    assert result.returncode == 0, result.stderr


def test_input_as_a_symbolic_link(root: Path, tmp_path: Path) -> None:
    make_case(tmp_path / "case")
    (tmp_path / "input").symlink_to(tmp_path / "case")
    result = run(root, "--input", tmp_path / "input", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr


def test_a_damaged_bundle_is_named(root: Path, tmp_path: Path) -> None:
    make_case(tmp_path / "case")
    shutil.copytree(root / "model", tmp_path / "model")
    (tmp_path / "model/detector.onnx").write_bytes(b"damaged")
    result = run(root, "--input", tmp_path / "case", "--output", tmp_path / "out", "--model", tmp_path / "model")
    assert result.returncode == 4
    assert "detector.onnx: damaged" in last_line(result)
