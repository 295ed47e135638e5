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
from itertools import groupby
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mitosis.bundle import read_bundle
from mitosis.config import Config
from mitosis.evaluation import RADIUS_UM
from mitosis.labels import read_labels
from mitosis.output.gallery import Cell, Verdicts, cut_cells, sheet
from mitosis.output.overlay import write_png
from mitosis.pipeline import load_model
from mitosis.slide import open_slide
from training.data.images import LOOK_ALIKE, distance_to_edge, labelled_points, stated_size
from training.data.importers import NAMES
from training.evidence import detect_all, merge_all
from training.metrics import average_precision
from training.mine_candidates import EDGE_PX
from training.scored import STAGE_1_ALONE, STAGE_2_ALONE, Scored, f1_curve, images_of, keeping_all

TITLES = {"FP": "labelled look-alikes that score as mitotic figures", "FN": "labelled mitotic figures that do not"}


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
    points, categories = labelled_points(image)
    probability = np.zeros(len(points))
    if len(points):
        distance_um = np.linalg.norm(scored.points_px[:, None] - points[None], axis=2) * image.spacing_um
        near = distance_um.min(axis=1) <= RADIUS_UM
        np.maximum.at(probability, distance_um.argmin(axis=1)[near], scored.scores[near])
    return [
        Label(path, image.spacing_um, int(category), (float(x), float(y)), float(p))
        for category, (x, y), p in zip(categories, points, probability, strict=True)
    ]


def without_the_edge(scored: Scored, size_px: tuple[int, int]) -> Scored:
    """Leave false positives at a window's edge out: what they show may be labelled in its neighbour alone."""
    kept = scored.positive | (distance_to_edge(scored.points_px, size_px) >= EDGE_PX)
    return Scored(scored.image, scored.points_px[kept], scored.scores[kept])


def describe(scored: list[Scored]) -> str:
    """Return average precision and the best F1 over all thresholds, as cells of a table."""
    return f"{average_precision(scored):.3f} | {np.nan_to_num(f1_curve(scored)).max():.3f}"


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
    for path, group in groupby(sorted(labels, key=lambda one: one.path), key=lambda one: one.path):
        some = list(group)
        kinds = ["FP" if one.category == LOOK_ALIKE else "FN" for one in some]
        scores = np.array([one.probability or np.nan for one in some])
        with open_slide(path, some[0].spacing_um) as slide:
            cells += cut_cells(slide, Verdicts(np.array([one.point_px for one in some]), kinds, scores))
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

    rankings = {"stage 1": STAGE_1_ALONE, "stage 2": STAGE_2_ALONE, "both": about.calibration or STAGE_2_ALONE}
    sizes_px = [stated_size(path) for path in paths]

    print("| set | candidates ranked by | AP | best F1 |\n|---|---|---|---|")
    for name, calibration in rankings.items():
        train, val = (
            [f.scored(f.rows["probability"]) for f in merge_all(found[key], calibration, keep_all)]
            for key in ("train", "val")
        )
        counted = [without_the_edge(one, size_px) for one, size_px in zip(train, sizes_px, strict=True)]
        for key, images in (("train", counted), ("val", val)):
            print(f"| {key} | {name} | {describe(images)} |")

    # of the last ranking, by both stages
    labels = [label for one, path in zip(train, paths, strict=True) for label in labels_of(one, path)]
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
