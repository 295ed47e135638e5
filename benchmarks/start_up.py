"""Measures the time from the start of a process to its first finished tile, without and with kept compiled networks.

    python -m benchmarks.start_up [--model DIR] [--image IMAGE]

Each start is a process of its own that imports what `mitosis detect` imports.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]
CASE = ROOT / "test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff"
FIRST_TILE = """
import json, sys, time
started = float(sys.argv[1])
from pathlib import Path
import mitosis.cli
from mitosis.cpu import CpuUse
from mitosis.pipeline import candidates, load_model
from mitosis.slide import open_slide
imported = time.time()
model = load_model(Path(sys.argv[2]), use=CpuUse(cache=Path(sys.argv[4]) if sys.argv[4] else None))
loaded = time.time()
with open_slide(Path(sys.argv[3])) as slide:
    next(candidates(slide, model))
    done = time.time()
heavy = [name for name in ("torch", "ultralytics", "timm", "scipy", "matplotlib") if name in sys.modules]
print(json.dumps([imported - started, loaded - imported, done - loaded, done - started, heavy]))
"""


def start(model: Path, image: Path, cache: str) -> tuple[list[float], list[str]]:
    """Return the seconds of one start (imports, models, first tile, all), and which heavy packages were imported."""
    command = [sys.executable, "-c", FIRST_TILE, str(time.time()), str(model), str(image), cache]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    *seconds, heavy = json.loads(result.stdout)
    return seconds, heavy


def main(
    model: Annotated[Path, typer.Option(help="Model bundle")] = ROOT / "model",
    image: Annotated[Path, typer.Option(help="Image with a stated spacing")] = CASE,
    rounds: Annotated[int, typer.Option(help="Starts; medians are printed")] = 5,
) -> None:
    """Print a table."""
    print("| compiled networks | imports s | models s | first tile s | all s |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        start(model, image, folder)  # fills the cache, and the system's cache of files
        for name, cache in (("made anew", ""), ("kept (--cache)", folder)):
            starts = [start(model, image, cache) for _ in range(rounds)]
            medians = [statistics.median(column) for column in zip(*(seconds for seconds, _ in starts), strict=True)]
            print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in medians) + " |")
    print(f"imported of torch, ultralytics, timm, scipy, matplotlib: {', '.join(starts[0][1]) or 'none'}")


if __name__ == "__main__":
    typer.run(main)
