"""Holds a result against the expected one, the schema and the evaluator's rules. Runs inside the image.

python check_output.py FOUND EXPECTED

Numbers may differ between CPUs (bf16 or fp32), so a mitotic figure of the expected result needs a partner within
``DISTANCE_MM`` only when its probability is clear of the threshold.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, "/opt/app")  # inside the image; elsewhere the installed package is found

import numpy as np
import yaml

from mitosis.output.grand_challenge import Points, evaluator_problems, read_points

DISTANCE_MM = 0.002
CLEAR = 0.1  # of the probability, from the threshold


def threshold() -> float:
    """Return the bundle's classifier threshold."""
    for folder in (Path("/opt/app/model"), Path(__file__).parents[1] / "model"):
        if (folder / "bundle.yaml").exists():
            point = yaml.safe_load((folder / "bundle.yaml").read_text()).get("operating_point", {})
            return float(point.get("classifier_threshold", 0.5))
    return 0.5


def unmatched(wanted: Points, found: Points, limit: float) -> int:
    """Count the clear mitotic figures of ``wanted`` without a partner in ``found``, whatever its name there."""
    clear = wanted.is_mitotic_figure & (wanted.probability > limit + CLEAR)
    distance = np.linalg.norm(wanted.xy_mm[clear][:, None] - found.xy_mm[None], axis=2)
    return int((distance.min(axis=1, initial=np.inf) > DISTANCE_MM).sum())


def main(found_file: Path, expected_file: Path) -> None:
    """Exit with a message unless the result is right."""
    found, expected = read_points(found_file), read_points(expected_file)
    problems = evaluator_problems(found)
    missing, extra = unmatched(expected, found, threshold()), unmatched(found, expected, threshold())
    if missing:
        problems.append(f"{missing} expected mitotic figures are missing")
    if extra:
        problems.append(f"{extra} mitotic figures were not expected")
    if problems:
        sys.exit(f"{found_file}: {'; '.join(problems)}")
    sys.stdout.write(f"{found_file}: {int(found.is_mitotic_figure.sum())} mitotic figures, as expected\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
