"""Measures one image end to end: start-up, seconds, peak memory, in a fresh process.

python -m benchmarks.one_image IMAGE [--spacing UM] [--model DIR] [--precision bf16]
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.memory import peak_mb

STARTED_S = time.perf_counter()


def main(
    image: Path,
    spacing: Annotated[float | None, typer.Option(help="Micrometres per pixel where the file does not say")] = None,
    model: Annotated[Path, typer.Option(help="Model bundle")] = Path(__file__).parents[1] / "model",
    precision: Annotated[str, typer.Option(help="Of `mitosis detect`: auto, f32 or bf16")] = "auto",
    rounds: Annotated[int, typer.Option(help="Detections; the median is printed")] = 3,
) -> None:
    """Print what loading and detecting cost."""
    from mitosis.cpu import CpuUse, Precision
    from mitosis.pipeline import detect, load_model
    from mitosis.slide import open_slide

    imported_s = time.perf_counter()
    loaded = load_model(model, use=CpuUse(Precision(precision)))
    loaded_s = time.perf_counter()
    seconds = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        with open_slide(image, spacing) as slide:
            rows = detect(slide, loaded)
            area_mm2 = slide.width_px * slide.height_px * slide.spacing.x_um * slide.spacing.y_um / 1e6
            size = f"{slide.width_px} x {slide.height_px} px"
        seconds.append(time.perf_counter() - started_s)
        del slide  # or its pixels would be there beside the next round's
    median_s = statistics.median(seconds)
    print(f"{image.name}: {size}, {area_mm2:.2f} mm2, {len(rows)} candidates, {loaded.runtime}")
    print(f"imports {imported_s - STARTED_S:.1f} s, models {loaded_s - imported_s:.1f} s")
    speed = f"{median_s:.1f} s (median of {rounds}), {median_s / area_mm2:.2f} s/mm2"
    print(f"detection {speed}, peak memory {peak_mb():.0f} MB")


if __name__ == "__main__":
    typer.run(main)
