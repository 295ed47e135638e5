"""Stage 1: train YOLO11, stock or improved, with the paper's settings or under a wall-clock budget.

    python -m training.train_detector --data DATA --run runs/paper --scale x
    torchrun --nproc-per-node 8 -m -- training.train_detector --data DATA --run runs/paper --scale x
    python -m training.train_detector --data ../shared/data --run runs/first --profile cpu --hours 0.5
    python -m training.train_detector --data ../shared/data --run runs/small --profile gpu --teacher runs/large

Under torchrun every process takes its share of the batch on its own GPU (or CPU) and the first one writes. Resumes from
the run's checkpoint when started again with the same arguments. Run by us on CPUs, with one and with two processes, and
on one GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from mitosis.bundle import read_bundle
from training.data.images import load_patches, load_windows
from training.data.tiles import TileStream, collate
from training.mine_candidates import TILE_PX, load_detector
from training.networks.losses import distillation_loss
from training.networks.yolo11 import MitosisDetector, Scale, Variant
from training.profiles import DETECTOR_PROFILES, DetectorProfile
from training.schedule import (
    AveragedWeights,
    Budget,
    Hours,
    Processes,
    State,
    in_background,
    save_checkpoint,
    set_rate,
    take_up,
)
from training.warm_start import choose_part, start_from_bundle

SMALL_TILE_PX = 320
TAUGHT = 0.5  # share of the class loss that compares with teachers rather than labels, where there are any
SAVE_EVERY = 100  # steps
REPORT_EVERY = 20


def batches(stream: TileStream, batch: int, workers: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Draw batches in the background; the windows are shared with the workers, not copied."""
    return iter(in_background(stream, batch, workers, collate))


class Teachers:
    """Trained detectors of any variant and scale, whose mean opinion of a tile a smaller one learns from."""

    def __init__(self, runs: list[Path], device: torch.device) -> None:
        self.models = [load_detector(run).to(device) for run in runs]

    def __bool__(self) -> bool:
        return bool(self.models)

    @torch.no_grad()
    def probabilities(self, tiles: Tensor) -> Tensor:
        """Return the mean probability of a mitotic figure at each anchor, (B, 1, A), of tiles (B, 3, H, W)."""
        with torch.autocast(tiles.device.type, torch.bfloat16):
            scores = [model(tiles)[1]["scores"] for model in self.models]
        return torch.stack([s.float().sigmoid() for s in scores]).mean(0)


def train_step(
    network: nn.Module,
    model: MitosisDetector,
    optimiser: torch.optim.Optimizer,
    teachers: Teachers,
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
    (box, classes, distribution), _ = model.loss(labels, predictions)  # summed over tiles
    if teachers:
        taught = distillation_loss(predictions["scores"], teachers.probabilities(x)) * model.args.cls * len(tiles)
        classes = (1 - TAUGHT) * classes + TAUGHT * taught
    loss = box + classes + distribution
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimiser.step()
    return float(loss.detach()) / len(tiles)


class Training:
    """A run under way: the network, its averages and where in the schedule it is."""

    def __init__(
        self, model: MitosisDetector, teachers: Teachers, profile: DetectorProfile, hours: float, saved: State | None
    ) -> None:
        """Begin, or take up the run of a checkpoint."""
        self.model, self.teachers, self.profile, self.step = model, teachers, profile, 0
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=profile.learning_rates[0], weight_decay=profile.weight_decay
        )
        self.average = AveragedWeights(model, decay=0.998)
        self.budget = Budget(hours * 3600)
        if saved:
            device = next(model.parameters()).device
            model.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.average.state = {name: value.to(device) for name, value in saved["average"].items()}
            self.average.updates, self.step = saved["updates"], saved["step"]
            self.budget = Budget(hours * 3600, saved["spent_s"])

    @property
    def epoch(self) -> float:
        """Epochs that are over."""
        return self.step * self.profile.batch / self.profile.epoch_tiles

    @property
    def progress(self) -> float:
        """Share of the run that is over, by time or by epochs."""
        return max(self.budget.progress, self.epoch / self.profile.epochs)

    def learn(self, network: nn.Module, tiles: Tensor, labels: dict[str, Tensor], progress: float) -> float:
        """Take one step at the schedule's rate; ``network`` is the model or wraps it. Returns the loss per tile."""
        set_rate(self.optimiser, self.step, self.profile.warm_up_steps, progress, self.profile.learning_rates)
        loss = train_step(network, self.model, self.optimiser, self.teachers, tiles, labels)
        self.average.update(self.model)
        self.step += 1
        return loss

    def state(self) -> State:
        """Return all that a checkpoint needs to take the run up again."""
        return {
            "model": self.model.state_dict(), "average": self.average.state, "updates": self.average.updates,
            "optimiser": self.optimiser.state_dict(), "step": self.step, "spent_s": self.budget.spent_s,
        }  # fmt: skip


class Source:
    """Batches of tiles, of the size and kind that the schedule asks for at each point of the run."""

    def __init__(self, data: Path, profile: DetectorProfile, seed: int, processes: Processes, workers: int) -> None:
        self.windows, self.patches = load_windows(data), load_patches(data) if profile.mix.patches else []
        self.profile, self.seed, self.processes, self.workers = profile, seed, processes, workers
        self.drawn = (0, False)
        self.stream: Iterator[tuple[Tensor, dict[str, Tensor]]] = iter(())

    def draw(self, progress: float, epoch: float, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the next batch of this process."""
        side = SMALL_TILE_PX if progress < self.profile.small_tile_share else TILE_PX
        mosaics = epoch < self.profile.mosaic_epochs
        if (side, mosaics) != self.drawn:
            self.drawn = side, mosaics
            seed = self.seed + step + 7919 * self.processes.rank
            tiles = TileStream(self.windows, self.patches, side, self.profile, seed, mosaics)
            self.stream = batches(tiles, self.profile.batch // self.processes.count, self.workers)
        return next(self.stream)


def main(
    data: Annotated[Path, typer.Option(help="Folder with windows.json and, where the profile asks, patches.csv")],
    run: Annotated[Path, typer.Option(help="Folder for the checkpoint; taken up again if it holds one")],
    profile: Annotated[str, typer.Option(help=f"Settings: {', '.join(DETECTOR_PROFILES)}")] = "paper",
    variant: Annotated[
        str | None, typer.Option(help="stock or improved; default that of --start, else improved")
    ] = None,
    scale: Annotated[str | None, typer.Option(help="n, s, m, l or x; default that of --start, else n")] = None,
    hours: Hours = float("inf"),
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs instead of the profile's")] = None,
    start: Annotated[
        Path | None, typer.Option(help="A bundle whose detector is trained on; else random weights")
    ] = None,
    teacher: Annotated[
        list[Path] | None, typer.Option(help="A finished run of a larger detector to learn from; may be repeated")
    ] = None,
    seed: int = 0,
    workers: Annotated[int, typer.Option(help="Processes that draw tiles, for each that trains")] = 2,
) -> None:
    """Train the detector and leave its averaged weights in RUN/detector.pt."""
    if profile not in DETECTOR_PROFILES:
        raise typer.BadParameter(f"no profile {profile}: choose one of {', '.join(DETECTOR_PROFILES)}")
    settings, processes = DETECTOR_PROFILES[profile], Processes()
    if epochs:
        settings = replace(settings, epochs=epochs)
    torch.manual_seed(seed)
    part, of_part = choose_part(read_bundle(start).description, variant, scale) if start else (None, ("improved", "n"))
    variant, scale = variant or of_part[0], scale or of_part[1]
    model = build(variant, scale, settings)
    about: State = {"variant": variant, "scale": scale, "profile": profile, "epochs": settings.epochs}
    about |= {"teachers": len(teacher or []), "seed": seed}
    path = run / "detector.pt"
    saved = take_up(path, about, start)
    if start and part and not saved:
        print(f"{start_from_bundle(model, start, part):.0%} of the parameters from {start}", flush=True)
    teachers = Teachers(teacher or [], processes.device)
    training = Training(model.to(processes.device), teachers, settings, hours, saved)
    network, recent = processes.wrap(model), 0.0
    source = Source(data, settings, seed, processes, workers)
    while (progress := processes.agree(training.progress)) < 1:
        tiles, labels = source.draw(progress, training.epoch, training.step)
        loss = training.learn(network, tiles, labels, progress)
        recent = 0.95 * recent + 0.05 * loss if recent else loss
        if processes.rank == 0 and training.step % REPORT_EVERY == 0:
            spent_min = training.budget.spent_s / 60
            print(f"step {training.step} tile {source.drawn[0]} loss {recent:.3f} {spent_min:.1f} min", flush=True)
        if processes.rank == 0 and training.step % SAVE_EVERY == 0:
            save_checkpoint(path, about | training.state())
    if processes.rank == 0:
        save_checkpoint(path, about | training.state())
        print(f"done: {training.step} steps in {training.budget.spent_s / 60:.1f} min -> {path}")
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
