"""Reads every pixel of an image as SimpleITK does (whole) and as we do (in tiles): seconds and peak memory.

    taskset -c 0,1 python -m benchmarks.reading [REGION]

The region is written as a JPEG-compressed, tiled TIFF, as it is and repeated to four times its area; each reader runs
in a process of its own. Up to 64 megapixels we decode an image once and keep it, beyond that we read windows.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import tifffile
import typer
from PIL import Image

from benchmarks.memory import peak_mb
from benchmarks.regions import SPACING_UM, region

ROOT = Path(__file__).parents[1]
TILE_PX, OVERLAP = 512, 0.2


def read_with_simpleitk(path: Path) -> tuple[float, float]:
    """Read the whole image into an array, as the challenge's templates do; seconds, the process's peak in MB."""
    import SimpleITK as sitk

    started_s = time.perf_counter()
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    seconds = time.perf_counter() - started_s
    if pixels.ndim != 3:
        raise SystemExit(f"{path}: SimpleITK read an array of shape {pixels.shape}")
    return seconds, peak_mb()


def read_with_ours(path: Path) -> tuple[float, float]:
    """Read all tiles that detection would read, overlap included; seconds, the process's peak in MB."""
    from mitosis.slide import open_slide
    from mitosis.tiling import tiles

    started_s = time.perf_counter()
    with open_slide(path, SPACING_UM) as slide:
        for tile in tiles(slide.width_px, slide.height_px, TILE_PX, OVERLAP):
            slide.read(tile.x_px, tile.y_px, tile.side_px, tile.side_px)
    return time.perf_counter() - started_s, peak_mb()


READERS = {"SimpleITK, whole": read_with_simpleitk, "ours, tile by tile": read_with_ours}


def write_tiff(source: Path, target: Path, repeats: int) -> None:
    """Write the image, repeated along both axes, as a tiled TIFF."""
    with Image.open(source) as image:
        pixels = np.tile(np.asarray(image.convert("RGB")), (repeats, repeats, 1))
    resolution = (1e4 / SPACING_UM,) * 2
    tifffile.imwrite(
        target, pixels, photometric="rgb", tile=(256, 256), compression="jpeg", compressionargs={"level": 88},
        resolution=resolution, resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip


def run_once(reader: str, path: Path) -> tuple[float, float]:
    """Run one reader in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.reading", str(path), "--reader", reader]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{reader} failed on {path.name}:\n{done.stderr[-2000:]}")
    seconds, mb = json.loads(done.stdout.splitlines()[-1])
    return seconds, mb


def main(
    image: Annotated[Path | None, typer.Argument(help="A JPEG or PNG region; default: a drawn one")] = None,
    rounds: Annotated[int, typer.Option(help="Times each reader runs; medians are printed")] = 3,
    reader: Annotated[str, typer.Option(help="Run this one here, once (used by the driver)")] = "",
) -> None:
    """Print the table of benchmarks/README.md."""
    if reader and image:
        print(json.dumps(READERS[reader](image)))
        return
    print("| image | reader | s | times ours | peak memory, MB |\n|---|---|---|---|---|")
    with TemporaryDirectory() as name:
        folder = Path(name)
        source = region(image, folder)
        for repeats in (1, 2):
            path = folder / f"times-{repeats * repeats}.tiff"
            write_tiff(source, path, repeats)
            with tifffile.TiffFile(path) as file:
                height, width = file.pages[0].shape[:2]
            runs = {title: [] for title in READERS}  # type: dict[str, list[tuple[float, float]]]
            for _ in range(rounds):
                for title in READERS:
                    runs[title].append(run_once(title, path))
            medians = {title: [statistics.median(column) for column in zip(*got)] for title, got in runs.items()}  # noqa: B905
            base = medians["ours, tile by tile"][0]
            for title, (seconds, mb) in medians.items():
                print(f"| {width} x {height} px | {title} | {seconds:.2f} | {seconds / base:.2f} | {mb:.0f} |")


if __name__ == "__main__":
    typer.run(main)
