"""Labels that a trained bundle contradicts though it has learnt them: wrong ones, or nuclei beyond its networks.

    python -m training.doubtful_labels --data ../shared/data --bundle model --output doubtful

Where the networks do no better on the windows that they were trained on than on split val, more cases would help less
than clearer labels or longer training; where they do much better, they have learnt their windows by heart. Prints both,
and writes OUTPUT/labels.csv, every label of the windows with its probability, the most doubtful first, and
OUTPUT/labels.png: look-alikes from the bundle's threshold on and mitotic figures below it. An object in two overlapping
windows is two labels.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from mitosis.bundle import Calibration, read_bundle
from mitosis.config import Config
from mitosis.evaluation import RADIUS_UM
from mitosis.labels import read_labels
from mitosis.output.gallery import Cell, Verdicts, cut_cells, sheet
from mitosis.output.overlay import write_png
from mitosis.pipeline import load_model
from mitosis.slide import open_slide
from training.data.images import BOX_PX, LOOK_ALIKE, MITOTIC, stated_size
from training.evidence import detect_all, merge_all
from training.metrics import average_precision
from training.scored import Scored, curve, images_of, keeping_all

ALONE = {
    "stage 1": Calibration(detector_weight=1, classifier_weight=0, bias=0),
    "stage 2": Calibration(detector_weight=0, classifier_weight=1, bias=0),
}
TITLES = {"FP": "labelled look-alikes that score as mitotic figures", "FN": "labelled mitotic figures that do not"}
NAMES = {MITOTIC: "mitotic figure", LOOK_ALIKE: "not mitotic figure"}


@dataclass(frozen=True)
class Label:
    """A label of a window, ``point_px`` in its pixels, and the probability of the candidate on it, 0 without one."""

    path: Path
    spacing_um: float
    category: int
    point_px: tuple[float, float]
    probability: float

    @property
    def doubt(self) -> float:
        """How far the probability is from what the label says, 0..1."""
        return self.probability if self.category == LOOK_ALIKE else 1 - self.probability

    def doubtful(self, threshold: float) -> bool:
        """Tell whether the label would be a false positive or a miss."""
        return (self.probability >= threshold) == (self.category == LOOK_ALIKE)


def labels_of(scored: Scored, path: Path) -> list[Label]:
    """Return an image's labels. A candidate belongs to the label nearest to it, within the challenge's radius."""
    image = scored.image
    points = np.concatenate([image.mitotic_figures_px, image.look_alikes_px])
    categories = [MITOTIC] * len(image.mitotic_figures_px) + [LOOK_ALIKE] * len(image.look_alikes_px)
    probability = np.zeros(len(points))
    if len(points):
        distance_um = np.linalg.norm(scored.points_px[:, None] - points[None], axis=2) * image.spacing_um
        near = distance_um.min(axis=1) <= RADIUS_UM
        np.maximum.at(probability, distance_um.argmin(axis=1)[near], scored.scores[near])
    return [
        Label(path, image.spacing_um, category, (float(x), float(y)), float(p))
        for category, (x, y), p in zip(categories, points, probability, strict=True)
    ]


def without_the_edge(scored: Scored, path: Path) -> Scored:
    """Leave false positives at a window's edge out: what they show may be labelled in its neighbour alone."""
    to_edge = np.minimum(scored.points_px, np.array(stated_size(path)) - 1 - scored.points_px).min(
        axis=1, initial=np.inf
    )
    kept: NDArray[np.bool_] = scored.positive | (to_edge >= BOX_PX / 2)
    return Scored(scored.image, scored.points_px[kept], scored.scores[kept])


def describe(scored: list[Scored]) -> str:
    """Return average precision and the best F1 over all thresholds, as cells of a table."""
    f1 = np.nan_to_num([c.f1 for c in curve(scored, np.arange(0.01, 1.0, 0.01))])
    return f"{average_precision(scored):.3f} | {f1.max():.3f}"


def write_labels(path: Path, labels: list[Label]) -> None:
    """Write a line for each label."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "x_px", "y_px", "label", "probability"])
        writer.writerows(
            [one.path, *(f"{v:.1f}" for v in one.point_px), NAMES[one.category], f"{one.probability:.4f}"]
            for one in labels
        )


def cells_of(labels: list[Label]) -> list[Cell]:
    """Cut the labels' neighbourhoods out of their windows."""
    cells = []
    for one in labels:
        kind = "FP" if one.category == LOOK_ALIKE else "FN"
        verdict = Verdicts(np.array([one.point_px]), [kind], np.array([one.probability or np.nan]))
        with open_slide(one.path, one.spacing_um) as slide:
            cells += cut_cells(slide, verdict)
    return cells


def main(
    data: Annotated[Path, typer.Option(help="Folder with windows.json, which the bundle learnt from, and frames.json")],
    bundle: Annotated[Path, typer.Option(help="The trained and calibrated bundle")],
    output: Annotated[Path, typer.Option(help="Folder for labels.csv and labels.png")],
) -> None:
    """Hold the training labels against what the bundle makes of them; prints a table."""
    about = read_bundle(bundle).description
    usual = Config().at(about.operating_point)
    threshold, keep_all = usual.classifier_threshold, keeping_all(usual)
    model = load_model(bundle, config=keep_all)
    windows = read_labels(data / "windows.json", "train")
    paths = [data / "windows" / image.file_name for image in windows]
    found = {"train": detect_all(model, windows, paths), "val": detect_all(model, *images_of(data, "val"))}

    print("| set | candidates ranked by | AP | best F1 |\n|---|---|---|---|")
    labels: list[Label] = []
    for name, calibration in (ALONE | {"both": about.calibration or ALONE["stage 2"]}).items():
        for key, images in found.items():
            scored = [f.scored(f.rows["probability"]) for f in merge_all(images, calibration, keep_all)]
            if key == "train":
                labels = [one for s, path in zip(scored, paths, strict=True) for one in labels_of(s, path)]
                scored = [without_the_edge(s, path) for s, path in zip(scored, paths, strict=True)]
            print(f"| {key} | {name} | {describe(scored)} |")

    labels.sort(key=lambda one: -one.doubt)
    doubtful = [one for one in labels if one.doubtful(threshold)]
    for category, name in NAMES.items():
        every, chosen = ([one for one in some if one.category == category] for some in (labels, doubtful))
        print(f"{len(chosen)} of {len(every)} labels '{name}' are on the wrong side of the threshold {threshold:.2f}")
    output.mkdir(parents=True, exist_ok=True)
    write_labels(output / "labels.csv", labels)
    write_png(output / "labels.png", sheet(cells_of(doubtful), TITLES), "--output")


if __name__ == "__main__":
    typer.run(main)
