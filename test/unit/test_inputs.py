"""Which slides arguments stand for: a quoted pattern means what it means to the shell."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from mitosis.errors import InputError
from mitosis.inputs import find_slides
from mitosis.slide import open_slide


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


def test_what_macos_leaves_beside_a_slide_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "disk/one.svs", "disk/._one.svs", "bare/._one.svs")
    assert found(tmp_path, "disk") == found(tmp_path, "di*") == found(tmp_path, "disk/*") == ["disk/one.svs"]
    with pytest.raises(InputError, match="no image there"):
        found(tmp_path, "bare")


def test_a_folder_that_may_not_be_read_costs_no_other_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "good/one.svs", "locked/two.svs")
    forbid(monkeypatch, tmp_path / "locked")
    assert found(tmp_path, "good", "locked") == ["good/one.svs", "locked"]
    assert found(tmp_path, "*") == ["good/one.svs"]
    with pytest.raises(InputError, match="locked: may not be read; check its permissions"):
        open_slide(tmp_path / "locked")


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let a folder behave as one without permission does; root, who runs CI, may read all."""
    may, listed = os.access, Path.iterdir

    def iterdir(path: Path) -> Iterator[Path]:
        if path == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("os.access", lambda path, mode: path != folder and may(path, mode))
    monkeypatch.setattr(Path, "iterdir", iterdir)


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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"path,n\n../a.png,M\xfcller\n", "is not UTF-8"),
        (b"age\n7\n", "needs a header with a column 'path'"),
        (b"patient,path\nP1,a.png\nP2,\n", "line 3 has no path"),
        (b"patient,path\nP1\n", "line 2 has no path"),
        (b'patient,path\n"P\n1"," "\n', "line 3 has no path"),
        (b"path\n", "lists no slide"),
    ],
)
def test_what_is_wrong_with_a_manifest(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"list\.csv: .*{reason}"):
        found(tmp_path, "list.csv")


def test_blank_lines_of_a_manifest_are_none(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,n\na.png,1\n\nb.png,2\n\n")
    assert found(tmp_path, "list.csv") == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("a" * 300 + ".png", "cannot be reached"), ("nul\0.png", "cannot be reached|no such file")],  # by Python's version
)
def test_what_cannot_be_reached_fails_by_name(tmp_path: Path, name: str, reason: str) -> None:
    assert found(tmp_path, name) == [name]
    with pytest.raises(InputError, match=reason):
        open_slide(tmp_path / name, 0.25)


def test_a_folder_in_a_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "slides/a.png")
    (tmp_path / "list.csv").write_text("path\nslides\n")
    (only,) = find_slides([tmp_path / "list.csv"])
    with pytest.raises(InputError, match=r"slides: is a folder; list its images instead"):
        open_slide(only, 0.25)
