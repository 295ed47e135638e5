"""Files that are whole or not there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mitosis.errors import OutputError
from mitosis.output.atomic import check_folder, remove, remove_leftovers, write_whole


def interrupted(error: BaseException) -> Iterator[bytes]:
    yield b"half"
    raise error


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt(), OSError("disk full")], ids=repr)
def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    """SIGTERM arrives as SystemExit, wherever the program is."""
    (tmp_path / "a.json").write_text("old")
    with pytest.raises((type(error), OutputError)):
        write_whole(tmp_path / "a.json", interrupted(error))
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_everybody_may_read_it(tmp_path: Path) -> None:
    write_whole(tmp_path / "new/a.json", b"{}")
    assert (tmp_path / "new/a.json").stat().st_mode & 0o777 == 0o644


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(OutputError, match="choose a folder that can be written to"):
        write_whole(tmp_path / "a/b.json", b"")
    with pytest.raises(OutputError, match="choose a folder that can be written to"):
        remove(tmp_path / "a/b.json")
    for folder in (tmp_path / "a", tmp_path / "a/b"):
        with pytest.raises(OutputError, match=r"/a.*choose a writable"):
            check_folder(folder)


def test_checking_a_folder_makes_it_and_leaves_nothing(tmp_path: Path) -> None:
    check_folder(tmp_path / "new/folder")
    assert list((tmp_path / "new/folder").iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """The name of what is left is seen while a file is being written."""
    neighbours: list[Path] = []

    def content() -> Iterator[bytes]:
        neighbours.extend(tmp_path.iterdir())
        yield b"x"

    write_whole(tmp_path / "detections.csv", content())
    assert len(neighbours) == 1
    own = [".backup.20250101", ".detections.csv.of_monday", ".hidden", ".notes.markdown", "run.json"]
    for path in (*neighbours, *map(tmp_path.joinpath, own)):
        path.write_text("half")
    remove_leftovers(tmp_path, ["detections.csv", "run.json"])
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*own, "detections.csv"])
