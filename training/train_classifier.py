"""Stage 2: train ConvNeXt-Tiny on mitoses, look-alikes and stage 1's false positives, under a wall-clock budget.

python -m training.train_classifier --data ../shared/data --run runs/first --hours 0.3
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch.utils.data import DataLoader

from training.data.crops import CropStream, Pools, Spot
from training.data.images import LOOK_ALIKE, MITOTIC, LabelledWindow, load_patches, load_windows
from training.networks.convnext import MitosisClassifier
from training.networks.losses import classifier_loss
from training.schedule import AveragedWeights, Budget, cosine, load_checkpoint, save_checkpoint

BATCH = 128
LEARNING_RATES = (3e-4, 1e-6)  # the paper's, cosine
WARM_UP_STEPS = 100
WEIGHT_DECAY = 1e-5  # the paper's
SAVE_EVERY = 50  # steps


def load_pools(data: Path, run: Path) -> Pools:
    """Gather what stage 2 learns from; the mined false positives are required."""
    windows = load_windows(data)
    mined: dict[str, list[list[float]]] = json.loads((run / "false_positives.json").read_text())
    false_positives = [
        Spot(windows[int(index)].rgb, np.array([(x1 + x2) / 2, (y1 + y2) / 2], np.float32), max(x2 - x1, y2 - y1))
        for index, boxes in mined.items()
        for x1, y1, x2, y2, _ in boxes
    ]
    return Pools(spots(windows, MITOTIC), load_patches(data), spots(windows, LOOK_ALIKE), false_positives)


def spots(windows: list[LabelledWindow], category: int) -> list[Spot]:
    """Return the labelled points of one category."""
    return [Spot(w.rgb, point) for w in windows for point in w.points[w.categories == category]]


def main(
    data: Annotated[Path, typer.Option(help="Folder with windows.json and patches.csv")],
    run: Annotated[
        Path, typer.Option(help="Folder with false_positives.json; taken up again if it holds a checkpoint")
    ],
    hours: Annotated[float, typer.Option(help="Wall-clock budget; the schedule fits it")] = 0.3,
    architecture: str = "convnext_tiny",
    seed: int = 0,
    workers: int = 2,
) -> None:
    """Train the classifier and leave its averaged weights in RUN/classifier.pt."""
    torch.manual_seed(seed)
    model = MitosisClassifier(architecture).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATES[0], weight_decay=WEIGHT_DECAY)
    average = AveragedWeights(model, decay=0.998)
    budget, step, recent = Budget(hours * 3600), 0, 0.0
    path = run / "classifier.pt"
    if saved := load_checkpoint(path):
        model.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        average.state, average.updates, step = saved["average"], saved["updates"], saved["step"]
        budget = Budget(hours * 3600, saved["spent_s"])
    source = iter(DataLoader(CropStream(load_pools(data, run), seed + step), BATCH, num_workers=workers))

    def save() -> None:
        state: dict[str, object] = {"architecture": architecture, "model": model.state_dict(), "average": average.state}
        state |= {"optimiser": optimiser.state_dict(), "updates": average.updates}
        save_checkpoint(path, state | {"step": step, "spent_s": budget.spent_s, "seed": seed})

    while budget.progress < 1:
        for group in optimiser.param_groups:
            group["lr"] = min(1.0, (step + 1) / WARM_UP_STEPS) * cosine(budget.progress, *LEARNING_RATES)
        x, target = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            logits, features = model.with_features(x.to(memory_format=torch.channels_last))
        loss = classifier_loss(logits.float(), features.float(), target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        average.update(model)
        step += 1
        recent = float(loss) if step == 1 else 0.95 * recent + 0.05 * float(loss)
        if step % 20 == 0:
            right = float((logits.argmax(1) == target).float().mean())
            print(f"step {step} loss {recent:.3f} right {right:.2f} {budget.spent_s / 60:.1f} min", flush=True)
        if step % SAVE_EVERY == 0:
            save()
    save()
    print(f"done: {step} steps in {budget.spent_s / 60:.1f} min -> {path}")


if __name__ == "__main__":
    typer.run(main)
