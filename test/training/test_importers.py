"""Each data set's traps, on small files of its form."""

import json
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from mitosis.errors import InputError
from training.data.images import LOOK_ALIKE, MITOTIC
from training.data.importers import LabelledObject, category_of, read_midogpp, read_slide_runner
from training.data.splits import split_cases
from training.data.yolo import read_yolo, yolo_centres

TAGS: dict[str, Any] = {"photometric": "rgb", "resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}


def write_midogpp(folder: Path, numbers: range = range(1, 4)) -> None:
    images = [
        {"id": i, "file_name": f"{i:03}.tiff", "width": 700, "height": 600, "tumor_type": "lung"} for i in numbers
    ]
    images.append({"id": 160, "file_name": "160.tiff", "width": 700, "height": 600})  # unlabelled, not negative
    annotations = [
        {"image_id": 1, "category_id": 1, "bbox": [100, 200, 150, 250]},
        {"image_id": 1, "category_id": 2, "bbox": [-20.5, 300, 29.5, 350]},  # reaches outside, its centre does not
        {"image_id": 2, "category_id": 1, "bbox": [400, 400, 450, 450]},
    ]
    categories = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}]
    (folder / "MIDOG++.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (folder / "datasets_xvalidation.csv").write_text(
        "Slide;Dataset;Tumor;Scanner;Origin;Species\n1;train;human lung;Hamamatsu XR;UMC;human\n"
    )


def test_midogpp_states_two_corners(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_midogpp(tmp_path)
    slides = read_midogpp(tmp_path)
    assert "1 of 151.tiff to 200.tiff left out" in capsys.readouterr().out
    assert [s.case for s in slides] == ["001", "002", "003"]
    assert slides[0].objects == [LabelledObject(125, 225, MITOTIC), LabelledObject(4.5, 325, LOOK_ALIKE)]
    assert (slides[0].scanner, slides[1].scanner) == ("Hamamatsu XR", "unknown")
    assert slides[2].objects == []
    assert (slides[0].tumor_type, slides[1].tumor_type) == ("lung", "lung")
    assert read_midogpp(tmp_path, "skin", "Aperio")[1].scanner == "Aperio"


def with_label(folder: Path, **changes: Any) -> None:
    """Write MIDOG++'s form with one more label."""
    write_midogpp(folder)
    document = json.loads((folder / "MIDOG++.json").read_text())
    document["annotations"].append({"image_id": 1, "category_id": 1, "bbox": [300, 300, 350, 350]} | changes)
    (folder / "MIDOG++.json").write_text(json.dumps(document))


def test_midogpp_refuses_labels_on_unlabelled_images(tmp_path: Path) -> None:
    with_label(tmp_path, image_id=160)
    with pytest.raises(InputError, match=r"160\.tiff"):
        read_midogpp(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [300, 300, 50, 50]}, "ends before it begins"),  # COCO's x, y, width, height
        ({"image_id": 77}, "no image of id 77"),
        ({"category_id": 3}, r"MIDOG\+\+'s JSON form"),
        ({"bbox": [300, 300]}, r"MIDOG\+\+'s JSON form"),
    ],
)
def test_midogpp_refuses_labels_that_contradict(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with_label(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        read_midogpp(tmp_path)


def write_own(folder: Path, **stated: Any) -> None:
    """Write the form of docs/formats.md: two images named as unlabelled ones of MIDOG++ are, the second empty."""
    images = [{"id": i, "file_name": f"{159 + i}.tiff", "spacing_um": 0.25, "split": "test"} | stated for i in (1, 2)]
    document = {
        "categories": [
            {"id": 1, "name": "Mitosis"},
            {"id": 5, "name": "non-mitosis"},
            {"id": 6, "name": "granulocyte"},
        ],
        "images": images,
        "annotations": [
            {"image_id": 1, "category_id": number, "bbox": [100 * number, 200, 100 * number + 50, 250]}
            for number in (5, 1, 6)
        ],
    }
    (folder / "MIDOG++.json").write_text(json.dumps(document))


def test_own_data_in_midogpps_form(tmp_path: Path) -> None:
    write_own(tmp_path, case="A", scanner="S", tumor_type="skin")
    first, second = read_midogpp(tmp_path)
    assert first.objects == [LabelledObject(125, 225, MITOTIC), LabelledObject(525, 225, LOOK_ALIKE)]
    assert second.objects == []
    assert {(s.case, s.scanner, s.tumor_type, s.spacing_um) for s in (first, second)} == {("A", "S", "skin", 0.25)}
    write_own(tmp_path)  # 160.tiff and 161.tiff, but nothing else is MIDOG's
    assert [s.case for s in read_midogpp(tmp_path, "skin", "S")] == ["160", "161"]


@pytest.mark.parametrize("content", [None, "x", "[]", "{}"])
def test_a_source_that_is_not_midogpp_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "MIDOG++.json").write_text(content)
    with pytest.raises(InputError, match=r"MIDOG\+\+\.json"):
        read_midogpp(tmp_path)


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("Mitose", MITOTIC), ("MITOTIC_FIGURE", MITOTIC), ("Hard negative", LOOK_ALIKE), ("Tumorzelle", None),
        ("mitosis-like", LOOK_ALIKE), ("MitosisLike", LOOK_ALIKE), ("mitotic like", LOOK_ALIKE),
        ("Mitotic figure look-alike", LOOK_ALIKE), ("mitotic figure look-alikes", LOOK_ALIKE),
        ("non-mitotic figure", LOOK_ALIKE), ("hard negative look-alike", LOOK_ALIKE),
    ],
)  # fmt: skip
def test_class_names_go_by_alias(name: str, category: int | None) -> None:
    assert category_of(name, Path("x")) == category


def test_an_unknown_class_is_refused() -> None:
    with pytest.raises(InputError, match="'Plasma cell'"):
        category_of("Plasma cell", Path("x"))


def write_database(path: Path, new: bool, classes: dict[int, str]) -> None:
    """Write a SlideRunner database: spot, look-alike, polygon, disputed and (new layout) deleted spot, box, circle."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE Classes (uid INTEGER, name TEXT, color TEXT)")
        db.executemany("INSERT INTO Classes (uid, name) VALUES (?, ?)", classes.items())
        db.execute("CREATE TABLE Slides (uid INTEGER, width INTEGER, filename TEXT)")
        db.execute("INSERT INTO Slides VALUES (7, 1000, 'a.svs')")
        extra = ", guid TEXT, deleted INTEGER" if new else ""
        db.execute(f"CREATE TABLE Annotations (agreedClass INTEGER, uid INTEGER, type INTEGER, slide INTEGER{extra})")
        columns = (
            "uid INTEGER, coordinateX INTEGER, coordinateY INTEGER, slide INTEGER, annoId INTEGER, orderIdx INTEGER"
        )
        db.execute(f"CREATE TABLE Annotations_coordinates ({columns})")
        mitosis, other = classes
        rows = [
            (mitosis, 1, 1),
            (other, 2, 1),
            (mitosis, 3, 3),
            (0, 4, 1),
            (mitosis, 5, 1),
            (other, 6, 2),
            (other, 7, 5),
        ]
        for agreed, uid, kind in rows:
            values = (agreed, uid, kind, 7) + (("g", int(uid == 5)) if new else ())
            db.execute(f"INSERT INTO Annotations VALUES ({', '.join('?' * len(values))})", values)
            corners = [(100, 200), (140, 200), (140, 260), (100, 260)]
            points = {1: [(10 * uid, 20 * uid)], 3: corners}.get(kind, corners[::2])
            for index, (x, y) in enumerate(points):
                db.execute("INSERT INTO Annotations_coordinates VALUES (1, ?, ?, 7, ?, ?)", (x, y, uid, index))


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize("classes", [{1: "Mitose", 2: "Nonmitotic"}, {4: "non-mitotic", 2: "mitotic figure"}])
def test_slide_runner(tmp_path: Path, new: bool, classes: dict[int, str]) -> None:
    """Class numbers differ per database; deleted annotations count only where the column exists."""
    write_database(tmp_path / "x.sqlite", new, classes)
    (slide,) = read_slide_runner(tmp_path / "x.sqlite", tmp_path, "mast cell", "Aperio")
    first, second = (category_of(name, tmp_path) for name in classes.values())
    expected = [
        LabelledObject(10, 20, first or 0),
        LabelledObject(20, 40, second or 0),
        LabelledObject(120, 230, first or 0),
    ]
    expected += [] if new else [LabelledObject(50, 100, first or 0)]
    assert slide.path == tmp_path / "a.svs"
    assert slide.objects == [*expected, *[LabelledObject(120, 230, second or 0)] * 2]


def test_slide_runner_refuses_an_unknown_class(tmp_path: Path) -> None:
    write_database(tmp_path / "x.sqlite", True, {1: "Mitose", 2: "Kernmatsch"})
    with pytest.raises(InputError, match="Kernmatsch"):
        read_slide_runner(tmp_path / "x.sqlite", tmp_path, "", "")


def test_slide_runner_refuses_a_class_without_a_name(tmp_path: Path) -> None:
    write_database(tmp_path / "x.sqlite", True, {1: "Mitose", 2: "Nonmitotic"})
    with sqlite3.connect(tmp_path / "x.sqlite") as db:
        db.execute("UPDATE Annotations SET agreedClass = 9 WHERE uid = 2")
    with pytest.raises(InputError, match="class 9"):
        read_slide_runner(tmp_path / "x.sqlite", tmp_path, "", "")


def test_slide_runner_refuses_a_label_without_a_place(tmp_path: Path) -> None:
    write_database(tmp_path / "x.sqlite", True, {1: "Mitose", 2: "Nonmitotic"})
    with sqlite3.connect(tmp_path / "x.sqlite") as db:
        db.execute("DELETE FROM Annotations_coordinates WHERE annoId IN (4, 5)")  # disputed and deleted: never needed
    read_slide_runner(tmp_path / "x.sqlite", tmp_path, "", "")
    with sqlite3.connect(tmp_path / "x.sqlite") as db:
        db.execute("DELETE FROM Annotations_coordinates WHERE annoId = 7")
    with pytest.raises(InputError, match="annotation 7 has no coordinates"):
        read_slide_runner(tmp_path / "x.sqlite", tmp_path, "", "")


@pytest.mark.parametrize("name", ["missing.sqlite", "text.sqlite", "."])
def test_a_source_that_is_no_database_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.sqlite").write_text("nonsense" * 200)
    with pytest.raises(InputError, match="no SlideRunner database"):
        read_slide_runner(tmp_path / name, tmp_path, "", "")


def test_yolo(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / "images" / f"{name}.tif", np.zeros((200, 400, 3), np.uint8), **TAGS)
    (tmp_path / "labels/a.txt").write_text("1 0.25 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text("names: [look-alike, mitosis]")
    a, b = read_yolo(tmp_path, "", "")
    assert a.objects == [LabelledObject(100, 100, MITOTIC), LabelledObject(200, 100, LOOK_ALIKE)]
    assert b.objects == []
    (tmp_path / "labels/b.txt").write_text("5 0.5 0.5 0.1 0.1")
    with pytest.raises(InputError, match="class 5"):
        read_yolo(tmp_path, "", "")


@pytest.mark.parametrize("layout", ["{kind}/{split}", "{split}/{kind}"])
def test_yolo_images_of_one_name_are_two(tmp_path: Path, layout: str) -> None:
    for split, x in (("train", 0.25), ("val", 0.75)):
        images, labels = (tmp_path / layout.format(kind=kind, split=split) for kind in ("images", "labels"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        tifffile.imwrite(images / "a.b.tif", np.zeros((200, 400, 3), np.uint8), **TAGS)
        (labels / "a.b.txt").write_text(f"0 {x} 0.5 0.1 0.1\n")
    (tmp_path / "data.yaml").write_text("names: {0: mitosis}")
    train, val = read_yolo(tmp_path, "", "")
    assert (train.name, val.name) == ("train_a.b", "val_a.b")
    assert (train.case, val.case) == ("train_a.b", "val_a.b")
    assert train.objects == [LabelledObject(100, 100, MITOTIC)]
    assert val.objects == [LabelledObject(300, 100, MITOTIC)]


def test_a_source_that_is_not_yolo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.yaml"):
        read_yolo(tmp_path, "", "")
    (tmp_path / "data.yaml").write_text("names: [mitosis]")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="no image"):
        read_yolo(tmp_path, "", "")


@pytest.mark.parametrize(
    "line", ["0 0.5 0.5", "0 0.5 0.5 0.1 x", "0 0.1 0.1 0.2 0.1 0.2 0.2", "0 50 60 10 10", "0.5 0 0 0 0"]
)
def test_malformed_yolo_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n0 0.5 0.25 0.1 0.1\n  \n")
    assert list(yolo_centres(path)) == [(0, 0.5, 0.25)]  # blank lines are none
    path.write_text(f"\n0 0.5 0.25 0.1 0.1\n{line}\n")
    with pytest.raises(InputError, match=r"a\.txt, line 3"):
        list(yolo_centres(path))


def test_splits_are_by_case_stratified_and_deterministic() -> None:
    cases = {f"{kind}{i}": kind for kind, count in (("lung", 40), ("skin", 20), ("rare", 3)) for i in range(count)}
    splits = split_cases(cases)
    assert splits == split_cases(dict(reversed(cases.items())))
    assert splits != split_cases(cases, seed=1)
    for kind, count in (("lung", 40), ("skin", 20)):
        held = [splits[c] for c, k in cases.items() if k == kind]
        assert [held.count(s) for s in ("train", "val", "test")] == [0.7 * count, 0.1 * count, 0.2 * count]


@pytest.mark.parametrize(
    ("sizes", "totals"),
    [
        ([4] * 10, [28, 4, 8]),
        ([1] * 20, [14, 2, 4]),
        ([5], [3, 1, 1]),
        ([3], [1, 1, 1]),
        ([40, 20, 3], [44, 6, 13]),
        ([9, 1, 1, 2, 7, 30], [35, 5, 10]),
    ],
)
def test_splits_hold_over_all_cases_and_nearly_in_each_type(sizes: list[int], totals: list[int]) -> None:
    """Largest remainders overall, none empty, and no type more than a case from its part of them."""
    cases = {f"{kind}-{i}": str(kind) for kind, size in enumerate(sizes) for i in range(size)}
    splits = split_cases(cases)
    assert [Counter(splits.values())[s] for s in ("train", "val", "test")] == totals
    for kind, size in enumerate(sizes):
        held = Counter(splits[case] for case, of in cases.items() if of == str(kind))
        for split, total in zip(("train", "val", "test"), totals, strict=True):
            assert abs(held[split] - size * total / len(cases)) <= 1
