"""Learns how the threshold should follow a slide's stain and content, on the frames of split val alone.

Each frame is judged as it is and as several simulated laboratories would show it, one of its own for each picture. A
logistic model of "is a mitosis" in the calibrated probability and the slide's features says how far the same
probability means less on one slide than on another; the threshold moves so that it always means the same. The bundle's
own threshold stays that of an average slide, so run this after training.calibrate.

    python -m training.adapt_threshold --data ../shared/data --bundle model

Writes the part ``adaptive`` into bundle.yaml, unless F1 on frames that were left out does not rise. What it does to
other cases is then measured with `mitosis detect --adaptive-threshold` and `mitosis evaluate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from sklearn.linear_model import LogisticRegression

from mitosis.adaptive import slide_features
from mitosis.bundle import Adaptive, FeatureName, FeatureWeight
from mitosis.calibration import logits
from mitosis.evaluation import Counts
from mitosis.labels import LabelledImage
from mitosis.pipeline import Model, detect
from mitosis.slide import open_slide
from training.calibrate import SIMULATED_STRENGTH, Found
from training.data.augmentation import jitter_sharpness, jitter_stain
from training.data.images import read_rgb

NAMES: tuple[FeatureName, ...] = get_args(FeatureName)
LABORATORIES = 6  # for each frame, all different
FOLDS = 7
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # C of the ridge, over the mean log-loss of one candidate a picture
SMALLEST_SPREAD = 0.02  # a feature that hardly varies here teaches nothing about slides where it does
REACH = 2.0  # standard deviations

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """One picture of a frame: its candidates, and the features of the slide that it stands for."""

    found: Found
    features: dict[FeatureName, float]

    def counts(self, threshold: float) -> Counts:
        """Match what reaches the threshold as the challenge does."""
        return self.found.counts(self.found.rows["probability"] >= threshold)


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
                simulated = jitter_sharpness(rng, jitter_stain(rng, rgb, SIMULATED_STRENGTH))
                cv2.imwrite(str(picture), simulated[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 1))
                views.append(look(model, picture, image))
    return views


def learn(views: list[View], penalty: float) -> Adaptive:
    """Fit the weights by ridge logistic regression; every picture weighs the same, however many candidates it has."""
    table = np.array([[view.features[name] for name in NAMES] for view in views])  # (views, features)
    mean, scale = table.mean(axis=0), table.std(axis=0)
    taught = scale > SMALLEST_SPREAD
    scale = np.where(taught, scale, 1.0)
    z = ((table - mean) / scale).clip(-REACH, REACH) * taught
    sizes = [len(view.found.rows) for view in views]
    logit = logits(np.concatenate([view.found.rows["probability"] for view in views]))
    x = np.column_stack([logit / logit.std(), np.repeat(z, sizes, axis=0)])
    positive = np.concatenate([view.found.positive for view in views])
    weight = np.repeat([1 / max(size, 1) for size in sizes], sizes)
    slope, *weights = LogisticRegression(C=penalty).fit(x, positive, weight).coef_[0]
    slope /= logit.std()
    return Adaptive(
        reach=REACH,
        features={
            name: FeatureWeight(mean=round(m, 4), scale=round(s, 4), weight=round(-float(w) / max(slope, 1e-3), 4))
            for name, m, s, w, keep in zip(NAMES, mean.tolist(), scale.tolist(), weights, taught, strict=True)
            if keep
        },
    )
