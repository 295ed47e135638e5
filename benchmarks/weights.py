"""Gives rivals the very weights of a bundle's detector, in the forms that Ultralytics reads."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import onnx
import openvino
import torch
import yaml

from mitosis.bundle import Bundle
from training.mine_candidates import load_detector
from training.networks.yolo11 import MitosisDetector, Scale, Variant

NAMES = {0: "mitotic figure"}


def metadata(tile_px: int) -> dict[str, object]:
    """Return what Ultralytics writes beside an export, and wants to read there."""
    return {"stride": 32, "task": "detect", "batch": 1, "imgsz": [tile_px, tile_px], "names": NAMES}


def for_onnx_runtime(bundle: Bundle, folder: Path) -> Path:
    """Copy the bundle's detector with Ultralytics' metadata: the same file for ONNX Runtime in fp32."""
    model = onnx.load(bundle.detector_file)
    onnx.helper.set_model_props(model, {k: str(v) for k, v in metadata(bundle.description.detector.tile_px).items()})
    path = folder / "detector.onnx"
    onnx.save(model, path)
    return path


def for_openvino(bundle: Bundle, folder: Path) -> Path:
    """Convert the bundle's detector into the folder that Ultralytics' own OpenVINO export would be."""
    path = folder / "detector_openvino_model"
    tile_px = bundle.description.detector.tile_px
    model = openvino.Core().read_model(bundle.detector_file)
    model.reshape((1, 3, tile_px, tile_px))
    openvino.save_model(model, path / "detector.xml", compress_to_fp16=False)
    (path / "metadata.yaml").write_text(yaml.safe_dump(metadata(tile_px)))
    return path


def for_torch(bundle: Bundle, folder: Path, run: Path | None) -> Path:
    """Write a checkpoint that ``YOLO(path)`` loads: the weights of a training run, or random ones.

    A bundle holds no checkpoint. Random weights cost the same arithmetic and propose nothing, which spares the rival
    its suppression.
    """
    scale, variant = bundle.description.detector.architecture.removeprefix("yolo11").split()
    if scale not in get_args(Scale) or variant not in get_args(Variant):
        raise SystemExit(f"no torch network for '{bundle.description.detector.architecture}'")
    torch.manual_seed(0)
    model = load_detector(run) if run else MitosisDetector(variant, scale)  # type: ignore[arg-type]
    model.names, model.args = NAMES, dict(vars(model.args))
    path = folder / "detector.pt"
    torch.save({"model": model.to(memory_format=torch.contiguous_format).eval(), "train_args": {}}, path)
    return path
