"""Gives rivals the very weights of a bundle's detector, in the forms that Ultralytics reads."""

from __future__ import annotations

from pathlib import Path

import onnx
import openvino
import torch
import yaml

from mitosis.bundle import Bundle
from training.networks.yolo11 import MitosisDetector, variant_and_scale
from training.warm_start import FILE_NAME, start_from_bundle

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


def for_torch(bundle: Bundle, folder: Path) -> tuple[Path, str]:
    """Write a checkpoint that ``YOLO(path)`` loads; returns whose weights it holds, too.

    A bundle without parameters gives random ones: they cost the same arithmetic and propose nothing, which spares the
    rival its suppression.
    """
    variant, scale = variant_and_scale(bundle.description.detector.architecture)
    torch.manual_seed(0)
    model, whose = MitosisDetector(variant, scale), "random"
    if (bundle.folder / FILE_NAME).is_file():
        start_from_bundle(model, bundle.folder, "detector")
        whose = "the bundle's"
    model.names, model.args = NAMES, dict(vars(model.args))
    path = folder / "detector.pt"
    torch.save({"model": model.eval(), "train_args": {}}, path)
    return path, whose
