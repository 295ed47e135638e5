"""Reading labelled images for training: one label form, and errors that say what to do."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_data import write_training_data

from mitosis.errors import InputError
from training.data import images
from training.data.balance import Origin
from training.data.images import LOOK_ALIKE, MITOTIC, load_frames, load_patches, load_windows, read_rgb


def test_only_the_training_windows_are_loaded(tmp_path: Path) -> None:
    path = write_training_data(tmp_path) / "windows.json"
    document = json.loads(path.read_text())
    document["categories"] = [{"id": 1, "name": "not mitotic figure"}, {"id": 2, "name": "mitotic figure"}]
    document["images"].append(document["images"][0] | {"id": 2, "split": "val"})
    path.write_text(json.dumps(document))
    (window,) = load_windows(tmp_path)
    assert window.points.tolist() == [[325, 325], [64, 64]]  # mitoses first, by the file's own names
    assert window.categories.tolist() == [MITOTIC, LOOK_ALIKE]
    assert (window.points.dtype, window.origin) == (np.float32, Origin("drawn", "A"))


def test_labels_of_another_form_are_refused(tmp_path: Path) -> None:
    (write_training_data(tmp_path) / "windows.json").write_text('{"images": []}')
    with pytest.raises(InputError, match=r"windows\.json"):
        load_windows(tmp_path)
    with pytest.raises(InputError, match="no image of split 'test'"):
        load_frames(tmp_path, "test")


def test_beyond_the_memory_images_are_decoded_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_training_data(tmp_path) / "windows.json"
    document = json.loads(path.read_text())
    for number in (2, 3):
        document["images"].append(document["images"][0] | {"id": number, "file_name": f"{number}.png"})
        cv2.imwrite(str(tmp_path / f"windows/{number}.png"), np.full((704, 704, 3), 50 * number, np.uint8))
    path.write_text(json.dumps(document))
    monkeypatch.setattr(images, "KEPT_BYTES", 704 * 704 * 3 + 1)
    windows = load_windows(tmp_path)
    assert [isinstance(w.image, Path) for w in windows] == [False, False, True]
    assert [int(w.rgb[0, 0, 0]) for w in windows] == [230, 100, 150]
    (tmp_path / "windows/3.png").unlink()
    with pytest.raises(InputError, match=r"3\.png: no such file"):  # at once, not hours later
        load_windows(tmp_path)


def test_data_without_patches_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_training_data(tmp_path) / "patches.csv"
    path.write_text("file,source,slide,x,y\n")
    for _ in range(2):
        assert load_patches(tmp_path) == load_patches(tmp_path, held_out=True) == []
        assert capsys.readouterr().out.count("patches.csv: no patch to train on") == 1
        path.unlink(missing_ok=True)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"a\.png: cannot be decoded"):
        read_rgb(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"b\.png: no such file"):
        read_rgb(tmp_path / "b.png")


def test_a_file_that_only_opencv_knows_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics replaces Pillow's open by one that asks for a package that may be missing."""

    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'pi_heif'")

    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    monkeypatch.setattr(images.Image, "open", missing)
    assert read_rgb(tmp_path / "a.png").shape == (20, 30, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_too_large_images_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
    monkeypatch.setattr(images, "LARGEST_PX", 600)
    assert read_rgb(path).shape == (20, 30, 3)
    monkeypatch.setattr(images, "LARGEST_PX", 599)
    with pytest.raises(InputError, match="30 x 20 px"):
        read_rgb(path)


@pytest.mark.data
def test_real_windows(data: Path) -> None:
    document = json.loads((data / "windows.json").read_text())
    windows = load_windows(data)
    assert len(windows) == len(document["images"])
    for category in (MITOTIC, LOOK_ALIKE):
        expected = sum(a["category_id"] == category for a in document["annotations"])
        assert sum(int((w.categories == category).sum()) for w in windows) == expected
