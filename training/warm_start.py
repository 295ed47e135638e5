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

from mitosis.errors import BundleError

FILE_NAME = "parameters.safetensors"
SMALL = 1024  # tensors with fewer values stay in single precision: norms and their statistics

Stage = Literal["detector", "classifier"]


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


def start_from_bundle(model: nn.Module, bundle: Path, stage: Stage) -> float:
    """Give ``model`` the weights that a bundle's network has in common with it; other parts stay random.

    A stock detector started from an improved one shares most of its layers.

    Returns:
        The share of the model's parameters that came from the bundle, 0..1.

    Raises BundleError when the bundle has no parameters to train on, or those of another size.

    """
    path = bundle / FILE_NAME
    if not path.is_file():
        raise BundleError(f"{path}: missing; a bundle that `training.export` wrote has it")
    saved = {
        name.removeprefix(f"{stage}."): value for name, value in load_file(path).items() if name.startswith(f"{stage}.")
    }
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
