"""Times the stock against the improved YOLO11 on one 512 x 512 px tile: every runtime and precision, in one run.

    python benchmarks/compare_networks.py --scales n,s,x

Weights are random: time does not depend on them. Both networks of a scale take turns, and medians and their ratio are
printed. OpenVINO runs as in ``mitosis/runtime.py``, its requests kept full; ONNX Runtime one tile at a time.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import openvino
import torch
import typer
from numpy.typing import NDArray

from training.export import RawCandidates, export_onnx, store_half
from training.mine_candidates import TILE_PX
from training.networks.yolo11 import MitosisDetector, Scale, Variant

Run = Callable[[int], None]  # runs a network on so many tiles
VARIANTS: tuple[Variant, ...] = ("stock", "improved")


def export(variant: Variant, scale: Scale, folder: Path) -> Path:
    """Write a network with random weights as the bundle has it."""
    path = folder / f"{variant}-{scale}.onnx"
    model = MitosisDetector(variant, scale).eval()
    export_onnx(RawCandidates(model.fuse(verbose=False)).eval(), (1, 3, TILE_PX, TILE_PX), path)
    store_half(path)
    return path


def openvino_run(path: Path, precision: str, tile: NDArray[np.float32]) -> Run:
    """Return a function that keeps every stream of OpenVINO's throughput mode busy."""
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(tile.shape)
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
    queue = openvino.AsyncInferQueue(core.compile_model(model, "CPU", hints))

    def run(tiles: int) -> None:
        for _ in range(tiles):
            queue.start_async({0: tile})
        queue.wait_all()

    return run


def onnxruntime_run(path: Path, tile: NDArray[np.float32]) -> Run:
    """Return a function that runs ONNX Runtime in fp32 on as many threads as there are cores."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(tiles: int) -> None:
        for _ in range(tiles):
            session.run(None, {"images": tile})

    return run


def medians_ms(runs: list[Run], rounds: int, tiles: int) -> list[float]:
    """Return the median time of a tile of each, taking turns so that whatever disturbs one disturbs all."""
    times_ms: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run(2)
    for _ in range(rounds):
        for run, found in zip(runs, times_ms, strict=True):
            started_s = time.perf_counter()
            run(tiles)
            found.append((time.perf_counter() - started_s) * 1e3 / tiles)
    return [statistics.median(found) for found in times_ms]


def main(
    scales: Annotated[str, typer.Option(help="Scales of YOLO11, separated by commas")] = "n,s,x",
    rounds: Annotated[int, typer.Option(help="Turns of each network")] = 7,
    tiles: Annotated[int, typer.Option(help="Tiles of a turn")] = 4,
) -> None:
    """Print a Markdown table."""
    torch.manual_seed(0)
    tile = np.random.default_rng(0).random((1, 3, TILE_PX, TILE_PX), np.float32)
    runtimes: dict[str, Callable[[Path], Run]] = {
        "OpenVINO bf16": lambda path: openvino_run(path, "bf16", tile),
        "OpenVINO fp32": lambda path: openvino_run(path, "f32", tile),
        "ONNX Runtime fp32": lambda path: onnxruntime_run(path, tile),
    }
    print("| scale | runtime | stock (ms/tile) | improved (ms/tile) | improved / stock |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for scale in scales.split(","):
            paths = [export(variant, scale, Path(folder)) for variant in VARIANTS]  # type: ignore[arg-type]
            for name, load in runtimes.items():
                stock_ms, improved_ms = medians_ms([load(path) for path in paths], rounds, tiles)
                ratio = improved_ms / stock_ms
                print(f"| {scale} | {name} | {stock_ms:.1f} | {improved_ms:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
