"""Stage 2: train ConvNeXt-Tiny on mitoses, look-alikes and stage 1's false positives.

    python -m training.train_classifier --data ../shared/data --run runs/first --profile cpu --hours 0.5

Validation is on stage 1's own candidates on the frames of split val, so that its F1 is the two-stage one up to what
stage 1 missed. The averaged weights of the best epoch, or of the last, are kept. Resumes from its checkpoint when
started again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from mitosis.bundle import read_bundle
from mitosis.errors import InputError
from training.data.crops import NEAR_PX, CropStream, Pools, Spot, other_nuclei, plain
from training.data.images import LOOK_ALIKE, MITOTIC, LabelledWindow, load_frames, load_patches, load_windows
from training.mine_candidates import FILE_NAME as CANDIDATES
from training.networks.convnext import MitosisClassifier
from training.networks.losses import classifier_loss
from training.profiles import CLASSIFIER_PROFILES, ClassifierProfile
from training.schedule import AveragedWeights, Budget, cosine, load_checkpoint, save_checkpoint
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
        [spot for spot, near in mined if not near],
        [spot for patch in patches for spot in other_nuclei(patch)],
    )


def labelled(windows: list[LabelledWindow], category: int) -> list[Spot]:
    """Return the labelled points of one category."""
    return [Spot(w.rgb, point) for w in windows for point in w.points[w.categories == category]]


def candidate_spots(windows: list[LabelledWindow], run: Path, split: str) -> list[tuple[Spot, bool]]:
    """Return stage 1's candidates, each with whether it is a labelled mitosis; doubtful ones are left out."""
    mined: dict[str, list[list[float]]] = json.loads((run / CANDIDATES).read_text())[split]
    spots = []
    for index, rows in mined.items():
        window = windows[int(index)]
        mitoses = window.points[window.categories == MITOTIC]
        for x1, y1, x2, y2, _, near in rows:
            centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2], np.float32)
            touching = bool((np.linalg.norm(mitoses - centre, axis=1) < NEAR_PX).any())
            if touching == bool(near):
                spots.append((Spot(window.rgb, centre, max(x2 - x1, y2 - y1)), touching))
    return spots


class Validation:
    """Stage 1's candidates on split val, and the best F1 that a threshold on stage 2's score gives there."""

    def __init__(self, data: Path, run: Path) -> None:
        windows = load_frames(data, "val")
        spots = candidate_spots(windows, run, "val")
        if not spots:
            raise InputError(f"{run / CANDIDATES}: stage 1 found nothing on split val; train it longer, or --start it")
        self.crops = torch.stack([plain(spot) for spot, _ in spots]).to(memory_format=torch.channels_last)
        self.positive = np.array([positive for _, positive in spots])
        self.mitoses = sum(int((w.categories == MITOTIC).sum()) for w in windows)

        patches = load_patches(data, held_out=True)
        nuclei = [spot for patch in patches for spot in other_nuclei(patch)]
        mitoses = [Spot(patch.rgb, patch.mitoses_px[0]) for patch in patches]
        self.patch_crops = torch.stack([plain(s) for s in mitoses + nuclei]).to(memory_format=torch.channels_last)
        self.patch_mitoses = len(mitoses)

    def f1(self, model: MitosisClassifier) -> float:
        """Return the best F1 over all thresholds; mitoses that stage 1 missed count as missed."""
        return best_f1(margins(model, self.crops), self.positive, self.mitoses)

    def ranking(self, model: MitosisClassifier) -> float:
        """Return how often a mitosis of a held-out patch scores above another nucleus of such patches, 0..1.

        Many laboratories, easy negatives: what falls here is a stain that the network has not understood.
        """
        scores = margins(model, self.patch_crops)
        nuclei = np.sort(scores[self.patch_mitoses :])
        return float(np.searchsorted(nuclei, scores[: self.patch_mitoses]).mean() / max(len(nuclei), 1))


@torch.no_grad()
def margins(model: MitosisClassifier, crops: Tensor) -> NDArray[np.floating]:
    """Return the logit of a mitotic figure less the other, (n,)."""
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        margin = [(logits[:, 1] - logits[:, 0]).float() for logits in map(model, torch.split(crops, 256))]
    model.train()
    return np.asarray(torch.cat(margin).numpy())


def best_f1(scores: NDArray[np.floating], positive: NDArray[np.bool_], mitoses: int) -> float:
    """Return max over thresholds of 2 TP / (kept + mitoses)."""
    tp = np.cumsum(positive[np.argsort(-scores, kind="stable")])
    kept = np.arange(1, len(tp) + 1)
    return float(np.max(2 * tp / (kept + mitoses), initial=0.0))


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
    with torch.autocast("cpu", torch.bfloat16):
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


def main(
    data: Annotated[Path, typer.Option(help="Folder with windows.json, frames.json and patches.csv")],
    run: Annotated[Path, typer.Option(help=f"Folder with {CANDIDATES}; taken up again if it holds a checkpoint")],
    profile: Annotated[str, typer.Option(help=f"Settings: {', '.join(CLASSIFIER_PROFILES)}")] = "paper",
    hours: Annotated[float, typer.Option(help="Wall-clock budget; the schedule fits it")] = float("inf"),
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
    model = MitosisClassifier(architecture, settings.drop_path).train().to(memory_format=torch.channels_last)
    path = run / "classifier.pt"
    saved = load_checkpoint(path)
    if start and not saved:
        print(f"{start_from_bundle(model, start, 'classifier'):.0%} of the parameters from {start}", flush=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rates[0], weight_decay=settings.weight_decay)
    average = AveragedWeights(model, decay=0.998)
    budget, step, best, best_epoch = Budget(hours * 3600), 0, -1.0, 0
    kept = average.state
    if saved:
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average.state, average.updates, step = saved["latest"], saved["updates"], saved["step"]
        best, best_epoch, kept = saved["best"], saved["best_epoch"], saved["average"]
        budget = Budget(hours * 3600, saved["spent_s"])
    rng = np.random.default_rng([seed, step])
    validation = Validation(data, run)
    judged = MitosisClassifier(architecture).to(memory_format=torch.channels_last)  # holds averages for validation
    stream = CropStream(load_pools(data, run), settings, seed + step)
    source = iter(DataLoader(stream, settings.batch, num_workers=workers, prefetch_factor=4 if workers else None))
    steps_per_epoch = settings.epoch_samples // settings.batch
    losses: list[tuple[float, float]] = []
    while (progress := max(budget.progress, step / (settings.epochs * steps_per_epoch))) < 1:
        for group in optimiser.param_groups:
            group["lr"] = min(1.0, (step + 1) / settings.warm_up_steps) * cosine(progress, *settings.learning_rates)
        x, target = next(source)
        losses.append(train_step(model, optimiser, x, target, settings, rng))
        average.update(model)
        step += 1
        last = max(budget.progress, step / (settings.epochs * steps_per_epoch)) >= 1
        if step % steps_per_epoch and not last:
            continue
        epoch = -(-step // steps_per_epoch)
        judged.load_state_dict(average.state)
        f1 = validation.f1(judged)
        if f1 >= best:
            best, best_epoch = f1, epoch
        if best_epoch == epoch or settings.keep_last:
            kept = {name: value.clone() for name, value in average.state.items()}
        loss, right = np.mean(losses, axis=0)
        losses.clear()
        print(
            f"epoch {epoch} step {step} loss {loss:.3f} right {right:.3f} val F1 {f1:.3f} (best {best:.3f}) "
            f"held-out patches {validation.ranking(judged):.3f} "
            f"{budget.spent_s / 60:.1f} min",
            flush=True,
        )
        state: dict[str, object] = {"architecture": architecture, "average": kept, "latest": average.state}
        state |= {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "updates": average.updates}
        state |= {"best": best, "best_epoch": best_epoch, "step": step, "spent_s": budget.spent_s, "seed": seed}
        save_checkpoint(path, state)
        if epoch - best_epoch >= settings.patience:
            break
    print(
        f"done: {step} steps in {budget.spent_s / 60:.1f} min, best val F1 {best:.3f} at epoch {best_epoch} -> {path}"
    )


if __name__ == "__main__":
    typer.run(main)
