"""Balanced drawing: chances by the definition, and draws that follow them."""

from collections import Counter

import numpy as np
import pytest

from training.data.balance import BalancedDraw, Origin, chances


def test_a_case_counts_as_the_square_root_of_its_size() -> None:
    sizes = {"H03": 147, "H04": 268, "H05": 158, "H14": 33, "H17": 37}  # mitoses of the training windows
    found = chances([Origin("one", case) for case, size in sizes.items() for _ in range(size)])
    roots = np.sqrt(list(sizes.values()))
    by_case = np.add.reduceat(found, np.cumsum([0, *list(sizes.values())[:-1]]))
    np.testing.assert_allclose(by_case, roots / roots.sum())


def test_scanners_come_before_cases() -> None:
    """Nine items of one scanner in nine cases, sixteen of another in one case: 3 to 4."""
    origins = [Origin("a", str(n)) for n in range(9)] + [Origin("b", "0")] * 16
    found = chances(origins)
    assert found[:9] == pytest.approx([3 / 7 / 9] * 9)
    assert found[9:] == pytest.approx([4 / 7 / 16] * 16)


def test_draws_follow_the_chances() -> None:
    origins = [Origin("a", "x")] * 100 + [Origin("a", "y")] * 4
    draw, rng = BalancedDraw(range(104), origins), np.random.default_rng(0)
    drawn = Counter(draw(rng) >= 100 for _ in range(6000))
    assert len(draw) == 104
    assert drawn[True] / 6000 == pytest.approx(2 / 12, abs=0.02)
