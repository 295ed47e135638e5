"""Stage 1: train YOLO11, stock or improved, with the paper's settings or under a wall-clock budget.

    python -m training.train_detector --data DATA --run runs/paper --scale x
    torchrun --nproc-per-node 8 -m -- training.train_detector --data DATA --run runs/paper --scale x
    python -m training.train_detector --data ../shared/data --run runs/first --profile cpu --hours 0.5

Under torchrun every process takes its share of the batch on its own GPU (or CPU) and the first one writes. Resumes from
the run's checkpoint when started again with the same arguments. Run on CPUs by us, with one and with two processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import torch.distributed as dist
import typer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from training.data.images import load_patches, load_windows
from training.data.tiles import TileStream, collate
from training.networks.yolo11 import MitosisDetector, Scale, Variant
from training.profiles import DETECTOR_PROFILES, DetectorProfile
from training.schedule import AveragedWeights, Budget, cosine, load_checkpoint, save_checkpoint
from training.warm_start import start_from_bundle

SMALL_TILE_PX, TILE_PX = 320, 512
SAVE_EVERY = 100  # steps
REPORT_EVERY = 20


class Processes:
    """This process's place among those that torchrun started; alone without it."""

    def __init__(self) -> None:
        self.rank, self.count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self.device = torch.device("cpu")
        if torch.cuda.is_available():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if self.count > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    def wrap(self, model: MitosisDetector) -> nn.Module:
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


def batches(stream: TileStream, batch: int, workers: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Draw batches in the background; the windows are shared with the workers, not copied."""
    prefetch = 4 if workers else None
    return iter(DataLoader(stream, batch, num_workers=workers, collate_fn=collate, prefetch_factor=prefetch))


def train_step(
    network: nn.Module,
    model: MitosisDetector,
    optimiser: torch.optim.Optimizer,
    tiles: Tensor,
    labels: dict[str, Tensor],
) -> float:
    """One step in bf16 autocast with the loss in fp32; ``network`` is ``model`` or wraps it. Returns loss per tile."""
    device = next(model.parameters()).device
    x = tiles.to(device, memory_format=torch.channels_last).float() / 255
    labels = {name: value.to(device) for name, value in labels.items()}
    with torch.autocast(device.type, torch.bfloat16):
        raw = network(x)
    predictions = {
        "boxes": raw["boxes"].float(),
        "scores": raw["scores"].float(),
        "feats": [f.float() for f in raw["feats"]],
    }
    loss, _ = model.loss(labels, predictions)
    optimiser.zero_grad(set_to_none=True)
    loss.sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimiser.step()
    return float(loss.detach().sum()) / len(tiles)


def main(
    data: Annotated[Path, typer.Option(help="Folder with windows.json and, where the profile asks, patches.csv")],
    run: Annotated[Path, typer.Option(help="Folder for the checkpoint; taken up again if it holds one")],
    profile: Annotated[str, typer.Option(help=f"Settings: {', '.join(DETECTOR_PROFILES)}")] = "paper",
    variant: Annotated[str, typer.Option(help="stock or improved")] = "improved",
    scale: Annotated[str, typer.Option(help="n, s, m, l or x")] = "n",
    hours: Annotated[float, typer.Option(help="Wall-clock budget; the schedule fits it")] = float("inf"),
    start: Annotated[
        Path | None, typer.Option(help="A bundle whose detector is trained on; else random weights")
    ] = None,
    seed: int = 0,
    workers: Annotated[int, typer.Option(help="Processes that draw tiles, for each that trains")] = 2,
) -> None:
    """Train the detector and leave its averaged weights in RUN/detector.pt."""
    if profile not in DETECTOR_PROFILES:
        raise typer.BadParameter(f"no profile {profile}: choose one of {', '.join(DETECTOR_PROFILES)}")
    settings, processes = DETECTOR_PROFILES[profile], Processes()
    torch.manual_seed(seed)
    model = build(variant, scale, settings)
    path = run / "detector.pt"
    saved = load_checkpoint(path)
    if start and not saved:
        print(f"{start_from_bundle(model, start, 'detector'):.0%} of the parameters from {start}", flush=True)
    model.to(processes.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rates[0], weight_decay=settings.weight_decay)
    average = AveragedWeights(model, decay=0.998)
    budget, step = Budget(hours * 3600), 0
    if saved:
        if (saved["variant"], saved["scale"]) != (variant, scale):
            raise typer.BadParameter(f"{path} holds {saved['variant']} {saved['scale']}; choose another --run")
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average.updates, step = saved["updates"], saved["step"]
        average.state = {name: value.to(processes.device) for name, value in saved["average"].items()}
        budget = Budget(hours * 3600, saved["spent_s"])
    network = processes.wrap(model)
    windows, patches = load_windows(data), load_patches(data) if settings.mix.patches else []
    steps_per_epoch = settings.epoch_tiles // settings.batch
    drawn, recent = (0, False), 0.0
    source: Iterator[tuple[Tensor, dict[str, Tensor]]] = iter(())

    def save() -> None:
        state = {"variant": variant, "scale": scale, "model": model.state_dict(), "average": average.state}
        state |= {"optimiser": optimiser.state_dict(), "updates": average.updates}
        save_checkpoint(path, state | {"step": step, "spent_s": budget.spent_s, "seed": seed})

    while (progress := processes.agree(max(budget.progress, step / (settings.epochs * steps_per_epoch)))) < 1:
        side = SMALL_TILE_PX if progress < settings.small_tile_share else TILE_PX
        mosaics = step < settings.mosaic_epochs * steps_per_epoch
        if (side, mosaics) != drawn:
            drawn = side, mosaics
            stream = TileStream(windows, patches, side, settings, seed + step + 7919 * processes.rank, mosaics)
            source = batches(stream, settings.batch // processes.count, workers)
        for group in optimiser.param_groups:
            group["lr"] = min(1.0, (step + 1) / settings.warm_up_steps) * cosine(progress, *settings.learning_rates)
        loss = train_step(network, model, optimiser, *next(source))
        average.update(model)
        step += 1
        recent = loss if step == 1 else 0.95 * recent + 0.05 * loss
        if processes.rank == 0 and step % REPORT_EVERY == 0:
            print(f"step {step} tile {side} loss {recent:.3f} {budget.spent_s / 60:.1f} min", flush=True)
        if processes.rank == 0 and step % SAVE_EVERY == 0:
            save()
    if processes.rank == 0:
        save()
        print(f"done: {step} steps in {budget.spent_s / 60:.1f} min -> {path}")
    processes.leave()


def build(variant: str, scale: str, profile: DetectorProfile) -> MitosisDetector:
    """Build the network in training mode, laid out for the CPU's convolutions."""
    if variant not in Variant.__args__ or scale not in Scale.__args__:  # type: ignore[attr-defined]
        raise typer.BadParameter(f"no YOLO11 {variant} {scale}: choose stock or improved, and n, s, m, l or x")
    model = MitosisDetector(variant, scale)  # type: ignore[arg-type]
    model.args.box, model.args.cls = profile.box_gain, profile.class_gain
    model.train()
    model.to(memory_format=torch.channels_last)
    return model


if __name__ == "__main__":
    typer.run(main)
