"""Learns how the threshold should follow a slide's stain and content, on the frames of split val alone.

Each frame is judged as it is and as several simulated laboratories would show it, one of its own for each picture. A
logistic model of "is a mitosis" in the calibrated probability and the slide's features says how far the same
probability means less on one slide than on another; the threshold moves so that it always means the same. The bundle's
own threshold stays that of an average slide, so run this after training.calibrate.

    python -m training.adapt_threshold --data ../shared/data --bundle model

Writes the part ``adaptive`` into bundle.yaml, or removes an older one where F1 on frames that were left out does not
rise. What it does to other cases is then measured with `mitosis detect --adaptive-threshold` and `mitosis evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, get_args

import cv2
import numpy as np
import typer
import yaml
from numpy.typing import NDArray
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold

from mitosis.adaptive import adapted_threshold, slide_features
from mitosis.bundle import DESCRIPTION, Adaptive, FeatureName, FeatureWeight, read_bundle
from mitosis.calibration import logits
from mitosis.config import Config
from mitosis.evaluation import Counts
from mitosis.labels import LabelledImage, read_labels
from mitosis.pipeline import Model, detect, load_model
from mitosis.slide import open_slide
from training.data.images import read_rgb
from training.evidence import Found, as_elsewhere
from training.scored import keeping_all

NAMES: tuple[FeatureName, ...] = get_args(FeatureName)
LABORATORIES = 6  # for each frame, all different
FOLDS = 7
PENALTIES = (0.01, 0.1, 1.0)  # C of the ridge; the best on left-out frames is taken
SMALLEST_SPREAD = 0.005  # a feature that hardly varies here teaches nothing about slides where it does
REACH = 2.0  # standard deviations

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """One picture of a frame: its candidates, and the features of the slide that it stands for."""

    found: Found
    features: dict[FeatureName, float]

    def counts(self, threshold: float) -> Counts:
        """Match what reaches the threshold as the challenge does."""
        return self.found.scored(self.found.rows["probability"]).counts(threshold)


def look(model: Model, path: Path, image: LabelledImage) -> View:
    """Detect on one picture, keeping all candidates."""
    with open_slide(path, image.spacing_um) as slide:
        return View(Found(image, detect(slide, model)), slide_features(slide))


def look_at_all(model: Model, folder: Path, images: list[LabelledImage]) -> list[View]:
    """Detect on every frame as it is and in its simulated laboratories."""
    views = []
    with TemporaryDirectory() as temporary:
        picture = Path(temporary) / "picture.png"
        for number, image in enumerate(track(images, "frames")):
            views.append(look(model, folder / image.file_name, image))
            rgb = read_rgb(folder / image.file_name)
            for laboratory in range(LABORATORIES):
                rng = np.random.default_rng([number, laboratory])
                cv2.imwrite(str(picture), as_elsewhere(rng, rgb)[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 1))
                views.append(look(model, picture, image))
    return views


def fit(views: list[View], penalty: float) -> tuple[Adaptive, LogisticRegression]:
    """Fit the weights by ridge logistic regression; returns them as thresholds' shifts, and the regression itself."""
    table = np.array([[view.features[name] for name in NAMES] for view in views])  # (views, features)
    mean, scale = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-3)
    taught = table.std(axis=0) > SMALLEST_SPREAD
    features = {
        name: FeatureWeight(mean=float(m), scale=float(s), weight=0.0)
        for name, m, s, keep in zip(NAMES, mean, scale, taught, strict=True)
        if keep
    }
    blank = Adaptive(reach=REACH, features=features)
    x, positive = inputs(views, blank)
    regression = LogisticRegression(C=penalty).fit(x, positive)
    slope, *weights = regression.coef_[0].tolist()
    learnt = {
        name: FeatureWeight(
            mean=round(about.mean, 4), scale=round(about.scale, 4), weight=round(-w / max(slope, 1e-3), 4)
        )
        for (name, about), w in zip(features.items(), weights, strict=True)
    }
    return Adaptive(reach=REACH, features=learnt), regression


def inputs(views: list[View], part: Adaptive) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the regression's inputs, a row for each candidate, and which candidates are mitoses.

    The probability's logit, and the standardised features of the candidate's slide.
    """
    sizes = [len(view.found.rows) for view in views]
    z = [[part.standardised(name, view.features[name]) for name in part.features] for view in views]
    logit = logits(np.concatenate([view.found.rows["probability"] for view in views]))
    x = np.column_stack([logit, np.repeat(np.array(z).reshape(len(views), -1), sizes, axis=0)])
    return x, np.concatenate([view.found.positive for view in views])


def folds(views: list[View]) -> list[tuple[Indices, Indices]]:
    """Divide the views by frames into (seen, left out); none where a part would hold candidates of one class only."""
    frames = [view.found.image.file_name for view in views]
    if (count := min(FOLDS, len(set(frames)))) < 2:
        return []
    parts = list(GroupKFold(count).split(views, groups=frames))
    mitoses = [view.found.positive for view in views]
    enough = all(len(np.unique(np.concatenate([mitoses[i] for i in seen]))) == 2 for seen, _ in parts)
    return parts if enough else []


def left_out(views: list[View], penalty: float, threshold: float) -> tuple[float, Counts]:
    """Return the log-loss and the counts at adapted thresholds, from fits that did not see the frame."""
    losses, counts = [], Counts()
    for seen, unseen in folds(views):
        part, regression = fit([views[i] for i in seen], penalty)
        hidden = [views[i] for i in unseen]
        x, positive = inputs(hidden, part)
        if len(x):
            losses.append(log_loss(positive, regression.predict_proba(x)[:, 1], labels=[False, True]) * len(x))
        counts += sum((v.counts(adapted_threshold(threshold, v.features, part)) for v in hidden), Counts())
    return sum(losses) / sum(len(view.found.rows) for view in views), counts


def write(bundle: Path, part: Adaptive | None) -> bool:
    """Put the part into the bundle's description, None for none; returns whether it had one."""
    description = yaml.safe_load((bundle / DESCRIPTION).read_text())
    older = description.pop("adaptive", None)
    if part:
        description["adaptive"] = part.model_dump()
    (bundle / DESCRIPTION).write_text(yaml.safe_dump(description, sort_keys=False))
    return older is not None


def say(name: str, counts: Counts) -> None:
    """Print one line of counts."""
    print(f"{name}: TP {counts.tp} FP {counts.fp} FN {counts.fn}, F1 {counts.f1:.3f}")


def main(
    data: Annotated[Path, typer.Option(help="Folder with frames.json and frames/")],
    bundle: Annotated[Path, typer.Option(help="A calibrated bundle; its bundle.yaml is rewritten")],
    anyway: Annotated[bool, typer.Option("--anyway", help="Write the part even where it does not help")] = False,
) -> None:
    """Learn on split val, judge on left-out frames of it, and write the part where it helps."""
    usual = Config().at(read_bundle(bundle).description.operating_point)
    threshold = usual.classifier_threshold
    model = load_model(bundle, config=keeping_all(usual))
    views = look_at_all(model, data / "frames", read_labels(data / "frames.json", "val"))
    if not folds(views):
        print("too few frames or candidates on val to learn from: nothing was written")
        return
    tried = {penalty: left_out(views, penalty, threshold) for penalty in PENALTIES}
    penalty = min(PENALTIES, key=lambda c: tried[c][0])
    part, _ = fit(views, penalty)
    for name, about in part.features.items():
        print(f"{name}: mean {about.mean:.3f}, spread {about.scale:.3f}, weight {about.weight:+.3f} logits")
    if without := [name for name in NAMES if name not in part.features]:
        print(f"not learnt, as they hardly vary here: {', '.join(without)}")
    fixed, moved = sum((view.counts(threshold) for view in views), Counts()), tried[penalty][1]
    say(f"fixed threshold {threshold:.2f}, val and {LABORATORIES} simulated laboratories a frame", fixed)
    say(f"adapted (C {penalty:g}), the same, left-out frames", moved)
    helps = np.nan_to_num(moved.f1) > np.nan_to_num(fixed.f1)
    if not (helps or anyway):
        removed = write(bundle, None)
        print(f"it does not help: {'the older part was removed' if removed else 'nothing was written'}")
        return
    write(bundle, part)
    print(f"written to {bundle / DESCRIPTION}")


if __name__ == "__main__":
    typer.run(main)
