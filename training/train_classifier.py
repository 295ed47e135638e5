"""Stage 2: train ConvNeXt-Tiny on mitoses, look-alikes and stage 1's false positives.

    python -m training.train_classifier --data ../shared/data --run runs/first --profile cpu --hours 0.5

Validation is on stage 1's own candidates on the frames of split val, so that its F1 is the two-stage one up to what
stage 1 missed. The averaged weights of the best epoch, or of the last, are kept. Resumes from its checkpoint when
started again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from mitosis.bundle import read_bundle
from training.data.crops import CropStream, Pools, Spot, other_nuclei
from training.data.images import LOOK_ALIKE, MITOTIC, LabelledWindow, load_patches, load_windows
from training.mine_candidates import FILE_NAME as CANDIDATES
from training.networks.convnext import MitosisClassifier
from training.networks.losses import classifier_loss
from training.profiles import CLASSIFIER_PROFILES, ClassifierProfile
from training.schedule import (
    AveragedWeights,
    Budget,
    Hours,
    State,
    in_background,
    save_checkpoint,
    set_rate,
    take_up,
)
from training.validation import NO_MITOSIS, Validation, candidate_spots
from training.warm_start import start_from_bundle


def load_pools(data: Path, run: Path) -> Pools:
    """Gather what stage 2 learns from; the mined candidates are required."""
    windows = load_windows(data)
    mined = candidate_spots(windows, run, "train")
    patches = load_patches(data)
    return Pools(
        labelled(windows, MITOTIC),
        patches,
        labelled(windows, LOOK_ALIKE),
        [spot for spot, shown in mined if shown == NO_MITOSIS],
        [spot for patch in patches for spot in other_nuclei(patch)],
    )


def labelled(windows: list[LabelledWindow], category: int) -> list[Spot]:
    """Return the labelled points of one category."""
    return [Spot(w.rgb, point, origin=w.origin) for w in windows for point in w.points[w.categories == category]]


def train_step(
    model: MitosisClassifier,
    optimiser: torch.optim.Optimizer,
    x: Tensor,
    target: Tensor,
    profile: ClassifierProfile,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """One step in bf16 autocast with the loss in fp32; returns the loss and the share of right answers."""
    other, weight = torch.arange(len(x)), 1.0
    if rng.random() < profile.mixup:
        other, weight = torch.from_numpy(rng.permutation(len(x))), float(rng.random())
        x = weight * x + (1 - weight) * x[other]
    device = next(model.parameters()).device
    x, target, other = (tensor.to(device) for tensor in (x, target, other))
    with torch.autocast(device.type, torch.bfloat16):
        logits, features = model.with_features(x.contiguous(memory_format=torch.channels_last))
    logits, features = logits.float(), features.float()
    loss = weight * classifier_loss(logits, features, target, profile.contrastive)
    if weight < 1:
        loss = loss + (1 - weight) * classifier_loss(logits, features, target[other], profile.contrastive)
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimiser.step()
    return float(loss.detach()), float((logits.argmax(1) == target).float().mean())


class Training:
    """A run under way: the network, its averages and where in the schedule it is."""

    def __init__(self, model: MitosisClassifier, profile: ClassifierProfile, hours: float, saved: State | None) -> None:
        """Begin, or take up the run of a checkpoint."""
        self.model, self.profile = model, profile
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=profile.learning_rates[0], weight_decay=profile.weight_decay
        )
        self.average = AveragedWeights(model, decay=0.998)
        self.kept, self.step, self.best, self.best_epoch = self.average.state, 0, -1.0, 0
        self.budget = Budget(hours * 3600)
        if saved:
            device = next(model.parameters()).device
            model.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.average.state = {name: value.to(device) for name, value in saved["latest"].items()}
            self.average.updates, self.step, self.kept = saved["updates"], saved["step"], saved["average"]
            self.best, self.best_epoch = saved["best"], saved["best_epoch"]
            self.budget = Budget(hours * 3600, saved["spent_s"])

    @property
    def progress(self) -> float:
        """Share of the run that is over, by time or by epochs; 1 too when validation has not improved for long."""
        profile = self.profile
        if self.epoch - self.best_epoch >= profile.patience:
            return 1.0
        return max(self.budget.progress, self.step * profile.batch / (profile.epochs * profile.epoch_samples))

    @property
    def epoch(self) -> int:
        """Epochs that are over."""
        return self.step // (self.profile.epoch_samples // self.profile.batch)

    def learn(self, x: Tensor, target: Tensor, rng: np.random.Generator) -> tuple[float, float]:
        """Take one step at the schedule's rate; returns the loss and the share of right answers."""
        set_rate(self.optimiser, self.step, self.profile.warm_up_steps, self.progress, self.profile.learning_rates)
        result = train_step(self.model, self.optimiser, x, target, self.profile, rng)
        self.average.update(self.model)
        self.step += 1
        return result

    def judge(self, f1: float) -> None:
        """Note the averaged weights' F1 on split val, and keep them where the profile says so."""
        better = f1 > self.best
        if better:
            self.best, self.best_epoch = f1, self.epoch
        if better or self.profile.keep_last:
            self.kept = {name: value.clone() for name, value in self.average.state.items()}

    def state(self) -> State:
        """Return all that a checkpoint needs to take the run up again."""
        return {
            "average": self.kept, "latest": self.average.state, "updates": self.average.updates,
            "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step,
            "best": self.best, "best_epoch": self.best_epoch, "spent_s": self.budget.spent_s,
        }  # fmt: skip


def crop_batches(data: Path, run: Path, profile: ClassifierProfile, seed: int, workers: int) -> Iterator[list[Tensor]]:
    """Draw batches of crops and classes in the background, for ever."""
    stream = CropStream(load_pools(data, run), profile, seed)
    return iter(in_background(stream, profile.batch, workers))


def main(
    data: Annotated[Path, typer.Option(help="Folder with windows.json, frames.json and patches.csv")],
    run: Annotated[Path, typer.Option(help=f"Folder with {CANDIDATES}; taken up again if it holds a checkpoint")],
    profile: Annotated[str, typer.Option(help=f"Settings: {', '.join(CLASSIFIER_PROFILES)}")] = "paper",
    hours: Hours = float("inf"),
    architecture: Annotated[
        str | None, typer.Option(help="A ConvNeXt of timm's; default that of --start, else convnext_tiny")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="A bundle whose classifier is trained on; else random weights")
    ] = None,
    seed: int = 0,
    workers: int = 1,
) -> None:
    """Train the classifier and leave the averaged weights of the profile's choice of epoch in RUN/classifier.pt."""
    if profile not in CLASSIFIER_PROFILES:
        raise typer.BadParameter(f"no profile {profile}: choose one of {', '.join(CLASSIFIER_PROFILES)}")
    settings = CLASSIFIER_PROFILES[profile]
    architecture = architecture or (
        read_bundle(start).description.classifier.architecture if start else "convnext_tiny"
    )
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = MitosisClassifier(architecture, settings.drop_path).train().to(memory_format=torch.channels_last)
    path = run / "classifier.pt"
    about = {"architecture": architecture, "profile": profile, "seed": seed}
    saved = take_up(path, about, start)
    if start and not saved:
        print(f"{start_from_bundle(model, start, 'classifier'):.0%} of the parameters from {start}", flush=True)
    training = Training(model.to(device), settings, hours, saved)
    rng = np.random.default_rng([seed, training.step])
    validation = Validation(data, run)
    judged = MitosisClassifier(architecture).to(device).to(memory_format=torch.channels_last)  # holds the averages
    source = crop_batches(data, run, settings, seed + training.step, workers)
    losses: list[tuple[float, float]] = []
    while training.progress < 1:
        x, target = next(source)
        losses.append(training.learn(x, target, rng))
        if training.step % (settings.epoch_samples // settings.batch) and training.progress < 1:
            continue
        judged.load_state_dict(training.average.state)
        f1, (loss, right) = validation.f1(judged), np.mean(losses, axis=0)
        training.judge(f1)
        losses.clear()
        print(
            f"epoch {training.epoch} step {training.step} loss {loss:.3f} right {right:.3f} "
            f"val F1 {f1:.3f} (best {training.best:.3f}) held-out patches {validation.ranking(judged):.3f} "
            f"{training.budget.spent_s / 60:.1f} min",
            flush=True,
        )
        save_checkpoint(path, about | training.state())
    found = f"best val F1 {training.best:.3f} at epoch {training.best_epoch}"
    print(f"done: {training.step} steps in {training.budget.spent_s / 60:.1f} min, {found} -> {path}")


if __name__ == "__main__":
    typer.run(main)
