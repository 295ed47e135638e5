"""The threshold's model, on slides whose true shift is known."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mitosis.adaptive import adapted_threshold
from mitosis.bundle import read_bundle
from mitosis.detections import empty_detections
from mitosis.evaluation import Counts
from mitosis.labels import LabelledImage
from training import adapt_threshold
from training.adapt_threshold import View, fit, left_out, write
from training.evidence import Found

SHIFT = 1.5  # logits that a slide's probabilities lose for a unit of eosin


def views(count: int = 60, candidates: int = 40) -> list[View]:
    """Draw slides: the true probability is logistic, the stated one is shifted by the slide's eosin."""
    rng, out = np.random.default_rng(3), []
    for number in range(count):
        eosin = float(rng.normal())
        truth = rng.normal(-1.0, 2.0, candidates)
        mitosis = rng.random(candidates) < 1 / (1 + np.exp(-truth))
        rows = empty_detections(candidates)
        rows["x1"] = rows["x2"] = 100.0 * np.arange(candidates)
        rows["probability"] = 1 / (1 + np.exp(-(truth - SHIFT * eosin)))
        centres = np.column_stack([rows["x1"], rows["y1"]]).astype(np.float64)[mitosis]
        image = LabelledImage(f"{number}.png", "case", "scanner", 0.25, centres, np.empty((0, 2)))
        features = {"haematoxylin": float(rng.normal()), "eosin": eosin, "darkest": 2.0, "tissue_share": 1.0}
        out.append(View(Found(image, rows), features | {"pale_share": float(rng.normal())}))  # type: ignore[arg-type]
    return out


def test_the_shift_is_found_and_only_there() -> None:
    part, _ = fit(drawn := views(), penalty=1.0)
    assert set(part.features) == {"haematoxylin", "eosin", "pale_share"}  # the others do not vary
    eosin = part.features["eosin"]
    assert abs(eosin.weight / eosin.scale + SHIFT) < 0.25
    assert all(abs(part.features[name].weight) < 0.25 for name in ("haematoxylin", "pale_share"))
    pale, dark = sorted((v.features for v in drawn), key=lambda f: f["eosin"])[:: len(drawn) - 1]
    assert adapted_threshold(0.5, pale, part) > adapted_threshold(0.5, dark, part)


def test_it_helps_on_slides_that_were_left_out() -> None:
    drawn = views()
    fixed = sum((view.counts(0.4) for view in drawn), Counts())
    loss, moved = left_out(drawn, 1.0, 0.4)
    assert moved.f1 > fixed.f1 + 0.02
    assert moved.tp + moved.fn == fixed.tp + fixed.fn
    assert loss < left_out([View(v.found, v.features | {"eosin": 0.0}) for v in drawn], 1.0, 0.4)[0]


def test_a_part_that_does_not_help_is_removed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the slides' features say nothing, an older part goes, and what is said is what was done."""
    drawn = [View(view.found, view.features | {"eosin": 0.0}) for view in views()]
    for name in ("load_model", "look_at_all", "read_labels"):
        monkeypatch.setattr(adapt_threshold, name, lambda *_, **__: drawn)
    monkeypatch.setattr(adapt_threshold, "left_out", lambda *_: (1.0, Counts()))
    bundle = shutil.copytree(root / "model", tmp_path / "model")
    assert not write(bundle, fit(drawn, 1.0)[0])
    assert read_bundle(bundle).description.adaptive
    for said in ("the older part was removed", "nothing was written"):
        adapt_threshold.main(tmp_path, bundle)
        assert f"it does not help: {said}" in capsys.readouterr().out
        assert read_bundle(bundle).description.adaptive is None
