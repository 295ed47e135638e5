"""Calibration and the choice of the threshold, on candidates whose true probability is known."""

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from mitosis.bundle import Calibration
from mitosis.calibration import probabilities
from mitosis.config import Config, OperatingPoint
from mitosis.detections import empty_detections
from mitosis.errors import InputError
from mitosis.evaluation import Counts
from mitosis.labels import LabelledImage
from training import calibrate
from training.calibrate import (
    best,
    candidates_of,
    counts_at,
    cross_fitted,
    fit,
    points_of,
    reliability_error,
    smallest_share,
    write,
)
from training.evidence import Evidence, Found

SHARE = 0.5
TRUE = Calibration(detector_weight=1.5, classifier_weight=0.75, bias=-0.5)


def frames(count: int, candidates: int = 50) -> list[Found]:
    """Draw frames of 0.25 um whose candidates are mitoses with the probability that ``TRUE`` gives them."""
    rng, out = np.random.default_rng(11), []
    for number in range(count):
        rows = empty_detections(candidates)
        rows["x1"] = rows["x2"] = 100.0 * np.arange(candidates)  # further apart than the challenge's radius
        for name in ("detector_score", "classifier_score"):
            rows[name] = 1 / (1 + np.exp(-rng.normal(-0.5, 1.5, candidates)))
        rows["probability"] = probabilities(rows, TRUE)
        mitoses = rng.random(candidates) < rows["probability"]
        centres = np.column_stack([rows["x1"], rows["y1"]]).astype(np.float64)[mitoses]
        out.append(Found(LabelledImage(f"{number}.png", "a", "b", 0.25, centres, np.empty((0, 2))), rows))
    return out


def test_the_weights_are_found_again() -> None:
    found = frames(200)
    fitted = fit(*candidates_of(found), SHARE)
    assert abs(fitted.detector_weight - TRUE.detector_weight) < 0.1
    assert abs(fitted.classifier_weight - TRUE.classifier_weight) < 0.1
    assert abs(fitted.bias - TRUE.bias) < 0.1


def test_a_frame_does_not_calibrate_itself() -> None:
    """One frame's labels turned round change the probabilities of the others, and not its own."""
    found = frames(10)
    turned = found[4]
    mitoses = np.column_stack([turned.rows["x1"], turned.rows["y1"]]).astype(np.float64)[~turned.positive]
    image = LabelledImage("4.png", "a", "b", 0.25, mitoses, np.empty((0, 2)))
    first, second = (cross_fitted(f, SHARE) for f in (found, [*found[:4], Found(image, turned.rows), *found[5:]]))
    assert first is not None and second is not None
    before, after = np.split(first, 10), np.split(second, 10)
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert not changed[4]
    assert sum(changed) >= 8  # all but the frames of its own fold


def test_stage_2_weighs_no_more_than_it_must() -> None:
    config = Config(classifier_threshold=0.0)
    useful, useless = frames(60), frames(60)
    rng = np.random.default_rng(5)
    for frame in useless:
        frame.rows["classifier_score"] = rng.random(len(frame.rows))
    for frame in useful:  # stage 2 alone knows which are mitoses
        frame.rows["classifier_score"] = np.where(frame.positive, 0.9, 0.1) + rng.normal(0, 0.02, len(frame.rows))
    assert smallest_share(useless, config) == 0.0
    assert smallest_share(useful, config) > 0.2


def test_reliability_error_by_hand() -> None:
    probability, positive = np.array([0.05, 0.05, 0.85, 0.85]), np.array([False, True, True, True])
    # Two bins: 0.1 stated and 1 found, 1.7 stated and 2 found.
    assert np.isclose(reliability_error(probability, positive), (0.9 + 0.3) / 4)


def test_the_lowest_threshold_of_the_plateau() -> None:
    steep, flat, top = Counts(10, 10, 0), Counts(9, 3, 1), Counts(9, 2, 1)
    assert top.f1 - flat.f1 < 0.05 < top.f1 - steep.f1
    assert best([(0.1, steep), (0.2, flat), (0.3, top), (0.4, flat)]) == (0.2, flat)
    assert best([(0.1, Counts(0, 0, 3)), (0.2, Counts(1, 0, 2))])[0] == 0.2  # F1 is undefined without any find


def test_what_is_written_is_what_was_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bundle.yaml").write_text("name: kept\ncalibration: null\nmetrics: {old: 1}\nadaptive: {reach: 2.0}\n")
    found = frames(20)
    points = points_of(found, "probability")  # which are those that TRUE gives
    threshold, chosen = best(points)
    assert counts_at(threshold, found) == chosen
    point = OperatingPoint(classifier_threshold=threshold, views=2)
    write(tmp_path, TRUE, point, {"val_f1": chosen.f1}, points)
    written = yaml.safe_load((tmp_path / "bundle.yaml").read_text())
    assert written["name"] == "kept"
    assert "adaptive" not in written  # it was learnt from other probabilities
    assert "adaptive threshold" in capsys.readouterr().out
    assert Calibration(**written["calibration"]) == TRUE
    assert written["operating_point"] == {"classifier_threshold": threshold, "views": 2}
    assert written["metrics"] == {"val_f1": round(chosen.f1, 3)}
    rows = list(csv.DictReader((tmp_path / "validation-curve.csv").open()))
    assert [(float(r["threshold"]), int(r["tp"])) for r in rows] == [(at, c.tp) for at, c in points]


@pytest.mark.parametrize(("kept", "said"), [("none", "0 candidates, 0"), ("mitoses", "all"), ("others", ", 0 of them")])
def test_it_says_what_val_lacks(kept: str, said: str) -> None:
    rows, positive = candidates_of(frames(3))
    chosen = {"none": np.zeros(len(rows), bool), "mitoses": positive, "others": ~positive}[kept]
    said = f"{positive.sum()} candidates, {positive.sum()} of them" if kept == "mitoses" else said
    with pytest.raises(InputError, match=f"split val: .*{said}"):
        fit(rows[chosen], positive[chosen], SHARE)


@pytest.mark.parametrize(("count", "said", "name"), [(1, "in-sample", "after_in_sample"), (4, "cross-fitted", "after")])
def test_it_says_whether_the_frames_were_left_out(
    count: int, said: str, name: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A frame and its simulated laboratories stay together, so that one frame cannot be cross-fitted."""
    (tmp_path / "bundle.yaml").write_text("name: kept\n")
    monkeypatch.setattr(calibrate, "load_model", lambda *_, **__: None)
    monkeypatch.setattr(Evidence, "gather", lambda *_: Evidence(frames(count), frames(count), []))
    calibrate.main(tmp_path, tmp_path)
    assert f"after ({said}" in capsys.readouterr().out
    metrics = yaml.safe_load((tmp_path / "bundle.yaml").read_text())["metrics"]
    assert set(metrics) == {"val_f1", "val_reliability_error_before", f"val_reliability_error_{name}"}
