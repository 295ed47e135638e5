"""The image, built by build.sh and passed by test.sh once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from engine import DIST, ENGINE


@pytest.fixture(scope="session")
def image(root: Path) -> str:
    """Return the image's name."""
    if shutil.which(ENGINE) is None:
        pytest.skip(f"{ENGINE} is not installed")
    name = os.environ.get("IMAGE", "mitosis:container-test")
    for script in ("build.sh", "test.sh"):
        environment = os.environ | {"IMAGE": name, "SKIP_BUILD": "1", "DIST": DIST}
        result = subprocess.run([root / script], env=environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return name
