"""What both training loops share: a wall-clock budget, batches, averaged weights, checkpoints that survive a kill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset


@dataclass
class Budget:
    """A training run's wall-clock budget; time spent before a restart counts."""

    total_s: float
    spent_before_s: float = 0.0

    def __post_init__(self) -> None:
        self.started_s = time.monotonic()

    @property
    def spent_s(self) -> float:
        """Seconds of training so far, over all restarts."""
        return self.spent_before_s + time.monotonic() - self.started_s

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1."""
        return min(1.0, self.spent_s / self.total_s)


def in_background(
    stream: IterableDataset[Any], batch: int, workers: int, collate: Callable[[list[Any]], Any] | None = None
) -> DataLoader[Any]:
    """Return a loader of a stream's batches, drawn by ``workers`` processes a few ahead; with 0, by this one."""
    prefetch, pin = 4 if workers else None, torch.cuda.is_available()
    return DataLoader(stream, batch, num_workers=workers, collate_fn=collate, prefetch_factor=prefetch, pin_memory=pin)


def cosine(progress: float, first: float, last: float) -> float:
    """Cosine annealing from ``first`` to ``last`` as ``progress`` goes from 0 to 1."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))


def set_rate(
    optimiser: torch.optim.Optimizer, step: int, warm_up_steps: int, progress: float, rates: tuple[float, float]
) -> None:
    """Set the learning rate of the step that comes after ``step`` others: linear warm-up, then cosine annealing."""
    warm_up = min(1.0, (step + 1) / warm_up_steps)
    for group in optimiser.param_groups:
        group["lr"] = warm_up * cosine(progress, *rates)


class AveragedWeights:
    """Exponential moving average of a network's weights and buffers; short at first, so that it warms up."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the network's present weights."""
        self.updates += 1
        decay = self.decay * (1 - math.exp(-self.updates / 200))
        for name, value in model.state_dict().items():
            if value.dtype.is_floating_point:
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all: a kill during the write leaves the previous one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint of this project's own, or None where there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state
