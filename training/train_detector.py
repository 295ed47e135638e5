"""Stage 1: train YOLO11, stock or improved, under a wall-clock budget.

    python -m training.train_detector --data ../shared/data --run runs/first --hours 0.5

Resumes from the run's checkpoint when started again with the same arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.utils.data import DataLoader

from training.data.images import load_patches, load_windows
from training.data.tiles import TileStream, collate
from training.networks.yolo11 import MitosisDetector, Scale, Variant
from training.schedule import AveragedWeights, Budget, cosine, load_checkpoint, save_checkpoint

SMALL_TILE_PX, TILE_PX = 320, 512
SMALL_TILE_SHARE = 0.9  # of the budget: small tiles hold as many objects per second; the last part sees whole tiles
BATCH = 16
LEARNING_RATES = (1e-3, 1e-5)  # the paper's, cosine
WARM_UP_STEPS = 50
WEIGHT_DECAY = 5e-4  # the paper's
LOSS_GAINS = {
    "box": 4.0,
    "cls": 1.5,
}  # Ultralytics' 7.5 and 0.5 turned round: every box here is 50 px, the class is not
SAVE_EVERY = 100  # steps


def batches(stream: TileStream, workers: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Draw batches in the background; the windows are shared with the workers, not copied."""
    return iter(DataLoader(stream, BATCH, num_workers=workers, collate_fn=collate, prefetch_factor=4))


def train_step(
    model: MitosisDetector, optimiser: torch.optim.Optimizer, tiles: Tensor, labels: dict[str, Tensor]
) -> float:
    """One step in bf16 autocast with the loss in fp32; returns the loss per tile."""
    x = tiles.to(memory_format=torch.channels_last).float() / 255
    with torch.autocast("cpu", torch.bfloat16):
        raw = model.forward(x)
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
    return float(loss.sum()) / len(tiles)


def main(
    data: Annotated[Path, typer.Option(help="Folder with windows.json and patches.csv")],
    run: Annotated[Path, typer.Option(help="Folder for the checkpoint; taken up again if it holds one")],
    variant: Annotated[str, typer.Option(help="stock or improved")] = "improved",
    scale: Annotated[str, typer.Option(help="n, s, m, l or x")] = "n",
    hours: Annotated[float, typer.Option(help="Wall-clock budget; the schedule fits it")] = 0.5,
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Train the detector and leave its averaged weights in RUN/detector.pt."""
    torch.manual_seed(seed)
    model = build(variant, scale)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATES[0], weight_decay=WEIGHT_DECAY)
    average = AveragedWeights(model, decay=0.998)
    budget, step = Budget(hours * 3600), 0
    path = run / "detector.pt"
    if saved := load_checkpoint(path):
        if (saved["variant"], saved["scale"]) != (variant, scale):
            raise typer.BadParameter(f"{path} holds {saved['variant']} {saved['scale']}; choose another --run")
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average.state, average.updates, step = saved["average"], saved["updates"], saved["step"]
        budget = Budget(hours * 3600, saved["spent_s"])
    windows, patches = load_windows(data), load_patches(data)
    side, recent = 0, 0.0
    source: Iterator[tuple[Tensor, dict[str, Tensor]]] = iter(())

    def save() -> None:
        state = {"variant": variant, "scale": scale, "model": model.state_dict(), "average": average.state}
        state |= {"optimiser": optimiser.state_dict(), "updates": average.updates}
        save_checkpoint(path, state | {"step": step, "spent_s": budget.spent_s, "seed": seed})

    while budget.progress < 1:
        wanted = SMALL_TILE_PX if budget.progress < SMALL_TILE_SHARE else TILE_PX
        if wanted != side:
            side, source = wanted, batches(TileStream(windows, patches, wanted, seed + step), workers)
        warm_up = min(1.0, (step + 1) / WARM_UP_STEPS)
        for group in optimiser.param_groups:
            group["lr"] = warm_up * cosine(budget.progress, *LEARNING_RATES)
        loss = train_step(model, optimiser, *next(source))
        average.update(model)
        step += 1
        recent = loss if step == 1 else 0.95 * recent + 0.05 * loss
        if step % 20 == 0:
            print(f"step {step} tile {side} loss {recent:.3f} {budget.spent_s / 60:.1f} min", flush=True)
        if step % SAVE_EVERY == 0:
            save()
    save()
    print(f"done: {step} steps in {budget.spent_s / 60:.1f} min -> {path}")


def build(variant: str, scale: str) -> MitosisDetector:
    """Build the network in training mode, laid out for the CPU's convolutions."""
    if variant not in Variant.__args__ or scale not in Scale.__args__:  # type: ignore[attr-defined]
        raise typer.BadParameter(f"no YOLO11 {variant} {scale}: choose stock or improved, and n, s, m, l or x")
    model = MitosisDetector(variant, scale)  # type: ignore[arg-type]
    for gain, value in LOSS_GAINS.items():
        setattr(model.args, gain, value)
    model.train()
    model.to(memory_format=torch.channels_last)
    return model


if __name__ == "__main__":
    typer.run(main)
