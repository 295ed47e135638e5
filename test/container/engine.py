"""Runs the image as the platform does. ENGINE, IMAGE, BUILD_ARGS and RUN_ARGS are those of build.sh and test.sh."""

import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ENGINE = os.environ.get("ENGINE", "docker")
PYTHON = "/opt/venv/bin/python"
DIST = str(Path(__file__).parents[2] / "build/container-test")  # the user's own exports stay as they are
EXTRA = os.environ.get("RUN_ARGS", "").split()
ISOLATION = ["--network", "none", "--memory", "4g", "--read-only", "--tmpfs", "/tmp", *EXTRA]

Result = subprocess.CompletedProcess[str]


def engine(*arguments: object, timeout_s: float = 900) -> Result:
    """Call the engine."""
    command = [ENGINE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def inspect(image: str, template: str) -> str:
    """Ask the engine about an image."""
    result = engine("image", "inspect", "--format", template, image)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def mounts(folder: Path, *further: str) -> list[str]:
    """Mount FOLDER/in, read-only, and FOLDER/out, which the image's user may write."""
    output = folder / "out"
    output.mkdir()
    output.chmod(0o777)
    volumes = [f"{folder}/in:/input:ro", f"{output}:/output", *further]
    return [part for volume in volumes for part in ("-v", volume)]


def run(image: str, folder: Path, *options: str, volumes: tuple[str, ...] = ()) -> Result:
    """Run the image on FOLDER/in with the platform's restrictions; results go to FOLDER/out."""
    return engine("run", "--rm", *ISOLATION, *options, *mounts(folder, *volumes), image)


@contextmanager
def running(image: str, folder: Path, options: Sequence[str] = ()) -> Iterator[str]:
    """Start the image in the background; gives the container's name, and removes it afterwards."""
    name = f"mitosis-test-{uuid.uuid4().hex[:8]}"
    started = engine("run", "-d", "--name", name, *ISOLATION, *options, *mounts(folder), image)
    assert started.returncode == 0, started.stderr
    try:
        yield name
    finally:
        engine("rm", "-f", name)
