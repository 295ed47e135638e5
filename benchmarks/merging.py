"""Measures the merge of detections across tiles as their number grows.

    python -m benchmarks.merging --count 125000 --count 250000 --count 500000 --count 1000000

The boxes lie as tiles report them: nearly half of the objects are seen by two tiles or more, a few pixels apart, and
some are cut by a tile's edge. Density is that of a million candidates on 250 mm2. The processor's own time tells what a
busy machine would do alone.
"""

from __future__ import annotations

import statistics
import time
from typing import Annotated

import numpy as np
import typer

from mitosis.detections import Detections, empty_detections
from mitosis.merging import merge

PX2_PER_BOX = 4000.0  # 250 mm2 of 0.25 um pixels over a million
SEEN_TWICE = 0.45
TILE_PX = 410  # candidates come tile by tile


def random_candidates(count: int, seed: int = 0) -> Detections:
    """Draw candidates as the tiles report them."""
    rng = np.random.default_rng(seed)
    objects = int(count / (1 + SEEN_TWICE))
    which = np.concatenate([np.arange(objects), rng.integers(0, objects, count - objects)])
    centre = rng.uniform(0, (count * PX2_PER_BOX) ** 0.5, (2, objects))[:, which] + rng.normal(0, 2, (2, count))
    half = rng.uniform(10, 32, (2, objects))[:, which] * rng.uniform(0.9, 1.1, (2, count))
    rows = empty_detections(count)
    (rows["x1"], rows["y1"]), (rows["x2"], rows["y2"]) = centre - half, centre + half
    rows["detector_score"], rows["classifier_score"] = rng.uniform(size=(2, count))
    rows["probability"] = rows["classifier_score"]
    rows["cut"] = rng.uniform(size=count) < 0.05
    return rows[np.lexsort((centre[0] // TILE_PX, centre[1] // TILE_PX))]


def main(
    count: Annotated[list[int] | None, typer.Option(help="Candidates")] = None,
    rounds: Annotated[int, typer.Option(help="Repetitions; the median is printed")] = 3,
) -> None:
    """Print a table."""
    print("| candidates | merged | s | processor s | processor us a candidate |\n|---|---|---|---|---|")
    for number in count or [125_000, 250_000, 500_000, 1_000_000]:
        rows, times, processor = random_candidates(number), [], []
        for _ in range(rounds):
            started, began = time.perf_counter(), time.process_time()
            kept = merge(rows, 0.5)
            times.append(time.perf_counter() - started)
            processor.append(time.process_time() - began)
        seconds, used = statistics.median(times), statistics.median(processor)
        print(f"| {number} | {len(kept)} | {seconds:.2f} | {used:.2f} | {used / number * 1e6:.2f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
