"""``pip install .`` gives a program that runs without the checkout."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

NEEDED = ("pyproject.toml", "setup.py", "MANIFEST.in", "requirements.txt", "README.md", "LICENSE")


@pytest.mark.slow
def test_an_installed_copy_detects(root: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in NEEDED:  # a copy, because a build leaves folders behind
        shutil.copy(root / name, source)
    for name in ("mitosis", "resources", "model"):
        shutil.copytree(root / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--target", target, source], check=True, timeout=300)
    shutil.rmtree(source)
    environment = {k: v for k, v in os.environ.items() if k != "MITOSIS_RESOURCES"} | {"PYTHONPATH": str(target)}
    case = root / "test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff"

    def run(*command: object) -> str:
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run(sys.executable, "-c", "import mitosis; print(mitosis.__file__)").startswith(str(target))
    run(target / "bin/mitosis", "detect", case, "--output", tmp_path / "out")
    assert (tmp_path / f"out/{case.stem}/run.json").exists()
    assert (target / "mitosis/resources/config.yaml").exists()


def test_every_package_that_the_image_installs_is_pinned(root: Path) -> None:
    """What the pinned packages need in turn, too; as installed here, where those of the image are."""
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (root / "requirements.txt").read_text(), re.MULTILINE))
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    needed = {
        canonicalize_name(need.name)
        for name in pinned
        for need in map(Requirement, requires(name) or [])
        if need.marker is None or need.marker.evaluate({"extra": ""})
    }
    assert needed <= pinned.keys()
    assert {name: version(name) for name in pinned} == pinned
