"""The Dockerfile's stages train and export: both networks trained for seconds, their checkpoints turned into a bundle.

make test-training-image
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from challenge_case import RESULT, make_case
from engine import ENGINE, EXTRA, Result, engine
from entry import run
from tiny_data import write_candidates, write_training_data

from mitosis.bundle import read_bundle
from mitosis.output.grand_challenge import read_points

pytestmark = pytest.mark.timeout(2400)  # gigabytes are installed and committed

IMAGE = "mitosis-train:container-test"
CONTEXT = ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE", "build.sh", "image.sh")
FOLDERS = ("mitosis", "training", "resources", "model")


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the build's context, whose runs/default is ours, with the image of stage train built."""
    if shutil.which(ENGINE) is None:
        pytest.skip(f"{ENGINE} is not installed")
    folder = tmp_path_factory.mktemp("project")
    for file in (*(root / name for name in CONTEXT), *root.glob("requirements*.txt")):
        shutil.copy(file, folder / file.name)
    for name in FOLDERS:
        shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    build(folder, TARGET="train", IMAGE=IMAGE)
    return folder


def build(folder: Path, **settings: str) -> None:
    result = subprocess.run([folder / "build.sh"], env=os.environ | settings, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def train(project: Path, *arguments: str) -> Result:
    """Run a module of the training wing on PROJECT/data and PROJECT/runs, as docs/retraining.md does."""
    volumes = ["-v", f"{project}/data:/data:ro", "-v", f"{project}/runs:/opt/app/runs"]
    options = ["--network", "none", "--user", os.getuid(), *EXTRA, *volumes]
    return engine("run", "--rm", *options, IMAGE, *arguments, timeout_s=600)


def test_it_says_how_to_train(project: Path) -> None:
    result = engine("run", "--rm", "--network", "none", *EXTRA, IMAGE)
    assert result.returncode == 0, result.stderr
    assert "--profile" in result.stdout


def test_checkpoints_become_a_bundle_that_detects(project: Path, root: Path, tmp_path: Path) -> None:
    write_training_data(project / "data")
    (project / "runs/default").mkdir(parents=True)
    common = ["--data", "/data", "--run", "runs/default", "--profile", "cpu", "--workers", "0"]
    result = train(project, "training.train_detector", *common, "--hours", "0.003")
    assert "done:" in result.stdout, result.stderr
    result = train(project, "training.mine_candidates", "--data", "/data", "--run", "runs/default")
    assert "val:" in result.stdout, result.stderr
    write_candidates(project / "runs/default")
    result = train(project, "training.train_classifier", *common, "--hours", "0.003", "--architecture", "convnext_atto")
    assert result.returncode == 0, result.stderr
    build(project, TARGET="export", OUTPUT=str(tmp_path / "model"))
    about = read_bundle(tmp_path / "model").description
    assert (about.detector.architecture, about.classifier.architecture) == ("yolo11n improved", "convnext_atto")
    make_case(tmp_path / "case")
    arguments = ["--input", tmp_path / "case", "--output", tmp_path / "out", "--model", tmp_path / "model"]
    detected = run(root, *arguments)
    assert detected.returncode == 0, detected.stderr
    read_points(tmp_path / "out" / RESULT)  # valid, whatever two untrained networks found
