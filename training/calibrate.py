"""Calibrates a bundle's probabilities and chooses its threshold, on the frames of split val alone.

One probability comes from both scores; stage 2's weighs as little as it may (``smallest_share``). Each frame is judged
as it is and as simulated other laboratories would show it (``training.evidence``). The recall on patches of real other
laboratories that training never saw is stated too; it decides nothing: patches hold little but mitoses.

    python -m training.calibrate --data ../shared/data --bundle model

Writes the calibration, the operating point and the figures into bundle.yaml, and BUNDLE/validation-curve.csv.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import yaml
from numpy.typing import NDArray
from rich.progress import track
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from mitosis.bundle import DESCRIPTION, Calibration
from mitosis.calibration import logits, probabilities
from mitosis.config import Config, OperatingPoint
from mitosis.detections import Detections
from mitosis.errors import InputError
from mitosis.evaluation import Counts
from mitosis.pipeline import load_model
from training.evidence import Evidence, Found, merge_all
from training.metrics import average_precision
from training.scored import LOWEST_CONFIDENCE, STAGE_2_ALONE, curve, keeping_all, lowest_of_the_best, pooled

FOLDS = 5
FITS = 3
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)  # of stage 2's weight, relative to stage 1's
RESTRAINT = 0.002  # of average precision
BINS = 10

Points = list[tuple[float, Counts]]  # of a curve: threshold and counts


def fit(rows: Detections, positive: NDArray[np.bool_], share: float) -> Calibration:
    """Fit the logistic function of both scores' logits; stage 2's weigh ``share`` of what stage 1's do.

    Raises InputError unless there are candidates of both kinds.
    """
    if len(np.unique(positive)) < 2:
        found = f"{len(rows)} candidates, {int(positive.sum())} of them mitoses"
        raise InputError(f"split val: {found}, but some of both kinds are needed; add frames or train stage 1 longer")
    x = logits(rows["detector_score"]) + share * logits(rows["classifier_score"])
    fitted = LogisticRegression(C=1.0).fit(x[:, None], positive)  # two numbers from some hundred candidates
    weight = float(fitted.coef_[0, 0])
    return Calibration(
        detector_weight=round(weight, 4),
        classifier_weight=round(share * weight, 4),
        bias=round(float(fitted.intercept_[0]), 4),
    )


def cross_fitted(found: list[Found], share: float) -> NDArray[np.floating] | None:
    """Return candidates' probabilities from calibrations that did not see their frame; None where val is too small."""
    rows, positive = candidates_of(found)
    names = [f.image.file_name for f in found]  # a frame's simulated versions stay with it
    frame = np.repeat(np.unique(names, return_inverse=True)[1], [len(f.rows) for f in found])
    out = np.zeros(len(rows))
    folds = min(FOLDS, len(set(names)))
    splits = list(GroupKFold(folds).split(rows, positive, frame)) if folds > 1 else []
    if not splits or any(len(np.unique(positive[seen])) < 2 for seen, _ in splits):
        return None
    for seen, unseen in splits:
        out[unseen] = probabilities(rows[unseen], fit(rows[seen], positive[seen], share))
    return out


def reliability_error(probability: NDArray[np.floating], positive: NDArray[np.bool_]) -> float:
    """Return the expected calibration error: |stated - observed|, averaged over ten equally wide bins by their size."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gaps = [abs(probability[bins == b].sum() - positive[bins == b].sum()) for b in range(BINS)]
    return float(sum(gaps) / max(len(probability), 1))


def points_of(found: list[Found], score: str) -> Points:
    """Return the counts of one of the candidates' scores at every threshold from 0.02 to 0.98."""
    thresholds = np.arange(0.02, 0.99, 0.02).round(2)
    scored = [f.scored(f.rows[score]) for f in found]
    return list(zip(thresholds.tolist(), curve(scored, thresholds), strict=True))


def best(points: Points) -> tuple[float, Counts]:
    """Take the lowest threshold with about the best F1; see ``lowest_of_the_best``."""
    return points[lowest_of_the_best(np.array([c.f1 for _, c in points]))]


def calibrate(found: list[Found], config: Config, share: float) -> tuple[list[Found], Calibration]:
    """Fit the calibration; which of a cell's doubles is kept depends on it, so it is fitted a few times over.

    Returns the candidates merged under it, too.
    """
    merged = merge_all(found, STAGE_2_ALONE, config)
    for _ in range(FITS):
        calibration = fit(*candidates_of(merged), share)
        merged = merge_all(found, calibration, config)
    return merged, calibration


def smallest_share(found: list[Found], config: Config) -> float:
    """Return the smallest weight of stage 2, relative to stage 1's, whose AP is within ``RESTRAINT`` of the best.

    Average precision, since the best F1 jumps with single candidates. Over a wide range the weight hardly matters here,
    but it does elsewhere: the look-alikes that stage 2 learnt from are one scanner's, and its scores carry over less
    well than stage 1's.
    """
    ap, best_f1 = [], []
    for share in track(SHARES, "weights of stage 2"):
        merged, _ = calibrate(found, config, share)
        ap.append(average_precision([f.scored(f.rows["probability"]) for f in merged]))
        best_f1.append(max(np.nan_to_num([c.f1 for _, c in points_of(merged, "probability")])))
    rows = zip(SHARES, ap, best_f1, strict=True)
    print("AP, best F1 by stage 2's weight:", *(f"{share}: {one:.3f}, {f1:.3f};" for share, one, f1 in rows))
    return SHARES[int(np.argmax(np.array(ap) >= max(ap) - RESTRAINT))]


def candidates_of(found: list[Found]) -> tuple[Detections, NDArray[np.bool_]]:
    """Return all images' candidates, and which are mitoses."""
    return np.concatenate([f.rows for f in found]), np.concatenate([f.positive for f in found])


def counts_at(threshold: float, found: list[Found]) -> Counts:
    """Return the counts over images at one threshold of the probability."""
    return pooled([f.scored(f.rows["probability"]) for f in found], threshold)


def write(
    bundle: Path, calibration: Calibration, point: OperatingPoint, metrics: dict[str, float], points: Points
) -> None:
    """Put calibration, operating point and figures into the bundle's description, and the curve beside it.

    An adaptive threshold was learnt from the old probabilities, and goes.
    """
    description = yaml.safe_load((bundle / DESCRIPTION).read_text())
    if description.pop("adaptive", None):
        print("the adaptive threshold was one of the old probabilities, and is removed: run training.adapt_threshold")
    description["calibration"] = calibration.model_dump()
    description["operating_point"] = point.model_dump(exclude_none=True)
    description["metrics"] = {name: round(value, 3) for name, value in metrics.items()}
    (bundle / DESCRIPTION).write_text(yaml.safe_dump(description, sort_keys=False))
    with (bundle / "validation-curve.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["threshold", "tp", "fp", "fn", "precision", "recall", "f1"])
        writer.writerows(
            [at, c.tp, c.fp, c.fn, *(f"{v:.4f}" for v in (c.precision, c.recall, c.f1))] for at, c in points
        )


def main(
    data: Annotated[Path, typer.Option(help="Folder with frames.json, frames/ and patches.csv")],
    bundle: Annotated[Path, typer.Option(help="The bundle to calibrate")],
    views: Annotated[int, typer.Option(help="Stage 1's looks at a tile with candidates, for the bundle: 1, 2, 4")] = 4,
) -> None:
    """Fit on split val, choose the threshold, write both into the bundle; test frames are not looked at."""
    keep_all = keeping_all(Config().looking(views))
    evidence = Evidence.gather(data, load_model(bundle, config=keep_all))
    share = smallest_share(evidence.val, keep_all)
    found, calibration = calibrate(evidence.val, keep_all, share)
    real, patches = (merge_all(part, calibration, keep_all) for part in (evidence.real, evidence.patches))
    print(f"stage 2's logit weighs {share} of stage 1's")
    for name in ("detector_score", "classifier_score"):
        at, c = best(points_of(found, name))
        print(f"{name} alone: threshold {at:.2f}, TP {c.tp} FP {c.fp} FN {c.fn}, F1 {c.f1:.3f}, simulated included")
    points = points_of(found, "probability")
    threshold, c = best(points)
    print(f"both: threshold {threshold:.2f}, TP {c.tp} FP {c.fp} FN {c.fn}, F1 {c.f1:.3f}, the same")
    counts = counts_at(threshold, real)
    print(f"as they are: TP {counts.tp} FP {counts.fp} FN {counts.fn}, F1 {counts.f1:.3f}")
    metrics = {"val_f1": counts.f1}
    if patches:
        metrics["held_out_patch_recall"] = counts_at(threshold, patches).recall
        print(f"recall on held-out patches {metrics['held_out_patch_recall']:.3f}")
    rows, positive = candidates_of(found)
    before = reliability_error(rows["classifier_score"], positive)
    unseen = cross_fitted(found, share)
    after = reliability_error(rows["probability"] if unseen is None else unseen, positive)
    how, suffix = ("cross-fitted over frames", "") if unseen is not None else ("in-sample: val is small", "_in_sample")
    print(f"reliability error: {before:.3f} before, {after:.3f} after ({how})")
    metrics |= {"val_reliability_error_before": before, f"val_reliability_error_after{suffix}": after}
    point = OperatingPoint(
        detector_confidence=LOWEST_CONFIDENCE, classifier_threshold=round(threshold, 2), views=keep_all.views
    )
    write(bundle, calibration, point, metrics, points)


if __name__ == "__main__":
    typer.run(main)
