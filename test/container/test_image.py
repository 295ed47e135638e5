"""The image itself: its settings and size, what it finds, and what export.sh saves of it.

make test-container
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import cv2
import pytest
from challenge_case import RESULT, make_case
from engine import DIST, ENGINE, EXTRA, PYTHON, engine, inspect, run

from mitosis.bundle import read_bundle
from mitosis.labels import read_labels
from mitosis.output.grand_challenge import evaluator_problems, read_points

pytestmark = pytest.mark.timeout(2400)  # the first test builds the image

LOOK = """
import importlib.util, shutil, sys
sys.exit(any(map(importlib.util.find_spec, ("torch", "pip", "openvino_telemetry"))) or shutil.which("gcc"))
"""


def test_its_settings(image: str) -> None:
    """Not root, one architecture, and no torch, pip or compiler inside."""
    assert inspect(image, "{{.Architecture}} {{.Config.User}}").split() == ["amd64", "65532:65532"]
    assert engine("run", "--rm", "--network", "none", *EXTRA, "--entrypoint", PYTHON, image, "-c", LOOK).returncode == 0


def test_its_size(image: str, root: Path) -> None:
    """Under 1 GB beside the weights."""
    weights = sum(file.stat().st_size for file in (root / "model").rglob("*"))
    assert int(inspect(image, "{{.Size}}")) - weights < 1e9


@pytest.mark.data
def test_a_real_frame(image: str, data: Path, tmp_path: Path) -> None:
    labelled = max(read_labels(data / "frames.json", "val"), key=lambda i: len(i.mitotic_figures_px))
    rgb = cv2.imread(str(data / "frames" / labelled.file_name))[..., ::-1]
    make_case(tmp_path / "in", "frame.tiff", rgb, labelled.spacing_um)
    result = run(image, tmp_path)
    assert result.returncode == 0, result.stderr
    points = read_points(tmp_path / "out" / RESULT)
    assert evaluator_problems(points) == []
    assert points.is_mitotic_figure.any()


def test_a_folder_of_images(image: str, root: Path, tmp_path: Path) -> None:
    """Every image gets its folder, whose run.json says what really ran."""
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        shutil.move(make_case(tmp_path / name), tmp_path / "in" / f"{name}.tiff")
    result = run(image, tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(p.parent.name for p in tmp_path.glob(f"out/*/{RESULT}")) == ["a", "b", "c"]
    done = json.loads((tmp_path / "out/a/run.json").read_text())
    assert re.match(r"OpenVINO \S+ CPU (bf16|f32|f16)$", done["runtime"]["detector"])
    assert done["settings"]["bundle"]["version"] == read_bundle(root / "model").description.version
    assert done["commit"] == inspect(image, '{{index .Config.Labels "org.opencontainers.image.revision"}}')


@pytest.mark.slow
def test_what_is_exported_can_be_loaded_and_run(image: str, root: Path, tmp_path: Path) -> None:
    """export.sh's checksums hold; one image is in the archive; loaded into an empty engine, it finds the same."""
    result = subprocess.run(
        [root / "export.sh"], env=os.environ | {"IMAGE": image, "DIST": DIST}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    lines = [re.match(r"(\S+)  \d+ MB  sha256 ([0-9a-f]{64})$", line) for line in result.stdout.splitlines()]
    archive, model = [root / line[1] for line in lines if line]
    for line in lines:
        with (root / line[1]).open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == line[2]
    with tarfile.open(archive) as tar:
        (only,) = json.load(tar.extractfile("manifest.json"))
        assert json.load(tar.extractfile(only["Config"]))["config"]["User"] == "65532:65532"
    with tarfile.open(model) as tar:
        tar.extractall(tmp_path / "model", filter="data")
    assert read_bundle(tmp_path / "model").description == read_bundle(root / "model").description
    runroot = Path(tempfile.mkdtemp(prefix="run-"))  # Podman refuses one of more than 50 characters
    elsewhere = ["--root", tmp_path / "images", "--runroot", runroot] if ENGINE == "podman" else []
    try:
        with gzip.open(archive) as packed, (tmp_path / "image.tar").open("wb") as tar:
            shutil.copyfileobj(packed, tar)  # Podman 4.3 cannot load what is compressed
        loaded = engine(*elsewhere, "load", "-i", tmp_path / "image.tar")
        assert loaded.returncode == 0, loaded.stderr
        name = loaded.stdout.strip().rsplit(" ", 1)[-1]
        (tmp_path / "out").mkdir()
        (tmp_path / "out").chmod(0o777)
        volumes = ["-v", f"{root}/test/input/interf0:/input:ro", "-v", f"{tmp_path}/out:/output"]
        again = engine(*elsewhere, "run", "--rm", "--network", "none", "--tmpfs", "/tmp", *EXTRA, *volumes, name)
        assert again.returncode == 0, again.stderr
        found, expected = tmp_path / "out" / RESULT, root / "test/expected" / RESULT
        check = [sys.executable, root / "test/check_output.py", found, expected]
        assert subprocess.run(check, check=False).returncode == 0
    finally:
        if elsewhere:
            engine(*elsewhere, "rmi", "-af")
            shutil.rmtree(tmp_path / "images", ignore_errors=True)
        shutil.rmtree(runroot, ignore_errors=True)
        (tmp_path / "image.tar").unlink(missing_ok=True)
        archive.unlink()
