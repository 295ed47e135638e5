"""Draws from labelled places so that no scanner and no case drowns the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Item = TypeVar("Item")


class Origin(NamedTuple):
    """Where an item comes from, as far as it is known."""

    scanner: str = ""  # or the data set, where that is all that is said
    case: str = ""


UNKNOWN = Origin()


class BalancedDraw(Generic[Item]):
    """A bag of items; each scanner, and in it each case, is drawn as often as the square root of its size says.

    Between two evils: with all items alike, one case of five has two fifths of the labelled mitoses; with all cases
    alike, three dozen mitoses would be shown eight times as often as the others.
    """

    def __init__(self, items: Sequence[Item], origins: Sequence[Origin]) -> None:
        self.items = items
        self.upper = np.cumsum(chances(origins))

    def __len__(self) -> int:
        return len(self.items)

    def __call__(self, rng: Generator) -> Item:
        """Draw one item; there must be some."""
        index = int(np.searchsorted(self.upper, rng.random(), side="right"))
        return self.items[min(index, len(self.items) - 1)]  # sums of fractions may end just below 1


def chances(origins: Sequence[Origin]) -> NDArray[np.float64]:
    """Return each item's chance to be drawn, (n,), with a sum of 1."""
    of_case = Counter(origins)
    weights = np.array([of_case[origin] ** -0.5 for origin in origins])
    scanners, scanner, size = np.unique([o.scanner for o in origins], return_inverse=True, return_counts=True)
    weights *= (np.sqrt(size) / np.bincount(scanner, weights, len(scanners)))[scanner]
    return np.asarray(weights / weights.sum())
