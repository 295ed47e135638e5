"""What several tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "test"))  # browser.py, whatever the folder of the test that uses it

os.environ.setdefault("YOLO_AUTOINSTALL", "False")
os.environ.setdefault("YOLO_OFFLINE", "True")
os.environ.setdefault("YOLO_CONFIG_DIR", "/tmp/mitosis-yolo")


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real images, or skip."""
    folder = (ROOT / os.environ.get("MITOSIS_DATA", "../shared/data")).resolve()
    if not (folder / "frames.json").exists():
        pytest.skip(f"no real images in {folder}: set MITOSIS_DATA")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the checkout."""
    return ROOT
