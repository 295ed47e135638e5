"""The paper's Table 1 on the drawn case: three sets, three variants, a threshold from val alone, and the pictures."""

import json
import shutil
from pathlib import Path

import pytest
import tifffile
from PIL import Image

from mitosis.errors import InputError
from training.compare_variants import main
from training.scored import sets_in


def write_sets(root: Path, data: Path) -> None:
    """Write a corner of the drawn case as the frame of val and of test, and as that of aperio."""
    pixels = tifffile.imread(next((root / "test/input/interf0/images").rglob("*.tiff")))[:1024, :1024]
    document = json.loads((root / "test/planted.json").read_text())
    inside = [a for a in document["annotations"] if max(a["bbox"]) <= 1024]
    for folder, splits in (("frames", ("val", "test")), ("aperio", ("test",))):
        (data / folder).mkdir()
        images, annotations = [], []
        for number, split in enumerate(splits, start=1):
            name = f"{folder}-{split}.png"
            Image.fromarray(pixels).save(data / folder / name)
            images.append(document["images"][0] | {"id": number, "file_name": name, "split": split, "case": name})
            annotations += [a | {"id": len(annotations) + i, "image_id": number} for i, a in enumerate(inside)]
        content = document | {"images": images, "annotations": annotations}
        (data / f"{folder}.json").write_text(json.dumps(content))


def called_improved(root: Path, folder: Path) -> Path:
    """Copy the default bundle, its detector by another name: what is compared is a matter of the name alone."""
    shutil.copytree(root / "model", folder)
    path = folder / "bundle.yaml"
    path.write_text(path.read_text().replace("yolo11n stock", "yolo11n improved"))
    return folder


def test_the_table_and_the_pictures(root: Path, tmp_path: Path) -> None:
    write_sets(root, tmp_path)
    main(tmp_path, tmp_path / "out", root / "model", basic=root / "model")
    lines = (tmp_path / "out/table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    sets = {(row[0], row[1]): row[2:] for row in rows if row[0] in ("val", "test", "aperio")}
    assert len(sets) == 12
    for name in ("basic", "first look", "stage 1", "two stages"):
        assert sets["val", name] == sets["test", name] == sets["aperio", name]  # one picture, one threshold
    assert sets["val", "basic"] == sets["val", "stage 1"]
    assert sets["val", "first look"] != sets["val", "stage 1"] != sets["val", "two stages"]
    assert int(sets["val", "two stages"][1]) >= 8  # true positives
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert {"pr.png", "froc.png", "reliability.png", "gallery-test-two-stages.png"} <= pictures


def test_a_folder_without_aperio_and_an_improved_bundle(root: Path, tmp_path: Path) -> None:
    write_sets(root, tmp_path)
    (tmp_path / "aperio.json").unlink()
    main(tmp_path, tmp_path / "out", root / "model", improved=called_improved(root, tmp_path / "improved"))
    lines = [line.split(" | ") for line in (tmp_path / "out/table.md").read_text().splitlines()]
    assert [line[1] for line in lines if line[0] == "| val"] == ["improved", "first look", "stage 1", "two stages"]
    improved, _, alone, _ = (line[2:] for line in lines if line[0] == "| val")
    assert improved == alone
    assert not [line for line in lines if line[0] == "| aperio"]


def test_a_folder_without_unseen_images(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """frames.json has no image of split test: there is the line of val, and nothing to draw."""
    write_sets(root, tmp_path)
    (tmp_path / "aperio.json").unlink()
    document = json.loads((tmp_path / "frames.json").read_text())
    document["images"] = [image for image in document["images"] if image["split"] == "val"]
    document["annotations"] = [a for a in document["annotations"] if a["image_id"] == document["images"][0]["id"]]
    (tmp_path / "frames.json").write_text(json.dumps(document))
    main(tmp_path, tmp_path / "out", root / "model")
    lines = [line.split(" | ")[:2] for line in (tmp_path / "out/table.md").read_text().splitlines()]
    assert [line[1] for line in lines if line[0] == "| val"] == ["first look", "stage 1", "two stages"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["table.md"]
    assert "nothing is drawn" in capsys.readouterr().out


def test_without_val_nothing_is_scored(root: Path, tmp_path: Path) -> None:
    write_sets(root, tmp_path)
    (tmp_path / "frames.json").write_text((tmp_path / "frames.json").read_text().replace('"val"', '"test"'))
    with pytest.raises(InputError, match="no image of split 'val'"):
        sets_in(tmp_path)


def test_a_line_is_held_to_its_variant(root: Path, tmp_path: Path) -> None:
    for option in ({"improved": root / "model"}, {"basic": called_improved(root, tmp_path / "improved")}):
        with pytest.raises(InputError, match="its detector is yolo11n"):
            main(tmp_path, tmp_path / "out", root / "model", **option)
