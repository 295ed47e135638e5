"""Prints how far the exported networks are from torch, on real tiles and crops: the largest absolute differences.

python -m training.compare_runtimes --run runs/first --bundle model --data ../shared/data
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import torch
import typer
from numpy.typing import NDArray

from mitosis.bundle import Bundle, read_bundle
from mitosis.cpu import OpenVinoNetwork
from mitosis.network import NetworkFile, prepare_pixels
from training.data.crops import Spot, plain
from training.data.images import LabelledWindow, load_frames
from training.export import load_classifier
from training.mine_candidates import load_detector
from training.networks.convnext import MeanOfViews

Floats = NDArray[np.float32]


def tiles_of(windows: list[LabelledWindow], side_px: int) -> Floats:
    """Return the first tile of each image: (n, 3, side, side)."""
    return np.concatenate([prepare_pixels(w.rgb[None, :side_px, :side_px]) for w in windows])


def crops_of(windows: list[LabelledWindow]) -> Floats:
    """Return a crop around each labelled object: (n, 3, 64, 64)."""
    return torch.stack([plain(Spot(w.rgb, point)) for w in windows for point in w.points]).numpy()


def onnx_output(file: Path, x: Floats) -> Floats:
    """Run ONNX Runtime in fp32."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: one[None]})[0] for one in x])


def openvino_output(file: Path, x: Floats) -> tuple[Floats, str]:
    """Run what inference runs, at the CPU's own precision."""
    network = OpenVinoNetwork(NetworkFile(file, (1, *x.shape[1:])))
    return np.concatenate([out for _, out in network.map((i, one[None]) for i, one in enumerate(x))]), network.name


@torch.no_grad()
def torch_outputs(run: Path, tiles: Floats, crops: Floats) -> tuple[Floats, Floats]:
    """Run both trained networks in fp32."""
    detector, classifier = load_detector(run), MeanOfViews(load_classifier(run)[0])
    raw = torch.cat([detector(torch.from_numpy(one[None]))[0] for one in tiles]).numpy()
    return raw, classifier(torch.from_numpy(crops)).numpy()


def row(what: str, runtime: str, expected: Floats, found: Floats) -> str:
    """Return one line of the table."""
    return f"| {what} | {runtime} | {np.abs(expected - found).max():.2g} |"


def main(
    run: Annotated[Path, typer.Option(help="Folder with detector.pt and classifier.pt")],
    bundle: Annotated[Path, typer.Option(help="What training.export made of it")],
    data: Annotated[Path, typer.Option(help="Folder with frames.json")],
) -> None:
    """Print the table of docs/networks.md."""
    found: Bundle = read_bundle(bundle)
    windows = load_frames(data, "val")[:8]
    tiles, crops = tiles_of(windows, found.description.detector.tile_px), crops_of(windows)
    raw, logits = torch_outputs(run, tiles, crops)
    print("| output | runtime | largest absolute difference from torch fp32 |\n|---|---|---|")
    onnx_raw, (ov_raw, name) = onnx_output(found.detector_file, tiles), openvino_output(found.detector_file, tiles)
    for runtime, out in (("ONNX Runtime fp32", onnx_raw), (name, ov_raw)):
        confident = raw[:, 4] >= 0.2
        boxes = np.moveaxis(raw[:, :4], 1, 2)[confident], np.moveaxis(out[:, :4], 1, 2)[confident]
        print(row("detector score", runtime, raw[:, 4], out[:, 4]))
        if confident.any():
            print(row("detector box (px) where the score is at least 0.2", runtime, *boxes))
    ov_logits, name = openvino_output(found.classifier_file, crops)
    print(row("classifier logit", "ONNX Runtime fp32", logits, onnx_output(found.classifier_file, crops)))
    print(row("classifier logit", name, logits, ov_logits))


if __name__ == "__main__":
    typer.run(main)
