"""Holds a result against the expected one, the schema and the evaluator's rules. Runs inside the image.

python check_output.py FOUND EXPECTED

Numbers differ between CPUs: on the drawn case, bf16 moves a point by at most 0.0009 mm and its probability by at most
0.03 against fp32. So a point counts as the same within ``DISTANCE_MM`` and ``PROBABILITY``, a name may differ only
within that reach of the threshold, and a candidate may be absent only where its probability is within reach of zero.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, "/opt/app")  # inside the image; elsewhere the installed package is found

import numpy as np
import yaml

from mitosis.output.grand_challenge import Points, evaluator_problems, read_points

DISTANCE_MM = 0.002
PROBABILITY = 0.1


def threshold() -> float:
    """Return the bundle's classifier threshold."""
    for folder in (Path("/opt/ml/model"), Path("/opt/app/model"), Path(__file__).parents[1] / "model"):
        if (folder / "bundle.yaml").exists():
            point = yaml.safe_load((folder / "bundle.yaml").read_text()).get("operating_point", {})
            return float(point.get("classifier_threshold", 0.5))
    return 0.5


def differences(wanted: Points, found: Points, limit: float) -> list[str]:
    """Say which points of ``wanted`` have no equal in ``found``; ``limit`` is the threshold of the probability."""
    problems = []
    distance = np.linalg.norm(wanted.xy_mm[:, None] - found.xy_mm[None], axis=2)
    for index, (place, is_figure, probability) in enumerate(zip(*wanted, strict=True)):
        near = distance[index] <= DISTANCE_MM
        alike = near & (np.abs(found.probability - probability) <= PROBABILITY)
        clear = abs(probability - limit) > PROBABILITY
        if probability <= PROBABILITY and not near.any():
            continue
        what = f"the point at {place.round(4).tolist()} mm with probability {probability:.2f}"
        if not alike.any():
            problems.append(f"{what} has no partner")
        elif clear and not (found.is_mitotic_figure[alike] == is_figure).any():
            problems.append(f"{what} has another name")
    return problems


def problems_of(found: Points, expected: Points, limit: float) -> list[str]:
    """Return all that is wrong with ``found``; nothing when it is right."""
    return [
        *evaluator_problems(found),
        *(f"expected: {text}" for text in differences(expected, found, limit)),
        *(f"found: {text}" for text in differences(found, expected, limit)),
    ]


def main(found_file: Path, expected_file: Path) -> None:
    """Exit with a message unless the result is right."""
    found, expected = read_points(found_file), read_points(expected_file)
    if problems := problems_of(found, expected, threshold()):
        sys.exit(f"{found_file}: {len(problems)} differences from {expected_file.name}; first: {problems[0]}")
    sys.stdout.write(f"{found_file}: {int(found.is_mitotic_figure.sum())} mitotic figures, as expected\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
