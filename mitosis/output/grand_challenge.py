"""Writes and reads ``mitotic-figures.json``, Grand Challenge's "Multiple points".

python -m mitosis.output.grand_challenge FILE     checks a file against the schema and the evaluator's rules
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import numpy as np
from numpy.typing import NDArray

from mitosis.config import one_line
from mitosis.detections import MITOTIC_FIGURE, NON_MITOTIC_FIGURE
from mitosis.errors import InputError
from mitosis.output.atomic import write_whole
from mitosis.places import shipped

FILE_NAME = "mitotic-figures.json"
PART = 4096  # points that are in memory as text at a time
NOT_FINITE = "a coordinate is not finite, or a probability not within 0 and 1"
VERSION = {"major": 1, "minor": 0}
EVALUATOR_MM = (-0.0075, 10.0)  # MIDOG's evaluator refuses coordinates outside: it takes them for pixels
MM_DIGITS, PROBABILITY_DIGITS = 7, 6  # 0.1 nm, and far below what the scores mean: the same input, the same bytes


class InvalidDocumentError(ValueError):
    """Not what the platform accepts. In what is about to be written that is a bug, so this is no MitosisError."""


class Points(NamedTuple):
    """The content of a file: ``xy_mm`` (n, 2), ``is_mitotic_figure`` (n,), ``probability`` (n,)."""

    xy_mm: NDArray[np.float64]
    is_mitotic_figure: NDArray[np.bool_]
    probability: NDArray[np.float64]


def write_points(path: Path, points: Points) -> None:
    """Write the file whole or not at all, in the order of the points; memory does not grow with their number.

    All numbers are checked, and the first ``PART`` points with the whole document against the platform's schema: the
    rest has their form. Raises InvalidDocumentError when a value is not finite or a probability is outside 0..1, and
    OutputError when the file cannot be written.
    """
    check(to_document(part(points, 0)))
    if not (np.isfinite(points.xy_mm).all() and ((points.probability >= 0) & (points.probability <= 1)).all()):
        raise InvalidDocumentError(f"{FILE_NAME}: {NOT_FINITE}")
    write_whole(path, pieces(points))


def pieces(points: Points) -> Iterator[bytes]:
    """Yield the document as text, ``PART`` points at a time: what json.dumps(to_document(points), indent=1) gives."""
    empty = json.dumps(to_document(part(points, len(points.probability))), indent=1)
    before, after = empty.split("[]")
    yield before.encode() + b"["
    for begin in range(0, len(points.probability), PART):
        some = json.dumps(to_document(part(points, begin))["points"], indent=1, allow_nan=False)
        yield (b"," if begin else b"") + some[1:-2].replace("\n", "\n ").encode()
    yield (b"\n ]" if len(points.probability) else b"]") + after.encode()


def part(points: Points, begin: int) -> Points:
    """Return up to ``PART`` points from ``begin`` on."""
    some = slice(begin, begin + PART)
    return Points(points.xy_mm[some], points.is_mitotic_figure[some], points.probability[some])


def to_document(points: Points) -> dict[str, Any]:
    """Build the JSON document."""
    rows = zip(points.xy_mm.tolist(), points.is_mitotic_figure.tolist(), points.probability.tolist(), strict=True)
    return {
        "name": "Mitotic figures",
        "type": "Multiple points",
        "points": [
            {
                "name": MITOTIC_FIGURE if is_mitotic_figure else NON_MITOTIC_FIGURE,
                "point": [round(x, MM_DIGITS), round(y, MM_DIGITS), 0.0],
                "probability": round(probability, PROBABILITY_DIGITS),
            }
            for (x, y), is_mitotic_figure, probability in rows
        ],
        "version": VERSION,
    }


def check(document: object) -> None:
    """Raise InvalidDocumentError unless the document is what the platform accepts."""
    for error in validator().iter_errors(document):
        place = "/".join(map(str, error.path)) or "document"
        raise InvalidDocumentError(f"{FILE_NAME}: {place}: {error.message}")
    numbers = [value for point in document["points"] for value in (*point["point"], point["probability"])]  # type: ignore[index]
    if not np.isfinite(numbers).all():
        raise InvalidDocumentError(f"{FILE_NAME}: {NOT_FINITE}")


@cache
def validator() -> jsonschema.Draft202012Validator:
    """Load the schema from ``resources/``."""
    folder = Path(os.environ.get("MITOSIS_RESOURCES", shipped("resources")))
    return jsonschema.Draft202012Validator(json.loads((folder / "mitotic-figures.schema.json").read_text()))


def read_points(path: Path) -> Points:
    """Read a file; raises InputError, naming it, when it is not valid."""
    try:
        document = json.loads(path.read_text())
        check(document)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no valid {FILE_NAME} ({one_line(error)[:200]}); detect again") from error
    rows = document["points"]
    return Points(
        np.array([row["point"][:2] for row in rows], np.float64).reshape(-1, 2),
        np.array([row["name"] == MITOTIC_FIGURE for row in rows], bool),
        np.array([row["probability"] for row in rows], np.float64),
    )


def evaluator_problems(points: Points) -> list[str]:
    """Return why MIDOG's evaluator would refuse the submission. Whole slides, which reach past 10 mm, are refused."""
    low, high = EVALUATOR_MM
    outside = ((points.xy_mm < low) | (points.xy_mm > high)).any(axis=1)
    return [f"point {index} lies at {points.xy_mm[index].tolist()} mm" for index in np.flatnonzero(outside)]


if __name__ == "__main__":
    try:
        found = evaluator_problems(read_points(Path(sys.argv[1])))
    except InputError as error:
        found = [str(error)]
    sys.exit("\n".join(found) or 0)
