"""Pictures of an evaluation: kinds as the challenge counts them, drawn where they are."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mitosis.errors import InputError
from mitosis.evaluation import Counts, assign, evaluate, evaluate_image, match
from mitosis.labels import LabelledImage
from mitosis.output.gallery import COLUMNS, SHOWN, TITLE_PX, Cell, judge, sheet, write_gallery
from mitosis.output.grand_challenge import Points, write_points
from mitosis.output.overlay import GREEN, ORANGE, RED

PLACES = np.array([[100.0, 100.0], [300.0, 100.0], [500.0, 100.0]])


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 15), st.integers(0, 15))
def test_hits_are_those_that_the_challenge_counts(seed: int, labels: int, detections: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = rng.uniform(0, 40, (labels, 2)), rng.uniform(0, 40, (detections, 2))
    hits = assign(truth, found)
    counts = match(truth, found)
    assert (hits >= 0).sum() == counts.tp
    assert (hits < 0).sum() == counts.fn
    assert len(set(hits[hits >= 0].tolist())) == counts.tp


def labelled(folder: Path) -> LabelledImage:
    """Write an image with three labels; the first is found, the second rejected, the third not proposed."""
    cv2.imwrite(str(folder / "a.png"), np.full((200, 700, 3), 255, np.uint8))
    image = LabelledImage("a.png", "case", "scanner", 0.25, PLACES, np.zeros((0, 2)))
    found = np.array([[101.0, 100.0], [301.0, 100.0], [600.0, 100.0]]) * 0.25 / 1000
    write_points(
        folder / "results/a/mitotic-figures.json",
        Points(found, np.array([True, False, True]), np.array([0.9, 0.1, 0.8])),
    )
    return image


def test_drawn_where_they_are(tmp_path: Path) -> None:
    image = labelled(tmp_path)
    write_gallery(tmp_path / "gallery", tmp_path / "results", [image], tmp_path)
    picture = cv2.imread(str(tmp_path / "gallery/a.png"))[..., ::-1]
    for x, colour in ((101, GREEN), (300, RED), (500, RED), (600, ORANGE)):
        part = picture[100, x - 40 : x]  # from the middle to the left, over the box's side
        assert (part == colour).all(axis=1).any()
    assert (picture[100, 380:420] == 255).all()  # nothing between
    assert cv2.imread(str(tmp_path / "gallery/cells.png")).shape[1] > 1000
    assert evaluate(tmp_path / "results", [image]).total == Counts(1, 1, 2)


def test_a_miss_tells_whether_it_was_proposed(tmp_path: Path) -> None:
    image = labelled(tmp_path)
    points = Points(PLACES[1:2] * 0.25 / 1000, np.array([False]), np.array([0.1]))
    verdicts = judge(image, points)
    assert verdicts.kinds == ["FN"] * 3
    assert np.allclose(verdicts.scores, [np.nan, 0.1, np.nan], equal_nan=True)
    assert evaluate_image(image, points) == Counts(0, 0, 3)


def test_an_image_that_moved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--images"):
        write_gallery(tmp_path / "gallery", tmp_path / "results", [labelled(tmp_path)])
    with pytest.raises(InputError, match="--images"):
        write_gallery(tmp_path / "gallery", tmp_path / "results", [labelled(tmp_path)], tmp_path / "elsewhere")


def test_the_sheet_is_bounded() -> None:
    rgb = np.full((80, 80, 3), 200, np.uint8)
    many = sheet([Cell("TP", index / 1000, rgb) for index in range(1000)])
    assert many.shape[0] == sheet([Cell("TP", 0.5, rgb)] * SHOWN).shape[0]
    assert sheet([]).shape[0] == 3 * TITLE_PX
    assert many.shape[1] == COLUMNS * 86
