"""The image as the platform runs it: built by build.sh, checked by test.sh, and run on good and bad input.

    make test-container

ENGINE, BUILDER, BASE_IMAGE, BUILD_ARGS and RUN_ARGS are those of build.sh and test.sh.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from mitosis.labels import read_labels
from mitosis.output.grand_challenge import evaluator_problems, read_points

ENGINE = os.environ.get("ENGINE", "docker")
IMAGE = os.environ.get("IMAGE", "mitosis:container-test")
FOLDER = "images/histopathology-roi-cropout"
RESULT = "mitotic-figures.json"


@pytest.fixture(scope="module")
def image(root: Path) -> str:
    """Build and pass test.sh once."""
    if shutil.which(ENGINE) is None:
        pytest.skip(f"{ENGINE} is not installed")
    for script in ("build.sh", "test.sh"):
        environment = os.environ | {"IMAGE": IMAGE, "SKIP_BUILD": "1"}
        result = subprocess.run([root / script], env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return IMAGE


def run(image: str, folder: Path, *mounts: str) -> subprocess.CompletedProcess[str]:
    """Run the image on FOLDER/in with the platform's restrictions; results go to FOLDER/out."""
    output = folder / "out"
    output.mkdir()
    output.chmod(0o777)
    isolation = ["--network", "none", "--memory", "4g", "--read-only", "--tmpfs", "/tmp"]
    isolation += os.environ.get("RUN_ARGS", "").split()
    volumes = [f"{folder}/in:/input:ro", f"{output}:/output", *mounts]
    command = [ENGINE, "run", "--rm", *isolation, *(part for v in volumes for part in ("-v", v)), image]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def inspect(image: str, template: str) -> str:
    """Ask the engine about an image."""
    command = [ENGINE, "image", "inspect", "--format", template, image]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    return [line for line in result.stderr.splitlines() if line.strip()][-1]


def make_case(folder: Path, rgb: np.ndarray, spacing_um: float) -> Path:
    """Write a challenge case into FOLDER/in; returns the image's path."""
    path = folder / "in" / FOLDER / "region.tiff"
    path.parent.mkdir(parents=True)
    socket = {"interface": {"slug": "histopathology-region-of-interest-cropout", "relative_path": FOLDER}}
    (folder / "in/inputs.json").write_text(json.dumps([socket]))
    per_cm = 1e4 / spacing_um
    resolution = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, rgb, photometric="rgb", tile=(256, 256), **resolution)
    return path


def white() -> np.ndarray:
    return np.full((300, 400, 3), 240, np.uint8)


def test_its_settings(image: str) -> None:
    """Not root, one architecture, and no torch or compiler inside."""
    assert inspect(image, "{{.Architecture}} {{.Config.User}}").split() == ["amd64", "65532:65532"]
    look = (
        "import importlib.util, shutil, sys; sys.exit(bool(importlib.util.find_spec('torch') or shutil.which('gcc')))"
    )
    isolation = ["--network", "none", *os.environ.get("RUN_ARGS", "").split()]
    command = [ENGINE, "run", "--rm", *isolation, "--entrypoint", "/opt/venv/bin/python", image, "-c", look]
    assert subprocess.run(command, check=False).returncode == 0


def test_its_size(image: str, root: Path) -> None:
    """Under 1 GB beside the weights."""
    weights = sum(file.stat().st_size for file in (root / "model").rglob("*"))
    assert int(inspect(image, "{{.Size}}")) - weights < 1e9


@pytest.mark.data
def test_a_real_frame(image: str, data: Path, tmp_path: Path) -> None:
    labelled = max(read_labels(data / "frames.json", "val"), key=lambda i: len(i.mitotic_figures_px))
    rgb = cv2.imread(str(data / "frames" / labelled.file_name))[..., ::-1]
    make_case(tmp_path, rgb, labelled.spacing_um)
    result = run(image, tmp_path)
    assert result.returncode == 0, result.stderr
    points = read_points(tmp_path / "out" / RESULT)
    assert evaluator_problems(points) == []
    assert points.is_mitotic_figure.any()


def test_a_folder_of_images(image: str, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        shutil.move(make_case(tmp_path / name, white(), 0.25), tmp_path / f"{name}.tiff")
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        shutil.move(tmp_path / f"{name}.tiff", tmp_path / "in" / f"{name}.tiff")
    result = run(image, tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(p.parent.name for p in tmp_path.glob(f"out/*/{RESULT}")) == ["a", "b", "c"]


def test_a_broken_image(image: str, tmp_path: Path) -> None:
    make_case(tmp_path, white(), 0.25).write_bytes(b"II*\0nonsense")
    result = run(image, tmp_path)
    assert result.returncode == 2
    assert "region.tiff" in last_line(result)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_platforms_bundle_wins(image: str, root: Path, tmp_path: Path) -> None:
    """A damaged model tarball is refused by name, not replaced by the bundle in the image."""
    make_case(tmp_path, white(), 0.25)
    shutil.copytree(root / "model", tmp_path / "model")
    (tmp_path / "model/classifier.onnx").write_bytes(b"damaged")
    result = run(image, tmp_path, f"{tmp_path}/model:/opt/ml/model:ro")
    assert result.returncode == 4
    assert "/opt/ml/model/classifier.onnx: damaged" in last_line(result)
    assert list((tmp_path / "out").iterdir()) == []
