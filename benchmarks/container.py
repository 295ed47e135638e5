"""Times the image on a challenge-size case, from `run` to exit, on one core and more.

    python -m benchmarks.container --cores 1 --cores 2

ENGINE, IMAGE and RUN_ARGS are those of test.sh. The case is the drawn one side by side: 7215 x 5412 px, 2.44 mm2.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import tifffile
import typer

from mitosis import __version__

DEFAULT_CORES = [1, 2]
CASE = Path(__file__).parents[1] / "test/input/interf0"
WIDTH_PX, HEIGHT_PX, SPACING_UM = 7215, 5412, 0.25


def draw_case(folder: Path) -> None:
    """Write the case, stored as the platform does: tiled JPEG."""
    shutil.copytree(CASE, folder)
    image = next((folder / "images").rglob("*.tiff"))
    pixels = np.tile(tifffile.imread(image), (4, 4, 1))[:HEIGHT_PX, :WIDTH_PX]
    tags = {"resolution": (1e4 / SPACING_UM,) * 2, "resolutionunit": "CENTIMETER", "compression": "jpeg"}
    tifffile.imwrite(image, pixels, photometric="rgb", tile=(128, 128), compressionargs={"level": 70}, **tags)


def main(
    cores: Annotated[list[int], typer.Option(help="How many cores; once for each number")] = DEFAULT_CORES,
    rounds: Annotated[int, typer.Option(help="Runs for each; the median is printed")] = 3,
) -> None:
    """Print seconds a case."""
    engine, image = os.environ.get("ENGINE", "docker"), os.environ.get("IMAGE", f"mitosis:{__version__}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_case(folder / "in")
        (folder / "out").mkdir()
        (folder / "out").chmod(0o777)
        isolation = ["--network", "none", "--memory", "4g", "--read-only", "--tmpfs", "/tmp"]
        volumes = ["-v", f"{folder}/in:/input:ro", "-v", f"{folder}/out:/output"]
        for count in cores:
            allowed = sorted(os.sched_getaffinity(0))[:count]  # Podman's containers inherit it, Docker's are told
            pinned = ["--cpuset-cpus", ",".join(map(str, allowed))] if engine == "docker" else []
            further = os.environ.get("RUN_ARGS", "").split()
            command = [engine, "run", "--rm", *isolation, *pinned, *further, *volumes, image]
            seconds = []
            for _ in range(rounds):
                started_s = time.perf_counter()
                subprocess.run(
                    command, check=True, capture_output=True, preexec_fn=partial(os.sched_setaffinity, 0, allowed)
                )
                seconds.append(time.perf_counter() - started_s)
            median_s, area_mm2 = statistics.median(seconds), WIDTH_PX * HEIGHT_PX * SPACING_UM**2 / 1e6
            print(f"{count} cores: {median_s:.1f} s (median of {rounds}) for {area_mm2:.2f} mm2, container and all")


if __name__ == "__main__":
    typer.run(main)
