"""Ours against what people would use instead: same image, one run, in turn, each in a process of its own.

    taskset -c 0,1 python -m benchmarks.against_others [REGION] [--spacing 0.25]

Prints the medians and how often ours goes into each. Ours does both stages and writes the challenge's file; the rivals
do stage 1 alone. Ours is held against them with one look at every tile, which is what they do. Needs the extra
``train`` and benchmarks/requirements.txt.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from scipy.spatial import KDTree

from benchmarks.regions import SPACING_UM, region
from benchmarks.rivals import BATCH
from mitosis.bundle import Bundle, read_bundle
from mitosis.evaluation import RADIUS_UM

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Entry:
    """One line of the table."""

    title: str
    contender: str  # of benchmarks.rivals
    model: Path
    weights: str  # whose they are


@dataclass
class Measured:
    """What the rounds of one entry gave."""

    seconds: list[float]
    peak_mb: list[float]
    start_up_s: list[float]
    points: list[list[float]]


def entries(bundle: Bundle, folder: Path, chosen: list[str]) -> list[Entry]:
    """Prepare every contender's weights in ``folder``; ours comes first."""
    from benchmarks.weights import for_onnx_runtime, for_openvino, for_torch

    same = "the bundle's"
    found = [Entry("ours, both stages, one look", "ours", bundle.folder, same)]
    if (views := bundle.description.operating_point.views or 1) > 1:
        title = f"ours, both stages, up to {views} looks (the default)"
        found.append(Entry(title, "ours-all-looks", bundle.folder, same))
    if {"sahi-torch", "sahi-torch-batched", "published"} & set(chosen):
        checkpoint, torch_weights = for_torch(bundle, folder)
    if "sahi-torch" in chosen:
        found.append(Entry("Ultralytics + SAHI, torch fp32", "sahi", checkpoint, torch_weights))
    if "sahi-torch-batched" in chosen:
        title = f"Ultralytics + SAHI, torch fp32, {BATCH} tiles at once"
        found.append(Entry(title, "sahi-batched", checkpoint, torch_weights))
    if "sahi-onnx" in chosen:
        path = for_onnx_runtime(bundle, folder)
        found.append(Entry("Ultralytics + SAHI, ONNX Runtime fp32", "sahi", path, same))
    if "sahi-openvino" in chosen:
        path = for_openvino(bundle, folder)
        found.append(Entry("Ultralytics + SAHI, OpenVINO at its own precision", "sahi", path, same))
    if "published" in chosen:
        found.append(Entry("the paper's published loop, torch fp32", "published", checkpoint, torch_weights))
    return found


def run_once(entry: Entry, image: Path, spacing_um: float, confidence: float) -> dict[str, object]:
    """Run one contender in a fresh process; its last line is its result."""
    command = [sys.executable, "-m", "benchmarks.rivals", entry.contender, str(image), "--model", str(entry.model)]
    command += ["--spacing", str(spacing_um), "--confidence", str(confidence)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{entry.title} failed:\n{done.stderr[-3000:]}")
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(contenders: list[Entry], rounds: int, image: Path, spacing_um: float, confidence: float) -> list[Measured]:
    """Run all contenders in turn, ``rounds`` times, so that a slow minute of the machine hits all."""
    measured = [Measured([], [], [], []) for _ in contenders]
    for number in range(rounds):
        for entry, into in zip(contenders, measured, strict=True):
            got = run_once(entry, image, spacing_um, confidence)
            into.seconds.append(got["seconds"])  # type: ignore[arg-type]
            into.peak_mb.append(got["peak_mb"])  # type: ignore[arg-type]
            into.start_up_s.append(got["start_up_s"])  # type: ignore[arg-type]
            into.points = got["points"]  # type: ignore[assignment]
            print(f"round {number + 1}: {entry.title}: {into.seconds[-1]:.2f} s", file=sys.stderr)
    return measured


def shared(first: list[list[float]], second: list[list[float]], spacing_um: float) -> str:
    """Return how many of ``second`` lie within the challenge's radius of one of ``first``."""
    if not first or not second:
        return f"0 of {len(second)}"
    distance, _ = KDTree(np.array(first)).query(np.array(second))
    return f"{int((distance * spacing_um <= RADIUS_UM).sum())} of {len(second)}"


RIVALS = ["sahi-torch", "sahi-torch-batched", "sahi-onnx", "sahi-openvino", "published"]


def main(
    image: Annotated[Path | None, typer.Argument(help="What Pillow opens; default: a drawn region")] = None,
    spacing: Annotated[float, typer.Option(help="Micrometres per pixel")] = SPACING_UM,
    model: Annotated[Path, typer.Option(help="Our bundle")] = ROOT / "model",
    rounds: Annotated[int, typer.Option(help="Times each contender runs; medians are printed")] = 3,
    rival: Annotated[list[str], typer.Option(help="Only these")] = RIVALS,
) -> None:
    """Print the table of benchmarks/README.md."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        path = region(image, folder)
        with Image.open(path) as opened:
            width, height = opened.size
        area_mm2 = width * height * (spacing / 1000) ** 2
        bundle = read_bundle(model)
        confidence = bundle.description.operating_point.detector_confidence or 0.2
        contenders = entries(bundle, folder, rival)
        measured = measure(contenders, rounds, path, spacing, confidence)
    print(f"{path.name}: {width} x {height} px, {area_mm2:.2f} mm2; {bundle.description.detector.architecture}, "
          f"stage 1 from {confidence} on; medians of {rounds}\n")  # fmt: skip
    print("| | weights | s | s/mm2 | times ours | start-up s | peak MB | found, near one of ours |")
    print("|---|---|---|---|---|---|---|---|")
    base = statistics.median(measured[0].seconds)
    for entry, got in zip(contenders, measured, strict=True):
        middle = statistics.median(got.seconds)
        cells = [entry.title, entry.weights, f"{middle:.1f}", f"{middle / area_mm2:.2f}", f"{middle / base:.1f}"]
        cells += [f"{statistics.median(got.start_up_s):.1f}", f"{statistics.median(got.peak_mb):.0f}"]
        print("| " + " | ".join([*cells, shared(measured[0].points, got.points, spacing)]) + " |")


if __name__ == "__main__":
    typer.run(main)
