"""Times the stock against the improved YOLO11 on one 512 x 512 px tile: every runtime and precision, in one run.

    python -m benchmarks.compare_networks --scales n,s,x

Weights are random: time does not depend on them. Both networks of a scale take turns, and medians and their ratio are
printed; the time of all cores together says what the wall clock cannot on a machine with other work. OpenVINO runs as
in ``mitosis/cpu.py``, its requests kept full; ONNX Runtime one tile at a time.
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
import typer
from numpy.typing import NDArray

TILE_PX = 512
Run = Callable[[int], None]  # runs a network on so many tiles
VARIANTS = ("stock", "improved")


def export(variant: str, scale: str, folder: Path) -> Path:
    """Write a network with random weights as the bundle has it, unless it is there."""
    path = folder / f"{variant}-{scale}.onnx"
    if path.exists():
        return path
    import torch

    from training.export import RawCandidates, export_onnx, store_half
    from training.networks.yolo11 import MitosisDetector

    torch.manual_seed(0)
    model = MitosisDetector(variant, scale).eval()  # type: ignore[arg-type]
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


def medians_ms(runs: list[Run], rounds: int, tiles: int) -> list[tuple[float, float]]:
    """Return each one's median wall-clock and processor time of a tile; taking turns evens out what disturbs."""
    wall_ms: list[list[float]] = [[] for _ in runs]
    processor_ms: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run(2)
    for _ in range(rounds):
        for run, wall, processor in zip(runs, wall_ms, processor_ms, strict=True):
            started_s, worked_s = time.perf_counter(), time.process_time()
            run(tiles)
            wall.append((time.perf_counter() - started_s) * 1e3 / tiles)
            processor.append((time.process_time() - worked_s) * 1e3 / tiles)
    return [(statistics.median(a), statistics.median(b)) for a, b in zip(wall_ms, processor_ms, strict=True)]


def main(
    scales: Annotated[str, typer.Option(help="Scales of YOLO11, separated by commas")] = "n,s,x",
    rounds: Annotated[int, typer.Option(help="Turns of each network")] = 7,
    tiles: Annotated[int, typer.Option(help="Tiles of a turn")] = 4,
    exports: Annotated[
        Path | None, typer.Option(help="Keep the exported networks here and take up those it has")
    ] = None,
    time_it: Annotated[bool, typer.Option("--time/--export-only")] = True,
) -> None:
    """Print a Markdown table."""
    tile = np.random.default_rng(0).random((1, 3, TILE_PX, TILE_PX), np.float32)
    runtimes: dict[str, Callable[[Path], Run]] = {
        "OpenVINO bf16": lambda path: openvino_run(path, "bf16", tile),
        "OpenVINO fp32": lambda path: openvino_run(path, "f32", tile),
        "ONNX Runtime fp32": lambda path: onnxruntime_run(path, tile),
    }
    print("| scale | runtime | time | stock (ms/tile) | improved (ms/tile) | ratio |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = exports or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for scale in scales.split(","):
            paths = [export(variant, scale, folder) for variant in VARIANTS]
            for name, load in runtimes.items() if time_it else ():
                stock, improved = medians_ms([load(path) for path in paths], rounds, tiles)
                for what, old_ms, new_ms in zip(("wall clock", "all cores' time"), stock, improved, strict=True):
                    ratio = new_ms / old_ms
                    print(f"| {scale} | {name} | {what} | {old_ms:.1f} | {new_ms:.1f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
