"""The paper's Table 1 on our data: stage 1 basic, stage 1 improved, both stages; and parts of the bundle by themselves.

    python -m training.compare_variants --data ../shared/data --basic runs/stock/model --improved runs/improved/model \\
        --bundle model --output comparison

Each variant's threshold is chosen on split val, as it is and under simulated laboratories, as the bundle's own is; test
and aperio, where the data has them, are only scored. Stage 1 alone is the same pipeline with stage 1's score as the
probability. Where the bundle looks more than once, its first look alone has a line, too: one network, once, in f32 as
the others. Writes table.md and the plots.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from mitosis.bundle import read_bundle
from mitosis.config import Config
from mitosis.cpu import CpuUse, Precision
from mitosis.errors import InputError
from mitosis.pipeline import Model, load_model
from training.evidence import simulate_laboratories
from training.metrics import average_precision, f1_interval, froc_auc
from training.plots import draw_curves, draw_gallery, draw_reliability
from training.scored import SETS, STAGE_1_ALONE, Scored, best_threshold, images_of, keeping_all, pooled, score, sets_in


@dataclass(frozen=True)
class Variant:
    """One line of the table: its candidates on every set, and the threshold from split val, simulated included."""

    name: str
    sets: dict[str, list[Scored]]
    simulated: list[Scored]

    @cached_property
    def threshold(self) -> float:
        """The lowest threshold with about the best F1 on split val as it is and as other laboratories would show it."""
        return best_threshold(self.sets["val"] + self.simulated)


def run_variant(name: str, model: Model, data: Path, laboratories: list[list[Path]]) -> Variant:
    """Score every image of every set, and split val as each of the laboratories shows it."""
    sets = {key: score(model, *images_of(data, key), f"{name}, {key}") for key in sets_in(data)}
    val = [one.image for one in sets["val"]]
    simulated = [one for paths in laboratories for one in score(model, val, paths, f"{name}, simulated")]
    return Variant(name, sets, simulated)


def stage_1_alone(model: Model) -> Model:
    """Return the model with stage 1's score as the probability."""
    about = model.bundle.description.model_copy(update={"calibration": STAGE_1_ALONE})
    return replace(model, bundle=model.bundle.model_copy(update={"description": about}))


def table(variants: list[Variant]) -> str:
    """Lay the figures out in Markdown: all images of a set, then each case and scanner."""
    lines = ["| set | variant | threshold | TP | FP | FN | precision | recall | F1 (95 %) | AP | FROC-AUC |"]
    lines.append("|" + "---|" * 11)
    for key in variants[0].sets:
        for v in variants:
            images, at = v.sets[key], v.threshold
            c, (low, high, drawn) = pooled(images, at), f1_interval(images, at)
            f1 = f"{c.f1:.3f} ({low:.3f} to {high:.3f} over {drawn})"
            lines.append(
                f"| {key} | {v.name} | {at:.2f} | {c.tp} | {c.fp} | {c.fn} | {c.precision:.3f} | {c.recall:.3f} "
                f"| {f1} | {average_precision(images):.3f} | {froc_auc(images):.3f} |"
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
    return [one for key, images in variant.sets.items() if key != "val" for one in images]


def load_stage_1(bundle: Path, variant: str, config: Config) -> Model:
    """Load a bundle as stage 1 alone; raises InputError where it is not of the variant that its line speaks of."""
    model = load_model(bundle, config=config)
    if (found := model.bundle.description.detector.architecture).split()[1:2] != [variant]:
        raise InputError(f"{bundle}: its detector is {found}, not {variant}; name another bundle")
    return stage_1_alone(model)


def main(
    data: Annotated[Path, typer.Option(help="Folder with frames.json and aperio.json")],
    output: Annotated[Path, typer.Option(help="Folder for table.md and the plots")],
    bundle: Annotated[Path, typer.Option(help="Bundle with both stages")],
    basic: Annotated[Path | None, typer.Option(help="Bundle of the stock detector, for the first line")] = None,
    improved: Annotated[
        Path | None, typer.Option(help="Bundle of the improved detector at the same budget, for the second")
    ] = None,
) -> None:
    """Compare the variants; prints the table."""
    views = read_bundle(bundle).description.operating_point.views or 1  # the same for all
    keep_all = keeping_all(Config().looking(views))
    both = load_model(bundle, config=keep_all)
    models = {"basic": load_stage_1(basic, "stock", keep_all)} if basic else {}
    if improved:
        models["improved"] = load_stage_1(improved, "improved", keep_all)
    if views > 1:
        once = keeping_all(Config().looking(1))
        models["first look"] = stage_1_alone(load_model(bundle, config=once, use=CpuUse(Precision.F32)))
    models |= {"stage 1": stage_1_alone(both), "two stages": both}
    with TemporaryDirectory() as folder:
        laboratories = list(simulate_laboratories(images_of(data, "val")[1], Path(folder)))
        variants = [run_variant(name, model, data, laboratories) for name, model in models.items()]
    output.mkdir(parents=True, exist_ok=True)
    text = table(variants)
    (output / "table.md").write_text(text)
    print(text)
    unseen = {v.name: every(v) for v in variants}
    if not all(unseen.values()):
        print(f"{data}: has no images but those of split val, which chose the thresholds: nothing is drawn")
        return
    draw_curves(output, unseen)
    draw_reliability(output / "reliability.png", unseen)
    for v in variants:
        for key in v.sets.keys() - {"val"}:
            path = output / f"gallery-{key}-{v.name.replace(' ', '-')}.png"
            draw_gallery(path, data / SETS[key][0], v.sets[key], v.threshold)


if __name__ == "__main__":
    typer.run(main)
