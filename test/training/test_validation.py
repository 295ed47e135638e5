"""Stage 2's validation while it trains: F1 as the challenge counts, and which candidate shows which mitosis."""

import json
from pathlib import Path

import numpy as np
import pytest

from mitosis.evaluation import Counts
from training.data.images import LOOK_ALIKE, MITOTIC, LabelledWindow
from training.mine_candidates import FILE_NAME
from training.validation import NO_MITOSIS, best_f1, candidate_spots


@pytest.mark.parametrize("seed", range(5))
def test_best_f1_is_the_best_of_all_thresholds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, shown, mitoses = rng.normal(size=40), rng.integers(NO_MITOSIS, 12, size=40), 15
    brute = []
    for t in scores:
        kept = shown[scores >= t]
        tp = len(set(kept[kept != NO_MITOSIS]))
        brute.append(Counts(tp, len(kept) - tp, mitoses - tp).f1)
    assert best_f1(scores, shown, mitoses) == pytest.approx(max(brute))


def test_a_second_candidate_of_one_mitosis_is_no_hit() -> None:
    assert best_f1(np.array([0.9, 0.8]), np.array([0, 0]), 1) == 1.0  # at the first one's score
    assert best_f1(np.array([0.9, 0.8, 0.7]), np.array([NO_MITOSIS, 0, 0]), 1) == pytest.approx(2 / 3)


def test_best_f1_of_nothing_is_zero() -> None:
    assert best_f1(np.zeros(0), np.zeros(0, int), 3) == 0.0


def test_candidates_know_their_mitosis(tmp_path: Path) -> None:
    def window(*points: tuple[float, float, int]) -> LabelledWindow:
        table = np.array(points, np.float32).reshape(-1, 3)
        return LabelledWindow(np.zeros((200, 200, 3), np.uint8), table[:, :2], table[:, 2].astype(np.int64))

    def box(x: float, y: float, near: bool) -> list[float]:
        return [x - 25, y - 25, x + 25, y + 25, 0.5, near]

    windows = [
        window((50, 50, MITOTIC), (150, 150, LOOK_ALIKE)),
        window(),
        window((40, 40, MITOTIC), (140, 40, MITOTIC)),
    ]
    mined = {
        "0": [box(52, 50, True), box(150, 150, False)],
        "1": [box(100, 100, False)],
        "2": [box(139, 41, True), box(41, 40, True), box(40, 74, False)],  # the last shows the edge of a mitosis
    }
    (tmp_path / FILE_NAME).write_text(json.dumps({"train": mined}))
    spots = candidate_spots(windows, tmp_path, "train")
    assert [shown for _, shown in spots] == [0, NO_MITOSIS, NO_MITOSIS, 2, 1]
    assert spots[3][0].centre.tolist() == [139, 41]
