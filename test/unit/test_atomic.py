"""Files that are whole or not there."""

from collections.abc import Iterator
from pathlib import Path

from mitosis.output.atomic import remove_leftovers, write_whole


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """The name of what is left is seen while a file is being written."""
    neighbours: list[Path] = []

    def content() -> Iterator[bytes]:
        neighbours.extend(tmp_path.iterdir())
        yield b"x"

    write_whole(tmp_path / "detections.csv", content())
    assert len(neighbours) == 1
    for path in (*neighbours, tmp_path / ".hidden", tmp_path / "run.json"):
        path.write_text("half")
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".hidden", "detections.csv", "run.json"]
