"""Starts a training run from a bundle's networks in place of random weights: no checkpoint need be kept.

The exported networks are folded and cannot be trained on. So the export puts their parameters beside them, in half
precision; inference never opens that file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mitosis.bundle import Description
from mitosis.errors import BundleError
from training.networks.yolo11 import Scale, Variant, variant_and_scale

FILE_NAME = "parameters.safetensors"
SMALL = 1024  # tensors with fewer values stay in single precision: biases, norms and their statistics cost nothing

Stage = Literal["detector", "classifier", "second_look"]


def choose_part(
    description: Description, variant: str | None, scale: str | None
) -> tuple[Stage, tuple[Variant, Scale]]:
    """Return the detector of a bundle that a training goes on from, and its own variant and scale.

    Of the first look's and the further looks' that which is most of what was asked for; None asks for nothing. Weights
    of another scale fit nowhere, of another variant they do in part, so the scale comes first. The first look's where
    both are as good.
    """
    parts: list[tuple[Stage, tuple[Variant, Scale]]] = [
        ("detector", variant_and_scale(description.detector.architecture))
    ]
    if description.second_look:
        parts.append(("second_look", variant_and_scale(description.second_look.architecture)))
    return max(parts, key=lambda part: (scale in (None, part[1][1]), variant in (None, part[1][0])))


def save_parameters(folder: Path, networks: dict[Stage, dict[str, Tensor]]) -> None:
    """Write the state dicts of a bundle's networks, before anything is folded."""
    tensors = {
        f"{stage}.{name}": (
            value.half() if value.is_floating_point() and value.numel() >= SMALL else value
        ).contiguous()
        for stage, state in networks.items()
        for name, value in state.items()
    }
    save_file(tensors, folder / FILE_NAME)
    (folder / FILE_NAME).chmod(0o644)  # it comes as 0600, which the image's user cannot copy


def mean_with_bundle(state: dict[str, Tensor], bundle: Path, stage: Stage) -> dict[str, Tensor]:
    """Return the mean of a network's weights and buffers and those of a bundle's: of two parts of one training.

    Both lie in one basin, since the later part began where the earlier ended; their mean lies nearer to its middle.

    Raises BundleError when the bundle has no parameters, or those of another network.
    """
    other = read_parameters(bundle, stage)
    if {name: value.shape for name, value in other.items()} != {name: value.shape for name, value in state.items()}:
        raise BundleError(f"{bundle}: its {stage} is another network; name a bundle that this training started from")
    return {
        name: ((value.float() + other[name].float()) / 2).to(value.dtype) if value.is_floating_point() else value
        for name, value in state.items()
    }


def read_parameters(bundle: Path, stage: Stage) -> dict[str, Tensor]:
    """Read the state dict of one of a bundle's networks; raises BundleError where it has none."""
    path = bundle / FILE_NAME
    if not path.is_file():
        raise BundleError(f"{path}: missing; a bundle that `training.export` wrote has it")
    return {
        name.removeprefix(f"{stage}."): value for name, value in load_file(path).items() if name.startswith(f"{stage}.")
    }


def start_from_bundle(model: nn.Module, bundle: Path, stage: Stage) -> float:
    """Give ``model`` the weights that a bundle's network has in common with it; other parts stay random.

    A stock detector started from an improved one shares most of its layers.

    Returns:
        The share of the model's parameters that came from the bundle, 0..1.

    Raises BundleError when the bundle has no parameters to train on, or those of another size.

    """
    saved, path = read_parameters(bundle, stage), bundle / FILE_NAME
    state = model.state_dict()
    shared = {name: value.to(state[name].dtype) for name, value in saved.items() if name in state}
    for name, value in shared.items():
        if value.shape != state[name].shape:
            raise BundleError(
                f"{path}: {name} is {tuple(value.shape)}, not {tuple(state[name].shape)}; choose the same scale"
            )
    with torch.no_grad():
        model.load_state_dict(state | shared)
    parameters = dict(model.named_parameters())
    return sum(parameters[n].numel() for n in shared if n in parameters) / sum(p.numel() for p in parameters.values())
