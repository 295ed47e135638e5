"""Makes a bundle of random weights: the arithmetic of any network, without its training."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.export import main as export
from training.networks.convnext import MitosisClassifier
from training.networks.yolo11 import MitosisDetector, Scale, Variant

SETTLING_TILES = 2


def random_bundle(folder: Path, variant: Variant, scale: Scale, classifier: str, rgb: NDArray[np.uint8]) -> Path:
    """Export random networks as FOLDER/model; ``rgb`` (h, w, 3) settles the detector's normalisation layers."""
    torch.manual_seed(0)
    detector = MitosisDetector(variant, scale)
    settle(detector, rgb)
    torch.save(
        {"variant": variant, "scale": scale, "average": detector.state_dict()},
        folder / "detector.pt",
    )
    weights = MitosisClassifier(classifier).state_dict()
    torch.save({"architecture": classifier, "average": weights}, folder / "classifier.pt")
    with redirect_stdout(StringIO()):  # it lists the files
        export(folder, folder / "model")
    return folder / "model"


@torch.no_grad()
def settle(detector: nn.Module, rgb: NDArray[np.uint8], tile_px: int = 512) -> None:
    """Set the running statistics from real tiles, so that activations have the size that training gives them."""
    norms = [module for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = [module.momentum for module in norms]
    for module in norms:
        module.momentum = 1.0
    corners = [(i * tile_px, i * tile_px) for i in range(SETTLING_TILES)]
    tiles = np.stack([rgb[y : y + tile_px, x : x + tile_px] for y, x in corners]).transpose(0, 3, 1, 2)
    detector.train()
    detector(torch.from_numpy(tiles.astype(np.float32) / 255))
    detector.eval()
    for module, momentum in zip(norms, kept, strict=True):
        module.momentum = momentum
