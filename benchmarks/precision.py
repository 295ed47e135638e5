"""F1 under each arithmetic: the same frames, labels and thresholds, also with an 8-bit bundle.

    python -m benchmarks.precision --data ../shared/data [--model model] [--model model-int8]

Needs a CPU with bf16; ``auto`` searches in it and decides in f32. Each line is scored at the bundle's own threshold as
the challenge does, and over all thresholds: a single label more or less changes F1 at one threshold by up to 0.02 on a
set this small. Times are those of the detection alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from mitosis.cpu import CpuUse, Precision
from mitosis.pipeline import load_model
from training.scored import SETS, Scored, images_of, pooled, score

ROOT = Path(__file__).parents[1]
DEFAULT_MODELS, DEFAULT_SETS = [ROOT / "model"], ["test"]
THRESHOLDS = np.arange(0.02, 0.99, 0.02).round(2)


@dataclass(frozen=True)
class Result:
    """One arithmetic on one set."""

    title: str
    scored: list[Scored]
    threshold: float
    seconds: float

    def f1_at(self, threshold: float) -> float:
        """Return the F1 of the summed counts."""
        return float(np.nan_to_num(pooled(self.scored, threshold).f1))


def line(name: str, result: Result, reference: Result) -> str:
    """Return one line of the table; differences are to ``reference``."""
    c, f1 = pooled(result.scored, result.threshold), result.f1_at(result.threshold)
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
    loaded = []
    for folder, precision in product(model, (Precision.F32, Precision.BF16, Precision.AUTO)):
        one = load_model(folder, use=CpuUse(precision))
        loaded.append((f"{one.bundle.description.name}, {precision}", one))
    print("| set | bundle, arithmetic | TP | FP | FN | F1 | difference | mean difference over thresholds | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in sets:
        images, paths = images_of(data, name)
        reference = None
        for title, one in loaded:
            started_s = time.perf_counter()
            scored = score(one, images, paths, f"{title}, {name}")
            seconds = time.perf_counter() - started_s
            result = Result(title, scored, one.config.classifier_threshold, seconds)
            reference = reference or result
            print(line(name, result, reference))


if __name__ == "__main__":
    typer.run(main)
