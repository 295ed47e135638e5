"""test.sh's comparison lets rounding pass, and nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from check_output import problems_of

from mitosis.output.grand_challenge import Points, read_points

LIMIT = 0.3
EXPECTED = Points(
    np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.3], [0.4, 0.4]]),
    np.array([True, True, False, False]),
    np.array([0.9, 0.31, 0.15, 0.02]),
)


def changed(**columns: object) -> Points:
    return EXPECTED._replace(**{name: np.array(values) for name, values in columns.items()})


@pytest.mark.parametrize(
    "found",
    [
        changed(xy_mm=EXPECTED.xy_mm + 0.001),
        changed(probability=[0.85, 0.29, 0.17, 0.06], is_mitotic_figure=[True, False, False, False]),
        Points(*(column[:3] for column in EXPECTED)),  # a candidate at the detector's own limit
        Points(*(column[::-1] for column in EXPECTED)),
    ],
    ids=["moved by a rounding", "across the threshold", "the faintest absent", "another order"],
)
def test_rounding_passes(found: Points) -> None:
    assert problems_of(found, EXPECTED, LIMIT) == []


@pytest.mark.parametrize(
    "found",
    [
        changed(xy_mm=EXPECTED.xy_mm + 0.01),
        changed(xy_mm=EXPECTED.xy_mm * 4000),
        changed(probability=[0.7, 0.31, 0.15, 0.02]),
        changed(is_mitotic_figure=[False, True, False, False]),
        changed(is_mitotic_figure=[True, True, True, True]),
        Points(*(column[1:] for column in EXPECTED)),
        Points(*(column[:0] for column in EXPECTED)),
        Points(*(np.concatenate([column, column[:1]]) for column in EXPECTED))._replace(
            xy_mm=np.concatenate([EXPECTED.xy_mm, [[0.9, 0.9]]])
        ),
    ],
    ids=["moved", "pixels", "another score", "a figure less", "names only", "a point less", "nothing", "a point more"],
)
def test_what_is_wrong_is_found(found: Points) -> None:
    assert problems_of(found, EXPECTED, LIMIT)


def test_as_a_program(root: Path, tmp_path: Path) -> None:
    """The expected result is as expected; without its clearest mitotic figure it is not."""
    expected = root / "test/expected/mitotic-figures.json"
    command = [sys.executable, root / "test/check_output.py"]
    assert subprocess.run([*command, expected, expected], check=False).returncode == 0
    document = json.loads(expected.read_text())
    del document["points"][int(read_points(expected).probability.argmax())]
    (tmp_path / "a.json").write_text(json.dumps(document))
    result = subprocess.run([*command, tmp_path / "a.json", expected], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "has no partner" in result.stderr
