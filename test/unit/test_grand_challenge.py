"""The challenge's file: what is accepted, what is refused, and never half of it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitosis.errors import InputError, OutputError
from mitosis.output.grand_challenge import (
    InvalidDocumentError,
    Points,
    check,
    evaluator_problems,
    pieces,
    read_points,
    to_document,
    write_points,
)
from mitosis.terminal import run_command


def points(count: int = 3) -> Points:
    rng = np.random.default_rng(0)
    return Points(rng.uniform(0, 2, (count, 2)), rng.random(count) > 0.5, rng.random(count))


@pytest.mark.parametrize("count", [0, 1, 50])
def test_what_is_written_is_read(tmp_path: Path, count: int) -> None:
    path = tmp_path / "deep/er/mitotic-figures.json"
    write_points(path, points(count))
    found = read_points(path)
    np.testing.assert_allclose(found.xy_mm, points(count).xy_mm, atol=1e-7)
    np.testing.assert_array_equal(found.is_mitotic_figure, points(count).is_mitotic_figure)
    np.testing.assert_allclose(found.probability, points(count).probability, atol=1e-6)
    first = path.read_bytes()
    write_points(path, points(count))
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 50])
def test_pieces_make_up_the_document(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("mitosis.output.grand_challenge.PART", 8)
    assert b"".join(pieces(points(count))) == json.dumps(to_document(points(count)), indent=1).encode()


def test_numbers_beyond_the_first_part_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mitosis.output.grand_challenge.PART", 8)
    for column, value in (("xy_mm", np.nan), ("probability", np.inf), ("probability", 1.1)):
        bad = points(20)
        getattr(bad, column)[15] = value
        with pytest.raises(InvalidDocumentError):
            write_points(tmp_path / "a.json", bad)
    assert not list(tmp_path.iterdir())


def change(path: str, value: Any) -> dict[str, Any]:
    document = json.loads(json.dumps(to_document(points())))
    *parents, last = path.split("/")
    place: Any = document
    for key in parents:
        place = place[int(key)] if key.isdigit() else place[key]
    place[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("type", "Mulitple points"),
        ("extra", 1),
        ("version", {"major": 1}),
        ("points/0/name", "non mitotic figure"),
        ("points/0/colour", "red"),
        ("points/0/point", [0.1, 0.2]),
        ("points/0/point", [0.1, 0.2, 0.3]),
        ("points/0/point", [float("nan"), 0.2, 0]),
        ("points/0/probability", 1.5),
        ("points/0/probability", float("nan")),
        ("points/0/probability", float("inf")),
    ],
)
def test_invalid_documents_are_refused(path: str, value: Any) -> None:
    with pytest.raises(InvalidDocumentError):
        check(change(path, value))


def test_our_own_bad_numbers_are_a_bug_and_not_the_inputs_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the tests keep their own
    bad = points()
    bad.probability[1] = np.nan
    with pytest.raises(SystemExit, match="70"):
        run_command(lambda: write_points(tmp_path / "a.json", bad), debug=False)
    assert "report it" in capsys.readouterr().err.splitlines()[-1]


def test_a_point_without_probability_is_refused() -> None:
    document = to_document(points())
    del document["points"][0]["probability"]
    with pytest.raises(InvalidDocumentError):
        check(document)


def test_pixels_are_noticed() -> None:
    good = points()
    assert evaluator_problems(good) == []
    assert len(evaluator_problems(good._replace(xy_mm=good.xy_mm * 4000))) == 3
    assert evaluator_problems(good._replace(xy_mm=good.xy_mm - 5))


def test_nothing_is_left_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"mitotic-figures\.json.*No space"):
        write_points(tmp_path / "mitotic-figures.json", points())
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"type": "Multiple points"')
    with pytest.raises(InputError, match=r"a\.json"):
        read_points(tmp_path / "a.json")
