"""Which slides arguments stand for: a quoted pattern means what it means to the shell."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from mitosis.errors import InputError
from mitosis.inputs import find_slides


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("")


def found(folder: Path, *given: str) -> list[str]:
    """Return what arguments in a folder stand for, relative to it."""
    return relative(find_slides([folder / name for name in given]), folder)


def relative(paths: Iterable[Path], folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in paths]


def test_a_pattern_opens_folders_and_manifests(tmp_path: Path) -> None:
    touch(tmp_path, "a/one.tiff", "a/two.svs", "b/three.png", "far/four.tiff")
    (tmp_path / "b/list.csv").write_text("path\n../far/four.tiff\n")
    assert found(tmp_path, "[ab]") == found(tmp_path, "a", "b") == ["a/one.tiff", "a/two.svs", "b/three.png"]
    assert found(tmp_path, "b/*") == found(tmp_path, "b/list.csv", "b/three.png") == [
        "b/../far/four.tiff", "b/three.png",
    ]  # fmt: skip
    assert found(tmp_path, "b/*.csv") == ["b/../far/four.tiff"]


def test_a_pattern_passes_over_what_is_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "one.tiff", "notes.txt", "empty/readme", "deep/deeper/two.tiff")
    (tmp_path / "ages.csv").write_text("age\n7\n")
    assert found(tmp_path, "*") == ["one.tiff"]
    assert "ages.csv: is not a manifest" in caplog.text
    assert sorted(found(tmp_path, "**")) == ["deep/deeper/two.tiff", "one.tiff"]
    for pattern, reason in (("n*", "matches no image"), ("empt*", "empty: no image there"), ("a*", "not a manifest")):
        with pytest.raises(InputError, match=reason):
            found(tmp_path, pattern)


def test_results_of_earlier_runs_are_no_slides(tmp_path: Path) -> None:
    """Not even where they were written beside the slide itself, which is found again."""
    touch(tmp_path, "one/one.png", "one/overlay.png", "one/detections.csv", "other/overlay.png")
    (tmp_path / "one/run.json").write_text(json.dumps({"files": {"overlay.png": "", "detections.csv": ""}}))
    (tmp_path / "other/run.json").write_text("[]")  # of another program
    assert found(tmp_path, "**/*.png") == ["one/one.png", "other/overlay.png"]
    assert found(tmp_path, "one/*") == found(tmp_path, "one") == ["one/one.png"]


def test_one_slide_under_two_names_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a/one.tiff")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "two.tiff").symlink_to("a/one.tiff")
    given = [Path("a/one.tiff"), tmp_path / "a/one.tiff", Path("a/../a/one.tiff"), Path("link/one.tiff")]
    assert find_slides(given) == [Path("a/one.tiff")]
    assert find_slides([*given, Path("two.tiff")]) == [Path("a/one.tiff"), Path("two.tiff")]  # results of its own
