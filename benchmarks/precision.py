"""F1 under each arithmetic: the same frames, labels and thresholds, in bf16, in fp32, and with an 8-bit bundle.

    python -m benchmarks.precision --data ../shared/data [--model model] [--model model-int8]

Each line is scored at the bundle's own threshold as the challenge does, and over all thresholds: a single label more or
less changes F1 at one threshold by up to 0.02 on a set this small. Times are those of the detection alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from mitosis.cpu import CpuUse, Precision
from mitosis.detections import centres_px
from mitosis.evaluation import Counts, match
from mitosis.labels import LabelledImage, read_labels
from mitosis.pipeline import Model, detect, load_model
from mitosis.slide import open_slide

ROOT = Path(__file__).parents[1]
SETS = {
    "val": ("frames", "frames.json", "val"),
    "test": ("frames", "frames.json", "test"),
    "aperio": ("aperio", "aperio.json", None),
}
DEFAULT_MODELS, DEFAULT_SETS = [ROOT / "model"], ["test"]
THRESHOLDS = np.arange(0.02, 0.99, 0.02).round(2)


@dataclass(frozen=True)
class Scored:
    """One image's labels with all its candidates: centres (n, 2) in its pixels, probabilities (n,)."""

    image: LabelledImage
    points_px: NDArray[np.float64]
    probability: NDArray[np.float64]

    def counts(self, threshold: float) -> Counts:
        """Match what reaches the threshold as the challenge does."""
        um = self.image.spacing_um
        return match(self.image.mitotic_figures_px * um, self.points_px[self.probability >= threshold] * um)


@dataclass(frozen=True)
class Result:
    """One arithmetic on one set."""

    title: str
    scored: list[Scored]
    threshold: float
    seconds: float

    def f1_at(self, threshold: float) -> float:
        """Return the F1 of the summed counts."""
        return float(np.nan_to_num(self.counts(threshold).f1))

    def counts(self, threshold: float) -> Counts:
        """Sum the counts of all images."""
        return sum((one.counts(threshold) for one in self.scored), Counts())


def run_on(model: Model, title: str, folder: Path, images: list[LabelledImage]) -> Result:
    """Detect on all images of a set."""
    scored, started_s = [], time.perf_counter()
    for image in images:
        with open_slide(folder / image.file_name, image.spacing_um) as slide:
            rows = detect(slide, model)
        scored.append(Scored(image, centres_px(rows), rows["probability"].astype(np.float64)))
    return Result(title, scored, model.config.classifier_threshold, time.perf_counter() - started_s)


def line(name: str, result: Result, reference: Result) -> str:
    """Return one line of the table; differences are to ``reference``."""
    c, f1 = result.counts(result.threshold), result.f1_at(result.threshold)
    over_all = [result.f1_at(float(t)) - reference.f1_at(float(t)) for t in THRESHOLDS]
    cells = [name, result.title, str(c.tp), str(c.fp), str(c.fn), f"{f1:.3f}"]
    cells += [f"{f1 - reference.f1_at(reference.threshold):+.3f}", f"{np.mean(np.abs(over_all)):.4f}"]
    return "| " + " | ".join([*cells, f"{result.seconds:.1f}"]) + " |"


def main(
    data: Annotated[Path, typer.Option(help="Folder with frames.json and aperio.json")],
    model: Annotated[
        list[Path], typer.Option(help="Bundles; the first in fp32 is what the others are compared with")
    ] = DEFAULT_MODELS,
    sets: Annotated[list[str], typer.Option(help=f"Of {', '.join(SETS)}")] = DEFAULT_SETS,
) -> None:
    """Print the table of benchmarks/README.md."""
    runs = [(folder, precision) for folder in model for precision in (Precision.F32, Precision.AUTO)]
    loaded = []
    for folder, precision in runs:
        one = load_model(folder, use=CpuUse(precision))
        loaded.append((f"{one.bundle.description.name}, {one.detector.name.split()[-1]}", one))
    print("| set | bundle, arithmetic | TP | FP | FN | F1 | difference | mean difference over thresholds | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in sets:
        folder_name, labels, split = SETS[name]
        images = read_labels(data / labels, split)
        reference = None
        for title, one in loaded:
            result = run_on(one, title, data / folder_name, images)
            reference = reference or result
            print(line(name, result, reference))


if __name__ == "__main__":
    typer.run(main)
