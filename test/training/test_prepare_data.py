"""From published forms to what the training scripts read: no label lost, no case in two splits, one scale."""

import csv
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
import typer

from mitosis.errors import InputError, SpacingError
from mitosis.labels import LabelledImage, read_labels
from mitosis.slide import open_slide
from training.data import cutting
from training.data.balance import Origin
from training.data.cutting import SOURCE, Grid, frames_of, whole_image, write_png
from training.data.images import LOOK_ALIKE, MITOTIC, load_frames, load_patches, load_windows, read_rgb
from training.data.importers import LabelledObject, LabelledSlide
from training.prepare_data import Format, check_names, grouped
from training.prepare_data import main as prepare

WIDTH, HEIGHT, CASES = 700, 600, 10
PER_CM = 40000  # 0.25 um a pixel
OFFSETS = re.compile(r"(.+)_x(\d+)_y(\d+)\.png")

Label = tuple[str, float, float, int]  # case, x, y in the source's pixels, category


def write_midogpp(folder: Path, per_cm: int | None = PER_CM) -> Counter[Label]:
    """Write ten drawn cases in MIDOG++'s form, each with dark discs as mitoses and grey ones as look-alikes."""
    folder.mkdir()
    rng, labels = np.random.default_rng(0), Counter[Label]()
    document: dict[str, Any] = {"images": [], "annotations": []}
    document["categories"] = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}]
    for number in range(1, CASES + 1):
        rgb = np.full((HEIGHT, WIDTH, 3), 230, np.uint8)
        document["images"].append({"id": number, "file_name": f"{number:03}.tiff", "width": WIDTH, "height": HEIGHT})
        for x, y in rng.permutation([(x, y) for x in range(50, WIDTH, 100) for y in range(50, HEIGHT, 100)])[
            :6
        ].tolist():
            category = int(rng.integers(1, 3))
            cv2.circle(rgb, (x, y), 12, (20, 20, 20) if category == MITOTIC else (120, 120, 120), -1)
            box = [x - 25, y - 25, x + 25, y + 25]
            document["annotations"].append({"image_id": number, "category_id": category, "bbox": box})
            labels[f"{number:03}", x, y, category] += 1
        tags: dict[str, Any] = {"photometric": "rgb"}
        if per_cm:
            tags |= {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(folder / f"{number:03}.tiff", rgb, **tags)
    (folder / "MIDOG++.json").write_text(json.dumps(document))
    return labels


def labels_of(images: list[LabelledImage], scale: float = 1.0) -> Counter[Label]:
    """Return the labels in the source's pixels; ``scale`` is its pixels per pixel of what was cut."""
    found = Counter[Label]()
    for image in images:
        cut = OFFSETS.fullmatch(image.file_name)
        offset = np.array([int(cut[2]), int(cut[3])]) if cut else np.zeros(2)
        for category, points in ((MITOTIC, image.mitotic_figures_px), (LOOK_ALIKE, image.look_alikes_px)):
            for x, y in ((points + offset) * (scale if cut else 1)).round(3).tolist():
                found[image.case, x, y, category] += 1
    return found


def of_split(labels: Counter[Label], splits: dict[str, str], *names: str) -> Counter[Label]:
    return Counter({label: n for label, n in labels.items() if splits[label[0]] in names})


def brightness(rgb: np.ndarray, points: np.ndarray) -> list[int]:  # type: ignore[type-arg]
    return [int(rgb[y, x].mean()) for x, y in points.round().astype(int) if 0 <= y < len(rgb) and 0 <= x < len(rgb[0])]


def test_labels_survive_and_patches_of_val_are_held_out(tmp_path: Path) -> None:
    labels, output = write_midogpp(tmp_path / "MIDOGpp"), tmp_path / "out"
    prepare(tmp_path / "MIDOGpp", output, Format.MIDOGPP, empty_share=0.5)
    splits = json.loads((output / "splits.json").read_text())
    assert Counter(splits.values()) == {"train": 7, "val": 1, "test": 2}
    for split in ("val", "test"):
        whole = read_labels(output / "frames.json", split)
        assert labels_of(whole) == of_split(labels, splits, split)
        assert {Path(image.file_name).name for image in whole} == {f"{c}.tiff" for c, s in splits.items() if s == split}
    # Tiles overlap, so that a label of train may be in several.
    assert set(labels_of(read_labels(output / "windows.json"))) == set(of_split(labels, splits, "train"))
    assert all(w.rgb.shape == (512, 512, 3) for w in load_windows(output))
    for window in load_windows(output):
        assert set(brightness(window.rgb, window.points[window.categories == MITOTIC])) <= {20}

    with (output / "patches.csv").open(newline="") as file:
        rows = Counter((row["file"][:3], float(row["x"]), float(row["y"]), MITOTIC) for row in csv.DictReader(file))
    assert rows == Counter({k: n for k, n in of_split(labels, splits, "train", "val").items() if k[3] == MITOTIC})
    for held_out, split in ((False, "train"), (True, "val")):
        patches = load_patches(output, held_out)
        assert {p.slide.removeprefix("own")[:3] for p in patches} == {k[0] for k in rows if splits[k[0]] == split}
        assert all(int(p.rgb[64, 64].mean()) == 20 for p in patches)

    for name in ("windows", "frames"):
        about = json.loads((output / f"{name}.json").read_text())["info"]["description"]
        assert about == "MIDOGpp (7 training cases)"


@pytest.mark.parametrize("frame_px", [256, 4096])
def test_large_images_of_val_are_cut_into_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame_px: int
) -> None:
    """Each label is in one frame, frames without labels may be dropped, and test stays whole."""
    labels, output = write_midogpp(tmp_path / "in"), tmp_path / "out"
    monkeypatch.setattr(cutting, "LARGEST_PX", WIDTH * HEIGHT - 1)
    monkeypatch.setattr(cutting, "FRAME_PX", frame_px)
    prepare(tmp_path / "in", output, Format.MIDOGPP, empty_share=0.0)
    splits = json.loads((output / "splits.json").read_text())
    assert labels_of(read_labels(output / "frames.json", "val")) == of_split(labels, splits, "val")
    assert labels_of(read_labels(output / "frames.json", "test")) == of_split(labels, splits, "test")
    frames = load_frames(output, "val")
    assert len(frames) == len(list((output / "frames").glob("*_x*.png"))) <= len(frames_of(WIDTH, HEIGHT))
    for frame in frames:
        assert len(frame.points)
        assert max(frame.rgb.shape[:2]) <= max(frame_px, WIDTH)
        assert set(brightness(frame.rgb, frame.points[frame.categories == MITOTIC])) <= {20}
        assert set(brightness(frame.rgb, frame.points[frame.categories == LOOK_ALIKE])) <= {120}


def test_frames_cover_an_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "FRAME_PX", 600)
    covered = np.zeros((1201, 1801), int)
    for x, y, width, height in frames_of(1801, 1201):
        assert 400 <= width <= 600
        assert 400 <= height <= 600
        covered[y : y + height, x : x + width] += 1
    assert (covered == 1).all()
    assert frames_of(300, 20) == [(0, 0, 512, 512)]  # a tile at least, white beyond the image


def test_what_is_cut_has_the_networks_spacing(tmp_path: Path) -> None:
    """At 0.5 um a pixel tiles, patches and frames of val are twice as large in pixels; test stays as it is."""
    labels, output = write_midogpp(tmp_path / "in", PER_CM // 2), tmp_path / "out"
    prepare(tmp_path / "in", output, Format.MIDOGPP, empty_share=0.0)
    splits = json.loads((output / "splits.json").read_text())
    windows, val, test = (
        read_labels(output / f"{name}.json", split)
        for name, split in (("windows", "train"), ("frames", "val"), ("frames", "test"))
    )
    assert [{image.spacing_um for image in images} for images in (windows, val, test)] == [{0.25}, {0.25}, {0.5}]
    assert set(labels_of(windows, 0.5)) == set(of_split(labels, splits, "train"))
    assert labels_of(val, 0.5) == of_split(labels, splits, "val")
    assert labels_of(test) == of_split(labels, splits, "test")
    (frame,) = load_frames(output, "val")
    assert frame.rgb.shape == (2 * HEIGHT, 2 * WIDTH, 3)
    for image in [frame, *load_windows(output)]:
        for x, y in image.points[image.categories == MITOTIC].round().astype(int):
            disc = image.rgb[max(y - 16, 0) : y + 17, max(x - 16, 0) : x + 17]
            assert disc.max() <= 25  # a disc of radius 24 now
    with (output / "patches.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert labels[row["file"][:3], float(row["x"]) / 2, float(row["y"]) / 2, MITOTIC] == 1
    assert all(p.rgb[48:81, 48:81].max() <= 25 for p in load_patches(output))


def test_within_the_tolerance_pixels_stay_as_they_are(tmp_path: Path) -> None:
    labels, output = write_midogpp(tmp_path / "in", 44000), tmp_path / "out"  # 0.2273 um
    prepare(tmp_path / "in", output, Format.MIDOGPP, empty_share=0.0)
    splits = json.loads((output / "splits.json").read_text())
    windows = read_labels(output / "windows.json")
    assert all(abs(image.spacing_um - 1e4 / 44000) < 1e-9 for image in windows)
    assert set(labels_of(windows)) == set(of_split(labels, splits, "train"))
    assert {p.stem for p in (output / "frames").iterdir()} == {case for case, s in splits.items() if s != "train"}


def test_the_folder_can_be_moved(tmp_path: Path) -> None:
    """All that is described lies inside, under relative names, and the source is not needed any more."""
    write_midogpp(tmp_path / "in")
    prepare(tmp_path / "in", tmp_path / "out", Format.MIDOGPP, empty_share=0.0)
    prepare(tmp_path / "in", tmp_path / "out", Format.MIDOGPP, empty_share=0.0)  # again, over what is there
    (tmp_path / "in").rename(tmp_path / "gone")
    (tmp_path / "out").rename(tmp_path / "moved")
    for split, count in (("val", 1), ("test", 2)):
        assert len(load_frames(tmp_path / "moved", split)) == count
        for image in read_labels(tmp_path / "moved/frames.json", split):
            assert image.file_name == f"{image.case}.tiff"
            assert not (tmp_path / "moved/frames" / image.file_name).is_symlink()


def test_what_is_linked_is_never_written_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, target = tmp_path / "a.png", tmp_path / "frames/b.png"
    target.parent.mkdir()
    write_png(original, np.full((20, 30, 3), 7, np.uint8))
    slide = LabelledSlide(original, "b", "b", "", "")
    assert whole_image(slide, target.parent) == "b.png"
    assert target.samefile(original)
    write_png(target, np.full((20, 30, 3), 9, np.uint8))
    assert (int(read_rgb(original).mean()), int(read_rgb(target).mean())) == (7, 9)
    monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(OSError("another disk")))
    whole_image(slide, target.parent)
    assert int(read_rgb(target).mean()) == 7
    assert not target.samefile(original)
    whole_image(LabelledSlide(original, "a", "a", "", ""), tmp_path)  # that is where it lies already
    assert int(read_rgb(original).mean()) == 7


def test_own_labels_state_case_scanner_and_spacing(tmp_path: Path) -> None:
    """Pairs of images are cases; nothing but the labels says how large a pixel is; patches know scanner and case."""
    write_midogpp(tmp_path / "in", per_cm=None)
    path = tmp_path / "in/MIDOG++.json"
    document = json.loads(path.read_text())
    for image in document["images"]:
        image |= {"case": f"case{image['id'] // 2}", "scanner": f"S{image['id'] % 2}", "spacing_um": 0.25}
        del image["width"], image["height"]
    path.write_text(json.dumps(document))
    prepare(tmp_path / "in", tmp_path / "out", Format.MIDOGPP, empty_share=0.0)
    described = {image["file_name"]: (image["scanner"], image["case"]) for image in document["images"]}
    splits = json.loads((tmp_path / "out/splits.json").read_text())
    assert set(splits) == {case for _, case in described.values()}
    patches = load_patches(tmp_path / "out")
    found = {p.slide.removeprefix(SOURCE)[:3]: p.origin for p in patches}
    assert found == {name: Origin(*described[f"{name}.tiff"]) for name in found}
    assert len({origin.case for origin in found.values()}) < len(found)


def test_tiles_without_a_label_show_tissue(tmp_path: Path) -> None:
    """A mitosis at the left of a long strip of glass: within its tissue's margin tiles are kept, beyond it not."""
    (tmp_path / "in").mkdir()
    document: dict[str, Any] = {"images": [], "categories": [{"id": 1, "name": "mitosis"}]}
    document["annotations"] = [{"image_id": i, "category_id": 1, "bbox": [75, 75, 125, 125]} for i in range(3)]
    for number in range(3):
        rgb = np.full((512, 4096, 3), 240, np.uint8)
        rgb[:, :200] = (180, 100, 160)
        tifffile.imwrite(tmp_path / f"in/{number}.tiff", rgb, photometric="rgb")
        document["images"].append({"id": number, "file_name": f"{number}.tiff", "spacing_um": 0.25})
    (tmp_path / "in/MIDOG++.json").write_text(json.dumps(document))
    prepare(tmp_path / "in", tmp_path / "out", Format.MIDOGPP, empty_share=1.0)
    left_px = sorted(int(OFFSETS.fullmatch(p.name)[2]) for p in (tmp_path / "out/windows").iterdir())  # type: ignore[index]
    assert 1 < len(left_px) < 5
    assert left_px[-1] <= 200 + 400 + 64  # 100 um beyond the tissue, and a pixel of the mask


def test_data_that_later_stages_cannot_use_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_midogpp(tmp_path / "in")
    path = tmp_path / "in/MIDOG++.json"
    document = json.loads(path.read_text())
    prepare(tmp_path / "in", tmp_path / "out", Format.MIDOGPP)
    assert "warning" not in capsys.readouterr().out
    for image in document["images"]:
        image["case"] = str(image["id"] % 2)  # two cases, and no val
    path.write_text(json.dumps(document))
    prepare(tmp_path / "in", tmp_path / "out", Format.MIDOGPP)
    assert "warning: none of 2 cases is a val case" in capsys.readouterr().out
    path.write_text(json.dumps(document | {"annotations": []}))
    with pytest.raises(InputError, match="no training case has a mitotic figure"):
        prepare(tmp_path / "in", tmp_path / "out", Format.MIDOGPP)


def write_yolo(folder: Path) -> None:
    """Write three tiles each of ten cases, of which two have the same file names in images/train and images/val."""
    (folder / "data.yaml").parent.mkdir()
    (folder / "data.yaml").write_text("names: [mitosis]")
    for number in range(10):
        for tile, split in (("a", "train"), ("b", "train"), ("a", "val")):
            name = f"{split}/case{number}_{tile}"
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            grey = 20 * number + 5 * (tile == "b") + 10 * (split == "val")
            cv2.imwrite(str(folder / f"images/{name}.png"), np.full((512, 512, 3), grey, np.uint8))
            (folder / f"labels/{name}.txt").write_text("0 0.5 0.5 0.1 0.1\n")


def test_tiles_of_a_case_stay_together_and_apart_from_each_other(tmp_path: Path) -> None:
    output = tmp_path / "out"
    write_yolo(tmp_path / "in")
    prepare(tmp_path / "in", output, Format.YOLO, spacing=0.25, case_pattern=r"^(case\d+)_", name="drawn")
    splits = json.loads((output / "splits.json").read_text())
    assert sorted(splits) == [f"case{number}" for number in range(10)]
    windows = load_windows(output)
    assert len(windows) == 21
    greys = {(w.origin.case, int(w.rgb.mean())) for w in windows}  # none was overwritten by its namesake
    trained = [int(case[4:]) for case, split in splits.items() if split == "train"]
    assert greys == {(f"case{n}", 20 * n + add) for n in trained for add in (0, 5, 10)}
    patches = load_patches(output)
    assert len(patches) == 21 - sum(n == 0 for n in trained) * 2  # case 0 has patches as black as a border
    assert all(len(p.mitoses_px) == 1 for p in patches)  # those at the same place of other tiles are no neighbours
    about = json.loads((output / "windows.json").read_text())["info"]["description"]
    assert about == "drawn (7 training cases)"
    for split in ("val", "test"):  # whole, and told apart too
        held = [int(case[4:]) for case, s in splits.items() if s == split]
        frames = load_frames(output, split)
        assert {int(frame.rgb.mean()) for frame in frames} == {20 * n + add for n in held for add in (0, 5, 10)}
        assert [frame.points.tolist() for frame in frames] == [[[256, 256]]] * 3 * len(held)


def test_a_stated_spacing_is_not_overruled(tmp_path: Path) -> None:
    write_midogpp(tmp_path / "in", PER_CM // 2)
    with pytest.raises(SpacingError, match=r"states 0\.5 um per pixel .* but --spacing says 0\.25"):
        prepare(tmp_path / "in", tmp_path / "out", Format.MIDOGPP, spacing=0.25)


def test_labels_outside_their_image_are_left_out_of_whole_images_too(tmp_path: Path) -> None:
    write_yolo(tmp_path / "in")
    image = tmp_path / "in/images/train/case0_a.png"
    spots = [LabelledObject(-300, 20, MITOTIC), LabelledObject(300, 511, MITOTIC), LabelledObject(20, 512, MITOTIC)]
    with open_slide(image, 0.25) as slide:
        assert Grid(slide).level_0_points(spots).tolist() == [[300, 511, MITOTIC]]


def slides(*paths: str) -> list[LabelledSlide]:
    spot = [LabelledObject(1, 2, MITOTIC)]
    return [LabelledSlide(Path(path), Path(path).stem, Path(path).stem, "", "", spot) for path in paths]


def test_case_pattern() -> None:
    found = grouped(slides("train/s1_x0.png", "val/s1_x512.png", "val/s2_x0.png"), r"(.+)_x\d+")
    assert [s.case for s in found] == ["s1", "s1", "s2"]
    assert [s.name for s in found] == ["s1_x0", "s1_x512", "s2_x0"]
    with pytest.raises(InputError, match=r"other\.png"):
        grouped(slides("s1_x0.png", "other.png"), r"(.+)_x\d+")
    for pattern in ("(", "s.", "(s)(.)"):
        with pytest.raises(typer.BadParameter, match="case-pattern"):
            grouped(slides("s1_x0.png"), pattern)


def test_two_images_of_one_name_are_refused() -> None:
    check_names(slides("a.png", "b.png"))
    with pytest.raises(InputError, match=r"c/a\.jpg"):
        check_names(slides("a.png", "c/a.jpg"))
