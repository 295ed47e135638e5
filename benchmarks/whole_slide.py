"""Measures whole slides: peak memory, and tiles a second end to end against the networks alone on the same tiles.

    python -m benchmarks.whole_slide --slide 20000:0.45 --slide 60000:0.05       side in px : share of tissue
    python -m benchmarks.whole_slide --slide 20000:0.05 --slide 20000:0.25 --slide 20000:0.75

Each slide is drawn (draw_slide.py), then processed in a process of its own as `mitosis detect` would. Memory is that
process's peak. The networks alone run on tiles that were read before, in turns with the whole; medians are printed.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.draw_slide import LEVELS, SPACING_UM, write_slide
from benchmarks.memory import peak_mb
from mitosis.detector import read_candidates
from mitosis.pipeline import Model, detect, load_model, read_haloed, tiles_to_read
from mitosis.results import Options, process_slide
from mitosis.slide import Slide, open_slide
from mitosis.tiling import Tile
from mitosis.tissue import find_tissue
from mitosis.views import HaloedTile, look_again

ROOT = Path(__file__).parents[1]
COLUMNS = (
    "side px", "mm2", "tissue", "tiles", "candidates", "peak MB", "mask s", "detect s", "tiles/s",
    "stage 1 alone, tiles/s", "of stage 1 alone", "of both alone", "all s", "s/mm2 of tissue",
)  # fmt: skip
SAMPLE = 150  # tiles that are kept in memory, for the networks alone


@dataclass(frozen=True)
class Cost:
    """What one slide cost. Times are seconds, medians over the rounds."""

    tiles: int
    candidates: int
    peak_mb: float
    process_s: float  # all of it, results written, models loaded before
    mask_s: float
    detect_s: float
    detector_s: float  # stage 1 alone, as many looks at tiles
    networks_s: float  # both stages alone


class Alone:
    """All networks on tiles and crops that lie ready in memory."""

    def __init__(self, slide: Slide, model: Model, tiles: list[Tile]) -> None:
        """Count the looks and the crops that the slide's tiles need, and keep up to ``SAMPLE`` of them to repeat."""
        self.model, config = model, model.config
        self.pixels: list[NDArray[np.uint8]] = []
        every = math.ceil(len(tiles) / SAMPLE)

        def read() -> Iterator[tuple[HaloedTile, NDArray[np.uint8]]]:
            for i, tile in enumerate(tiles):
                shown = HaloedTile(tile, read_haloed(slide, tile, 1.0))
                if i % every == 0:
                    self.pixels.append(shown.batch.copy())
                yield shown, shown.batch

        again, found = 0, 0
        for (tile, *_), raw in look_again(
            model.looking_again, model.detector.map(read()), config.views, config.detector_confidence, model.repeating
        ):
            again += 1
            found += len(read_candidates(raw, tile, config.detector_confidence, config.nms_iou))
        self.looks = [(model.detector, len(tiles)), (model.looking_again, again * (config.views - 1))]
        if model.repeating:
            self.looks.append((model.repeating, again))
        self.batches = math.ceil(found / config.classifier_batch)
        side = model.bundle.description.classifier.input_px
        self.crops = np.zeros((config.classifier_batch, 3, side, side), np.float32)

    def seconds(self) -> tuple[float, float]:
        """Return the times of stage 1 and of stage 2 for as much as the slide holds."""
        started = time.perf_counter()
        for network, looks in self.looks:
            for _ in network.map((i, self.pixels[i % len(self.pixels)]) for i in range(looks)):
                pass
        between = time.perf_counter()
        for _ in self.model.classifier.map((i, self.crops) for i in range(self.batches)):
            pass
        return between - started, time.perf_counter() - between


def measure(path: Path, bundle: Path, rounds: int) -> Cost:
    """Process one slide as a user would, then time its parts. Runs in a process of its own."""
    model = load_model(bundle)
    candidates, first_s = process(path, model)
    peak = peak_mb()
    with open_slide(path) as slide:
        tiles = tiles_to_read(slide, model, find_tissue(slide))
        alone = Alone(slide, model, tiles)
    times = []
    for number in range(rounds):
        process_s = process(path, model)[1] if number else first_s
        stage_1, stage_2 = alone.seconds()
        with open_slide(path) as slide:
            started = time.perf_counter()
            tissue = find_tissue(slide)
            masked = time.perf_counter()
            detect(slide, model, tissue=tissue)
            times.append((process_s, masked - started, time.perf_counter() - masked, stage_1, stage_1 + stage_2))
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return Cost(len(tiles), candidates, peak, *medians)


def process(path: Path, model: Model) -> tuple[int, float]:
    """Write one slide's results, and return how many candidates it has and the seconds that took."""
    with tempfile.TemporaryDirectory() as folder:
        summary = process_slide(path, Path(folder), model, Options())
    return (summary.result or {})["candidates"], summary.seconds


def line(side: int, share: float, cost: Cost) -> str:
    """Return one line of the table."""
    whole, stage_1, both = (cost.tiles / s for s in (cost.detect_s, cost.detector_s, cost.networks_s))
    area = (side * SPACING_UM / 1000) ** 2
    return row(
        side, f"{area:.0f}", f"{share:.0%}", cost.tiles, cost.candidates, f"{cost.peak_mb:.0f}", f"{cost.mask_s:.2f}",
        f"{cost.detect_s:.1f}", f"{whole:.1f}", f"{stage_1:.1f}", f"{whole / stage_1:.0%}", f"{whole / both:.0%}",
        f"{cost.process_s:.1f}", f"{cost.process_s / (area * share):.2f}",
    )  # fmt: skip


def row(*cells: object) -> str:
    """Lay out a line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def main(
    slide: Annotated[list[str], typer.Option(help="Side in px : share of tissue")],
    model: Annotated[Path, typer.Option(help="Model bundle")] = ROOT / "model",
    rounds: Annotated[int, typer.Option(help="Repetitions; medians are printed")] = 3,
    pyramid: Annotated[bool, typer.Option(help="Write the coarser levels too")] = True,
    folder: Annotated[Path | None, typer.Option(help="Where the drawn slides go; they are removed again")] = None,
) -> None:
    """Print a table with a line for each slide."""
    print(row(*COLUMNS), row(*["---"] * len(COLUMNS)), sep="\n")
    spawn = multiprocessing.get_context("spawn")
    for side, share in ((int(a), float(b)) for a, b in (one.split(":") for one in slide)):
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place) / "slide.tiff"
            write_slide(path, side, share, LEVELS if pyramid else LEVELS[:1])
            with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                print(line(side, share, pool.submit(measure, path, model, rounds).result()), flush=True)


if __name__ == "__main__":
    typer.run(main)
