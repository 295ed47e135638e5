"""The paper's Table 1 on our data: stage 1 basic, stage 1 improved, both stages.

    python -m training.compare_variants --data ../shared/data --basic runs/stock --improved runs/default \
        --bundle model --output comparison

Each variant's threshold is chosen on split val; test and aperio are only scored. Writes table.md and the plots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from mitosis.config import Config
from mitosis.detections import Detections, centres_px
from mitosis.labels import LabelledImage, read_labels
from mitosis.pipeline import Model, detect, load_model
from mitosis.slide import open_slide
from training.data.images import read_rgb
from training.metrics import Scored, average_precision, best_threshold, f1_interval, froc_auc, pooled
from training.mine_candidates import load_detector, predict
from training.plots import draw_curves, draw_gallery, draw_reliability

LOWEST_CONFIDENCE = 0.05
SETS = {
    "val": ("frames", "frames.json", "val"),
    "test": ("frames", "frames.json", "test"),
    "aperio": ("aperio", "aperio.json", None),
}


@dataclass(frozen=True)
class Variant:
    """One line of the table: its candidates on every set, and the threshold from split val."""

    name: str
    sets: dict[str, list[Scored]]

    @property
    def threshold(self) -> float:
        """The threshold with the best F1 on split val."""
        return best_threshold(self.sets["val"])


Scorer = Callable[[Path, LabelledImage], Scored]


def one_stage(run: Path) -> Scorer:
    """Score with the detector of a training run alone."""
    model = load_detector(run)

    def score(path: Path, image: LabelledImage) -> Scored:
        rows = predict(model, read_rgb(path), LOWEST_CONFIDENCE).astype(np.float64)
        return Scored(image, (rows[:, :2] + rows[:, 2:4]) / 2, rows[:, 4])

    return score


def two_stages(bundle: Path) -> Scorer:
    """Score with a bundle's calibrated probability."""
    model: Model = load_model(bundle, config=Config(detector_confidence=LOWEST_CONFIDENCE, classifier_threshold=0.0))

    def score(path: Path, image: LabelledImage) -> Scored:
        with open_slide(path, image.spacing_um) as slide:
            rows: Detections = detect(slide, model)
        return Scored(image, centres_px(rows), rows["probability"].astype(np.float64))

    return score


def run_variant(name: str, data: Path, scorer: Scorer) -> Variant:
    """Score every image of every set."""
    sets = {}
    for key, (folder, labels, split) in SETS.items():
        images = read_labels(data / labels, split)
        sets[key] = [scorer(data / folder / i.file_name, i) for i in track(images, f"{name}, {key}")]
    return Variant(name, sets)


def table(variants: list[Variant]) -> str:
    """Lay the figures out in Markdown: all images of a set, then each case and scanner."""
    lines = ["| set | variant | threshold | TP | FP | FN | precision | recall | F1 (95 % over cases) | AP | FROC-AUC |"]
    lines.append("|" + "---|" * 11)
    for key in SETS:
        for v in variants:
            images, at = v.sets[key], v.threshold
            c, (low, high) = pooled(images, at), f1_interval(images, at)
            lines.append(
                f"| {key} | {v.name} | {at:.2f} | {c.tp} | {c.fp} | {c.fn} | {c.precision:.3f} | {c.recall:.3f} "
                f"| {c.f1:.3f} ({low:.3f} to {high:.3f}) | {average_precision(images):.3f} | {froc_auc(images):.3f} |"
            )
    lines += ["", "| group | " + " | ".join(f"{v.name}: TP / FP / FN, F1" for v in variants) + " |"]
    lines.append("|" + "---|" * (len(variants) + 1))
    for kind in ("case", "scanner"):
        for group in sorted({getattr(s.image, kind) for s in every(variants[0])}):
            cells = []
            for v in variants:
                c = pooled([s for s in every(v) if getattr(s.image, kind) == group], v.threshold)
                cells.append(f"{c.tp} / {c.fp} / {c.fn}, {c.f1:.3f}")
            lines.append(f"| {kind} {group} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def every(variant: Variant) -> list[Scored]:
    """Return all images that did not choose the threshold."""
    return [one for key in ("test", "aperio") for one in variant.sets[key]]


def main(
    data: Annotated[Path, typer.Option(help="Folder with frames.json and aperio.json")],
    output: Annotated[Path, typer.Option(help="Folder for table.md and the plots")],
    improved: Annotated[Path, typer.Option(help="Training run of the improved detector")],
    bundle: Annotated[Path, typer.Option(help="Bundle with both stages")],
    basic: Annotated[Path | None, typer.Option(help="Training run of the stock detector, at the same budget")] = None,
) -> None:
    """Compare the variants; prints the table."""
    runs = ([("basic", one_stage(basic))] if basic else []) + [
        ("improved", one_stage(improved)),
        ("two stages", two_stages(bundle)),
    ]
    variants = [run_variant(name, data, scorer) for name, scorer in runs]
    output.mkdir(parents=True, exist_ok=True)
    text = table(variants)
    (output / "table.md").write_text(text)
    print(text)
    unseen = {v.name: every(v) for v in variants}
    draw_curves(output, unseen)
    draw_reliability(output / "reliability.png", unseen)
    for v in variants:
        for key in ("test", "aperio"):
            folder, path = data / SETS[key][0], output / f"gallery-{key}-{v.name.replace(' ', '-')}.png"
            draw_gallery(path, folder, v.sets[key], v.threshold)


if __name__ == "__main__":
    typer.run(main)
