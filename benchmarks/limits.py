"""How near detection is to the machine's arithmetic, and what a T4 and a hospital's day would ask for.

    taskset -c 0,1 python -m benchmarks.limits [REGION] [--large]

Three tables: each network's arithmetic for one tile against the measured peak, with the time by kind of layer; the same
arithmetic on a T4, from published figures that we have not measured; and the machines for a thousand slides a day.
Needs the extra ``train``.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import openvino
import typer
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peak import measure_peaks
from benchmarks.per_area import area_mm2_of, at_work, seconds_of
from benchmarks.regions import SPACING_UM, densest_window, region
from mitosis.cpu import OpenVinoNetwork
from mitosis.network import NetworkFile, prepare_pixels
from mitosis.pipeline import Model, load_model

ROOT = Path(__file__).parents[1]
TILE_PX, OVERLAP = 512, 0.2
TILES_PER_MM2 = 1 / (TILE_PX * (1 - OVERLAP) * SPACING_UM / 1000) ** 2
ARITHMETIC = ("Convolution", "MatMul", "FullyConnected", "GroupConvolution")  # what the peak is about
T4_PEAK = 65.0  # TFLOP/s in fp16 with tensor cores: NVIDIA's data sheet
#: GFLOP and milliseconds of stock YOLO11 at 640 px, TensorRT 10 on a T4, as Ultralytics publishes them.
T4_YOLO = {"n": (6.5, 1.5), "s": (21.5, 2.5), "m": (68.0, 4.7), "l": (86.9, 6.2), "x": (194.9, 11.3)}
DAY_S = 86_400
TISSUE_MM2 = [50.0, 150.0, 300.0]  # a biopsy or two, a small resection, a full section

Tiles = list[NDArray[np.uint8]]  # (1, 512, 512, 3) each


@dataclass(frozen=True)
class Cost:
    """What one tile costs one network."""

    title: str
    scale: str
    precision: str  # in which detection runs it here
    gflop: float
    tile_ms: float  # throughput: with several requests in flight
    arithmetic_share: float  # of the time, in convolutions and matrix products
    slowest: str  # other kinds of layer

    @property
    def t4_ms(self) -> float:
        """One tile on a T4, at the rate that the stock network of this scale reaches there. Not measured by us."""
        gflop, ms = T4_YOLO[self.scale]
        return self.gflop * ms / gflop

    @property
    def t4_s_per_mm2(self) -> float:
        """One look at all of 1 mm2 on a T4, likewise."""
        return self.t4_ms / 1000 * TILES_PER_MM2


@dataclass(frozen=True)
class Whole:
    """What tissue costs a bundle end to end: both stages, all looks, from the file to the written result."""

    seconds_per_mm2: float
    searching: Cost  # its first look

    @classmethod
    def measure(cls, model: Model, path: Path, searching: Cost, rounds: int) -> Whole:
        """Time detection on the region."""
        with TemporaryDirectory() as name:
            seconds = seconds_of(path, model, Path(name), rounds)
        return cls(statistics.median(seconds) / area_mm2_of(path), searching)


def tiles_of(path: Path, count: int) -> Tiles:
    """Return tiles from random places of an image."""
    with Image.open(path) as image:
        rgb = np.asarray(image.convert("RGB"))
    rng = np.random.default_rng(0)
    places = rng.integers((0, 0), (rgb.shape[0] - TILE_PX, rgb.shape[1] - TILE_PX), (count, 2))
    return [rgb[None, y : y + TILE_PX, x : x + TILE_PX].copy() for y, x in places]


def measure(title: str, architecture: str, file: Path, tiles: Tiles, rounds: int, decides: bool = False) -> Cost:
    """Time one detector as detection runs it, and profile it; ``decides`` as in ``NetworkFile``."""
    from training.count_arithmetic import count
    from training.networks.yolo11 import variant_and_scale

    variant, scale = variant_and_scale(architecture)
    _, gflop = count(variant, scale)
    network = OpenVinoNetwork(NetworkFile(file, (1, 3, TILE_PX, TILE_PX), takes_pixels=True, decides=decides))
    precision = network.name.rsplit(" ", 1)[-1]
    seconds = []
    for number in range(rounds + 1):
        started_s = time.perf_counter()
        for _ in network.map((None, tile) for tile in tiles):
            pass
        if number:  # the first warms up
            seconds.append(time.perf_counter() - started_s)
    share, slowest = profile(file, tiles, precision)
    tile_ms = statistics.median(seconds) / len(tiles) * 1000
    return Cost(f"{title}{architecture}", scale, precision, gflop, tile_ms, share, slowest)


def profile(file: Path, tiles: Tiles, precision: str) -> tuple[float, str]:
    """Return the share of time in arithmetic, and the slowest other kinds of layer with theirs."""
    core = openvino.Core()
    model = core.read_model(file)
    model.reshape((1, 3, TILE_PX, TILE_PX))
    hints = {"PERF_COUNT": True, "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    spent: dict[str, float] = {}
    for tile in tiles[:5]:
        request.infer({0: prepare_pixels(tile)})
        for layer in request.get_profiling_info():
            spent[layer.node_type] = spent.get(layer.node_type, 0.0) + layer.real_time.total_seconds()
    total = sum(spent.values())
    others = sorted(((s, kind) for kind, s in spent.items() if kind not in ARITHMETIC and s), reverse=True)[:4]
    return sum(spent.get(kind, 0.0) for kind in ARITHMETIC) / total, ", ".join(
        f"{kind} {s / total:.0%}" for s, kind in others
    )


def default_networks(model: Model, path: Path, tiles: Tiles, rounds: int) -> tuple[list[Cost], list[Whole]]:
    """Measure a bundle's detectors, and the whole."""
    bundle, about = model.bundle, model.bundle.description
    costs = [measure("default: ", about.detector.architecture, bundle.detector_file, tiles, rounds)]
    if about.second_look and bundle.second_look_file:
        file, architecture = bundle.second_look_file, about.second_look.architecture
        costs.append(measure("its further looks: ", architecture, file, tiles, rounds, decides=True))
    return costs, [Whole.measure(model, path, costs[0], rounds)]


def large_networks(path: Path, folder: Path, tiles: Tiles, rounds: int) -> tuple[list[Cost], list[Whole]]:
    """Measure YOLO11x, stock and improved, with random weights."""
    from benchmarks.random_bundle import random_bundle

    rgb, costs, wholes = densest_window(path), [], []
    for variant in ("stock", "improved"):
        (folder / variant).mkdir()
        model = at_work(random_bundle(folder / variant, variant, "x", "convnext_tiny", rgb), path)
        bundle = model.bundle
        costs.append(measure("", bundle.description.detector.architecture, bundle.detector_file, tiles, rounds))
        wholes.append(Whole.measure(model, path, costs[-1], rounds))
    return costs, wholes


def print_costs(costs: list[Cost], peaks: dict[str, float]) -> None:
    """Print the first table: how near each network is to the peak."""
    print(", ".join(f"{name} {rate:.2f} TFLOP/s" for name, rate in peaks.items()) + " at most\n")
    print("| network | precision | GFLOP a tile | ms at its peak | ms measured | of the peak | "
          "time in convolutions | the rest, mostly |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for cost in costs:
        ideal_ms = cost.gflop / peaks[cost.precision]
        cells = [cost.title, cost.precision, f"{cost.gflop:.1f}", f"{ideal_ms:.1f}", f"{cost.tile_ms:.1f}"]
        cells += [f"{ideal_ms / cost.tile_ms:.0%}", f"{cost.arithmetic_share:.0%}", cost.slowest]
        print("| " + " | ".join(cells) + " |")


def print_t4(costs: list[Cost]) -> None:
    """Print the second table, which is arithmetic on published figures."""
    print(f"\n| network | ms a tile at {T4_PEAK:.0f} TFLOP/s | at the rate of stock YOLO11 there | s/mm2 at that |")
    print("|---|---|---|---|")
    for cost in costs:
        cells = [cost.title, f"{cost.gflop / T4_PEAK:.2f}", f"{cost.t4_ms:.2f}"]
        print("| " + " | ".join([*cells, f"{cost.t4_s_per_mm2:.2f}"]) + " |")


def print_day(wholes: list[Whole], slides: int, tissue_mm2: list[float]) -> None:
    """Print the third table: machines for a day's slides, without peaks and pauses."""
    print(f"\n| network | s/mm2, two cores | tissue a slide, mm2 | cores for {slides} slides a day | T4s |")
    print("|---|---|---|---|---|")
    for whole in wholes:
        cpu_s, gpu_s = whole.seconds_per_mm2, whole.searching.t4_s_per_mm2
        for area in tissue_mm2:
            cores, cards = math.ceil(2 * slides * area * cpu_s / DAY_S), slides * area * gpu_s / DAY_S
            print(f"| {whole.searching.title} | {cpu_s:.2f} | {area:.0f} | {cores} | {cards:.1f} |")


def main(
    image: Annotated[Path | None, typer.Argument(help="A JPEG or PNG region; default: a drawn one")] = None,
    model: Annotated[Path, typer.Option(help="The bundle")] = ROOT / "model",
    large: Annotated[bool, typer.Option("--large", help="YOLO11x, stock and improved, too")] = False,
    tiles: Annotated[int, typer.Option(help="Tiles in a round")] = 40,
    rounds: Annotated[int, typer.Option(help="Rounds; the median is printed")] = 3,
    slides: Annotated[int, typer.Option(help="Slides a day")] = 1000,
    tissue_mm2: Annotated[list[float], typer.Option(help="Tissue on a slide")] = TISSUE_MM2,
) -> None:
    """Print the tables of docs/limits.md."""
    with TemporaryDirectory() as name:
        path, default = region(image, Path(name)), load_model(model)
        drawn = tiles_of(path, tiles)
        costs, wholes = default_networks(default, path, drawn, rounds)
        if large:
            more = large_networks(path, Path(name), drawn, rounds)
            costs, wholes = costs + more[0], wholes + more[1]
        print_costs(costs, measure_peaks(2.0))
    print_t4(costs)
    print_day(wholes, slides, tissue_mm2)


if __name__ == "__main__":
    typer.run(main)
