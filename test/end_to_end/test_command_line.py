"""``mitosis detect`` and ``mitosis evaluate`` as a user types them, on real frames where there are some."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mitosis.labels import read_labels


def mitosis(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mitosis.cli", *map(str, arguments)]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)


def test_help_teaches() -> None:
    for command in ("detect", "evaluate"):
        text = mitosis(command, "--help").stdout
        assert f"mitosis {command}" in text
        assert "Example" in text


def test_an_image_of_one_pixel(tmp_path: Path) -> None:
    Image.fromarray(np.full((1, 1, 3), 200, np.uint8)).save(tmp_path / "a.png")
    result = mitosis("detect", tmp_path / "a.png", "--output", tmp_path / "out", "--spacing", 0.25)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out/a/overlay.png").exists()


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    result = mitosis("detect", tmp_path / "a.png", tmp_path / "a.tif", "--output", tmp_path / "out")
    assert result.returncode == 2
    assert "overwrite" in result.stderr.splitlines()[-1]


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    result = mitosis("detect", tmp_path / "a.png", "--output", tmp_path / "out", "--device", "tensorrt")
    assert result.returncode == 5
    assert "--device" in result.stderr.splitlines()[-1]


@pytest.mark.data
def test_detect_then_evaluate(data: Path, tmp_path: Path) -> None:
    images = [image for image in read_labels(data / "frames.json", "test") if image.case == "H10"][:3]
    paths = [data / "frames" / image.file_name for image in images]
    result = mitosis("detect", *paths, "--output", tmp_path, "--spacing", images[0].spacing_um)
    assert result.returncode == 0, result.stderr
    result = mitosis("evaluate", "--predictions", tmp_path, "--labels", data / "frames.json", "--split", "test")
    assert result.returncode == 2  # not all images were detected on, and that may not pass silently
    assert "have no mitotic-figures.json" in result.stderr.splitlines()[-1]
