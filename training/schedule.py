"""What the training loops share: budget, processes, batches, averaged weights, checkpoints that survive a kill."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, IterableDataset

State = dict[str, Any]  # of a checkpoint
FIXED = ("variant", "scale", "architecture", "profile")  # as long as a run lasts


def above_zero(hours: float) -> float:
    """Return the hours of an option; raises typer.BadParameter."""
    if not hours > 0:
        raise typer.BadParameter(f"{hours:g} is no time to train in; give more than 0")
    return hours


Hours = Annotated[float, typer.Option(help="Wall-clock budget; the schedule fits it", callback=above_zero)]


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


class Processes:
    """This process's place among those that torchrun started; alone without it."""

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.backends.cudnn.benchmark = True  # tiles have two sizes in all a run
        if self.count > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def wrap(self, model: nn.Module) -> nn.Module:
        """Average gradients over the processes."""
        return DistributedDataParallel(model) if self.count > 1 else model

    def agree(self, progress: float) -> float:
        """Return the first process's view of the progress: all must stop at the same step."""
        shared = torch.tensor(progress, device=self.device)
        if self.count > 1:
            dist.broadcast(shared, 0)
        return float(shared)

    def leave(self) -> None:
        """Wait for the others and part."""
        if self.count > 1:
            dist.barrier()
            dist.destroy_process_group()


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


def save_checkpoint(path: Path, state: State) -> None:
    """Write a checkpoint whole or not at all: a kill during the write leaves the previous one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> State | None:
    """Read a checkpoint of this project's own, or None where there is none."""
    if not path.exists():
        return None
    state: State = torch.load(path, map_location="cpu", weights_only=True)
    return state


def take_up(path: Path, asked: State, start: Path | None) -> State | None:
    """Return the checkpoint of a run that is there, and say what is asked otherwise than before; None for a new run.

    Args:
        path: of the checkpoint; older ones do not know all that is asked, and are taken up nevertheless.
        asked: the options that a checkpoint remembers.
        start: the bundle to start from, which is for new runs.

    Raises typer.BadParameter where the run is one of another network or profile.

    """
    if not (saved := load_checkpoint(path)):
        return None
    for name, value in asked.items():
        before = saved.get(name, value)
        if before != value and name in FIXED:
            raise typer.BadParameter(f"{path}: begun with --{name} {before}, not {value}; name it, or another --run")
        if before != value:
            print(f"{path}: goes on with {name} {value}, {before} until now", flush=True)
    if start:
        print(f"{path}: goes on from its own weights; --start is ignored", flush=True)
    return saved
