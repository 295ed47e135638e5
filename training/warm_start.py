"""Starts a training run from a bundle's detector in place of random weights: no checkpoint need be kept.

A bundle's batch normalisation is folded into the convolutions. It is opened again here: each convolution gets its
folded kernel, and its normalisation the scale and shift that undo what it does to the training tiles, so that the
network starts as the bundle's function and trains as any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from mitosis.bundle import read_bundle
from mitosis.errors import BundleError
from training.networks.yolo11 import MitosisDetector

PREFIX, HALF = "model.", "_half"  # what the export puts around a parameter's name


def bundle_weights(file: Path) -> dict[str, NDArray[np.float32]]:
    """Return an exported network's parameters by their names in torch."""
    return {
        tensor.name.removeprefix(PREFIX).removesuffix(HALF): numpy_helper.to_array(tensor).astype(np.float32)
        for tensor in onnx.load(file).graph.initializer
    }


def name_norms(weights: dict[str, NDArray[np.float32]], model: nn.Module) -> None:
    """Give the group normalisations their names back: the exporter numbers their scales and shifts in order."""
    numbered = sorted(
        (name for name in weights if name.startswith("onnx::")), key=lambda name: int(name.split("_")[-1])
    )
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.GroupNorm)]
    wanted = [f"{norm}.{part}" for norm in norms for part in ("weight", "bias")]
    if len(wanted) == len(numbered):
        weights.update({name: weights[number].ravel() for name, number in zip(wanted, numbered, strict=True)})


def start_from_bundle(model: MitosisDetector, bundle: Path, tiles: Iterable[Tensor]) -> int:
    """Give ``model`` the weights of a bundle's detector; parts that the bundle's variant has not stay random.

    Args:
        model: of the bundle's scale.
        bundle: its folder.
        tiles: a few batches (B, 3, H, W) uint8 as training draws them; the normalisations are measured on them.

    Returns:
        How many of the model's parameters came from the bundle.

    Raises BundleError when the scales differ.

    """
    found = read_bundle(bundle)
    weights = bundle_weights(found.detector_file)
    name_norms(weights, model)
    folded: dict[str, Tensor] = {}
    taken = 0
    for name, module in model.named_modules():
        if isinstance(module, Conv) and f"{name}.conv.bias" in weights:
            folded[name] = torch.from_numpy(weights[f"{name}.conv.bias"].copy())
    state = model.state_dict()
    for name, value in state.items():
        if name not in weights or name.endswith("num_batches_tracked"):
            continue
        if value.shape != weights[name].shape:
            raise BundleError(
                f"{bundle}: {name} is {weights[name].shape}, not {tuple(value.shape)}; choose its --scale"
            )
        value.copy_(torch.from_numpy(weights[name].copy()))
        taken += value.numel()
    model.load_state_dict(state)
    open_normalisations(model, folded, tiles)
    return taken


@torch.no_grad()
def open_normalisations(model: MitosisDetector, folded: dict[str, Tensor], tiles: Iterable[Tensor]) -> None:
    """Set each folded convolution's normalisation so that it measures the tiles and then adds the folded bias."""
    sums: dict[str, list[Tensor]] = {name: [] for name in folded}

    def measured(name: str, conv: Conv) -> nn.Module:
        def hook(_module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            x = out.float()
            sums[name].append(torch.stack([x.mean((0, 2, 3)), (x * x).mean((0, 2, 3))]))
            return out + folded[name].to(out.dtype)[:, None, None]

        conv.conv.register_forward_hook(hook)
        return conv.bn

    norms = {name: measured(name, conv) for name, conv in named_convs(model) if name in folded}
    for name, conv in named_convs(model):
        if name in folded:
            conv.bn = nn.Identity()
    model.eval()
    for batch in tiles:
        model(batch.to(memory_format=torch.channels_last).float() / 255)
    model.train()
    for name, conv in named_convs(model):
        if name not in folded:
            continue
        conv.conv._forward_hooks.clear()
        mean, square = torch.stack(sums[name]).mean(0)
        variance = (square - mean * mean).clamp(min=0)
        norm = norms[name]
        assert isinstance(norm, nn.BatchNorm2d)
        for target, value in (
            (norm.running_mean, mean),
            (norm.running_var, variance),
            (norm.weight, (variance + norm.eps).sqrt()),
            (norm.bias, mean + folded[name]),
        ):
            assert target is not None
            target.copy_(value)
        conv.bn = norm


def named_convs(model: nn.Module) -> list[tuple[str, Conv]]:
    """Return Ultralytics' convolutions with their names."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, Conv)]
