"""Training tiles: boxes stay on their objects through every augmentation, and streams are reproducible."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from tiny_data import write_training_data

from mitosis.errors import InputError
from training.data.augmentation import jitter_stain
from training.data.crops import (
    NEGATIVE,
    POSITIVE,
    CropStream,
    Pools,
    Spot,
    augmented,
    negative_shares,
    other_nuclei,
    plain,
)
from training.data.images import LOOK_ALIKE, MITOTIC, LabelledWindow, Patch, load_patches
from training.data.tiles import TileStream, collate, hidden
from training.profiles import CPU_CLASSIFIER, CPU_DETECTOR, PAPER_CLASSIFIER, PAPER_DETECTOR, DetectorProfile
from training.train_detector import Processes, Source


def window() -> LabelledWindow:
    """Return a white window with black discs at the mitoses and nothing at the look-alike."""
    rgb = np.full((704, 704, 3), 250, np.uint8)
    y, x = np.mgrid[:704, :704]
    points = np.array([[200, 300], [500, 420]], np.float32)
    for a, b in points:
        rgb[np.hypot(x - a, y - b) < 9] = 10
    all_points = np.vstack([points, [[350, 100]]]).astype(np.float32)
    return LabelledWindow(rgb, all_points, np.array([MITOTIC, MITOTIC, LOOK_ALIKE]))


def patch() -> Patch:
    """Return a white patch with a black disc in its centre."""
    rgb = np.full((128, 128, 3), 250, np.uint8)
    y, x = np.mgrid[:128, :128]
    rgb[np.hypot(x - 64, y - 64) < 9] = 10
    return Patch(rgb, "", np.array([[64, 64]], np.float32))


def test_boxes_follow_their_objects() -> None:
    stream = TileStream([window()], [patch()], 320, CPU_DETECTOR, seed=5)
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(120):
        rgb, boxes = stream.draw(rng)
        assert rgb.shape == (320, 320, 3)
        for x1, y1, x2, y2 in boxes:
            if abs((x2 - x1) - (y2 - y1)) < 0.01:  # not clipped
                cx, cy = int((x1 + x2) / 2), int((y1 + y2) / 2)
                assert rgb[cy - 2 : cy + 3, cx - 2 : cx + 3].mean() < 60
                seen += 1
    assert seen > 100


@pytest.mark.parametrize("profile", [CPU_DETECTOR, PAPER_DETECTOR])
def test_streams_are_reproducible(profile: DetectorProfile) -> None:
    first, second = (iter(TileStream([window()], [patch()], 320, profile, seed=1)) for _ in range(2))
    for _ in range(5):
        (a, boxes_a), (b, boxes_b) = next(first), next(second)
        assert torch.equal(a, b)
        assert torch.equal(boxes_a, boxes_b)


def test_collate_normalises_boxes() -> None:
    tile = torch.zeros(3, 100, 100, dtype=torch.uint8)
    _, labels = collate([(tile, torch.tensor([[10.0, 20, 30, 60]])), (tile, torch.zeros(0, 4))])
    torch.testing.assert_close(labels["bboxes"], torch.tensor([[0.2, 0.4, 0.2, 0.4]]))
    assert labels["batch_idx"].tolist() == [0.0]


def test_stain_jitter_without_strength_changes_nothing() -> None:
    rgb = np.random.default_rng(0).integers(5, 250, (20, 20, 3), np.uint8)
    assert np.abs(jitter_stain(np.random.default_rng(1), rgb, strength=0.0).astype(int) - rgb).max() <= 1


def test_crops_hold_the_mitosis_or_not() -> None:
    labelled = window()
    spots = [Spot(labelled.rgb, point) for point in labelled.points]
    profile = replace(CPU_CLASSIFIER, erasing=0.0)  # its noise may be dark
    stream = iter(CropStream(Pools(spots[:2], [patch()], spots[2:], [], []), profile, seed=3))
    for _ in range(60):
        x, label = next(stream)
        assert x.shape == (3, 64, 64)
        darkest = float(x[:, 16:48, 16:48].min())
        assert (darkest < -1.0) == (label == 1)


def test_the_papers_crops_vary_in_colour_and_are_reproducible() -> None:
    grey = Spot(np.full((200, 200, 3), 120, np.uint8), np.array([100, 100], np.float32))
    profile = replace(PAPER_CLASSIFIER, erasing=0.0)
    for seed in range(3):
        first, second = (augmented(np.random.default_rng(seed), grey, profile) for _ in range(2))
        assert torch.equal(first, second)
    means = {round(float(augmented(np.random.default_rng(seed), grey, profile).mean()), 2) for seed in range(12)}
    assert len(means) > 6


def test_patches_know_their_neighbours(tmp_path: Path) -> None:
    rows = ["a.png,S,1.tif,500,500", "b.png,S,1.tif,540,470", "c.png,S,2.tif,510,500", "0.png,M,,,"]
    (tmp_path / "patches.csv").write_text("\n".join(["file,source,slide,x,y", *rows]))
    (tmp_path / "patches").mkdir()
    for name in ("a", "b", "c", "0"):
        cv2.imwrite(str(tmp_path / "patches" / f"{name}.png"), np.full((128, 128, 3), 200, np.uint8))
    seen, held_out = load_patches(tmp_path), load_patches(tmp_path, held_out=True)
    assert (len(seen), len(held_out)) == (3, 1)
    a, b, c, d = seen + held_out
    assert a.mitoses_px.tolist() == [[64, 64], [104, 34]]
    assert b.mitoses_px.tolist() == [[64, 64], [24, 94]]
    assert c.mitoses_px.tolist() == d.mitoses_px.tolist() == [[64, 64]]
    assert not d.slide


def test_mixed_tiles_keep_both_tiles_boxes_and_erased_ones_go() -> None:
    one = TileStream([window()], [], 512, replace(PAPER_DETECTOR, mixup=0.0, erasing=0.0), seed=0)
    both = TileStream([window()], [], 512, replace(PAPER_DETECTOR, mixup=1.0, erasing=0.0), seed=0)
    none = TileStream([window()], [], 512, replace(PAPER_DETECTOR, mixup=0.0, erasing=1.0, erasing_area=(1, 1)), seed=0)
    counts = [np.mean([len(s.augmented(np.random.default_rng(i))[1]) for i in range(30)]) for s in (one, both, none)]
    assert counts[1] > 1.5 * counts[0] > 0
    assert counts[2] < 0.4 * counts[0]


def test_share_of_a_box_that_is_hidden() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    assert hidden(boxes, (0, 0, 10, 10)).tolist() == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("mosaics", [True, False])
def test_the_papers_tiles_are_not_all_around_objects(mosaics: bool) -> None:
    far = np.array([[30, 30]], np.float32)
    empty, held = (
        LabelledWindow(np.full((704, 704, 3), grey, np.uint8), far[:n], np.full(n, MITOTIC))
        for grey, n in ((60, 0), (200, 1))
    )
    stream = TileStream([empty, held], [], 320, PAPER_DETECTOR, seed=3, mosaics=mosaics)
    rng = np.random.default_rng(0)
    dark = [(stream.draw(rng)[0] == 60).mean() for _ in range(60)]
    assert 0.35 < np.mean(dark) < 0.65  # half of the windows hold nothing: so does half of what is drawn


def test_windows_without_look_alikes_or_without_labels() -> None:
    full = window()
    mitoses = full.categories == MITOTIC
    lone = replace(full, points=full.points[mitoses], categories=full.categories[mitoses])
    stream = TileStream([lone], [patch()], 320, CPU_DETECTOR, seed=5)
    rng = np.random.default_rng(0)
    assert sum(len(stream.around_object(rng, 320)[1]) for _ in range(20)) >= 15
    with pytest.raises(InputError, match="no labelled object"):
        TileStream([replace(full, points=full.points[:0], categories=full.categories[:0])], [], 320, CPU_DETECTOR, 0)


@pytest.mark.parametrize("mosaics", [True, False])
def test_mosaics_end(mosaics: bool) -> None:
    """Windows of one grey each: a mosaic shows several, a tile of one window its own."""
    greys = (40, 90, 140, 190, 240)
    windows = [replace(window(), image=np.full((704, 704, 3), grey, np.uint8)) for grey in greys]
    stream = TileStream(windows, [], 512, PAPER_DETECTOR, 0, mosaics)
    tiles = [stream.draw(np.random.default_rng(i))[0] for i in range(20)]
    shown = [sum((tile == grey).mean() > 0.05 for grey in greys) for tile in tiles]
    assert bool(max(shown) > 1) is mosaics
    assert bool(np.mean(shown) > 1.5) is mosaics


def test_mosaics_end_with_their_epochs(tmp_path: Path) -> None:
    profile = replace(PAPER_DETECTOR, batch=1, mosaic_epochs=2)
    source = Source(write_training_data(tmp_path), profile, 0, Processes(), 0)
    for epoch, mosaics in ((0.0, True), (1.9, True), (2.0, False), (7.0, False)):
        source.draw(0.5, epoch, 0)
        assert source.drawn == (512, mosaics)


def test_boxes_stay_on_their_objects_through_the_papers_augmentation() -> None:
    """RandAugment may change every colour, so that the object is what differs from its surroundings."""
    drawn = window()
    rgb = np.where(drawn.rgb < 100, (60, 30, 120), (230, 160, 200))  # apart when inverted, too
    rgb = (rgb + np.random.default_rng(0).integers(-20, 21, rgb.shape)).astype(np.uint8)
    profile = replace(PAPER_DETECTOR, mixup=0.0, erasing=0.0)
    stream = TileStream([replace(drawn, image=rgb)], [], 512, profile, seed=0, mosaics=False)
    contrasts = []
    for seed in range(60):
        rgb, boxes = stream.augmented(np.random.default_rng(seed))
        for x1, y1, x2, y2 in boxes.round().astype(int):
            if (x2 - x1, y2 - y1) == (50, 50):  # not clipped
                inner, outer = rgb[y1 + 22 : y2 - 22, x1 + 22 : x2 - 22], np.stack([rgb[y1, x1:x2], rgb[y2 - 1, x1:x2]])
                contrasts.append(np.abs(inner.mean((0, 1)) - outer.mean((0, 1))).max())
    assert len(contrasts) > 30
    assert np.mean(np.array(contrasts) > 10) > 0.9


def test_other_nuclei_are_dark_and_away_from_mitoses() -> None:
    rgb = np.full((128, 128, 3), 230, np.uint8)
    for centre in ((64, 64), (24, 30), (100, 96)):
        cv2.circle(rgb, centre, 10, (60, 20, 60), -1)
    known = Patch(rgb, "slide", np.array([[64, 64]], np.float32))
    found = sorted(spot.centre.tolist() for spot in other_nuclei(known))
    np.testing.assert_allclose(found, [[24, 30], [100, 96]], atol=2)
    assert other_nuclei(replace(known, slide="")) == []
    assert len(other_nuclei(replace(known, mitoses_px=np.array([[64, 64], [24, 30]], np.float32)))) == 2


def test_without_patches_windows_take_their_place() -> None:
    """Both streams go on, though the profiles ask for patches."""
    tiles = TileStream([window()], [], 320, CPU_DETECTOR, seed=0)
    assert all(tiles.draw(np.random.default_rng(i))[0].shape == (320, 320, 3) for i in range(30))
    labelled = window()
    spots = [Spot(labelled.rgb, point) for point in labelled.points]
    stream, rng = CropStream(Pools(spots[:2], [], spots[2:], [], []), CPU_CLASSIFIER, seed=0), np.random.default_rng(0)
    for label, expected in ((POSITIVE, spots[:2]), (NEGATIVE, spots[2:])):
        assert {id(stream.spot(rng, label)) for _ in range(50)} == {id(spot) for spot in expected}
    for pools, wrong in (
        (Pools(spots[:2], [], [], [], []), "no look-alike"),
        (Pools([], [], spots, [], []), "no mitotic"),
    ):
        with pytest.raises(InputError, match=wrong):
            CropStream(pools, CPU_CLASSIFIER, seed=0)


def test_a_few_negatives_are_not_half_of_them() -> None:
    assert negative_shares([700, 5000, 6000], corners=True) == pytest.approx([0.3, 0.2, 0.3, 0.2])
    assert negative_shares([0, 3, 0], corners=True) == pytest.approx([0, 0.03, 0, 0.97])
    assert negative_shares([700, 3, 0], corners=False) == pytest.approx([0.3, 0.03, 0, 0])
    image = np.full((128, 128, 3), 200, np.uint8)
    few = [Spot(image, np.array([20, 20], np.float32)) for _ in range(3)]
    stream, rng = CropStream(Pools([], [patch()], [], few, []), CPU_CLASSIFIER, seed=0), np.random.default_rng(0)
    drawn = [stream.spot(rng, NEGATIVE).rgb is image for _ in range(2000)]
    assert 0.01 < np.mean(drawn) < 0.05


@pytest.mark.parametrize("place", [(700, 500), (3, 997), (1204.5, -6)])
def test_a_spot_keeps_what_its_crops_can_reach(monkeypatch: pytest.MonkeyPatch, place: tuple[float, float]) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (1000, 1200, 3), np.uint8), (0, 0), 3)
    centre = np.array(place, np.float32)
    small = Spot(image, centre, 60)
    monkeypatch.setattr(Spot, "__post_init__", lambda _: None)
    whole = Spot(image, centre, 60)
    assert small.rgb.nbytes < 100_000 < whole.rgb.nbytes
    np.testing.assert_allclose(plain(small), plain(whole), atol=0.05)
    profile = replace(CPU_CLASSIFIER, erasing=0.0, colour=0.0)
    for seed in range(40):
        crops = [augmented(np.random.default_rng(seed), spot, profile) for spot in (small, whole)]
        np.testing.assert_allclose(*crops, atol=0.05)


def test_own_patches_are_balanced_by_scanner_and_case(tmp_path: Path) -> None:
    rows = ["a.png,own,s1-0,500,500,S,A", "b.png,own,s2-0,540,470,S,A", "c.png,own,s3-0,510,500,,"]
    (tmp_path / "patches.csv").write_text("\n".join(["file,source,slide,x,y,scanner,case", *rows]))
    (tmp_path / "patches").mkdir()
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / "patches" / f"{name}.png"), np.full((128, 128, 3), 200, np.uint8))
    origins = [p.origin for p in load_patches(tmp_path) + load_patches(tmp_path, held_out=True)]
    assert sorted(origins) == [("S", "A"), ("S", "A"), ("own", "owns3-0")]
