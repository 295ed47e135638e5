"""Splits cases, never tiles, into train, val and test."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping

SPLITS = ("train", "val", "test")
SHARES = (0.7, 0.1, 0.2)  # the paper's 7:1:2
NEARLY = 1e-9  # 0.7 * 90 is a little less than 63


def split_cases(
    tumor_types: Mapping[str, str], shares: tuple[float, float, float] = SHARES, seed: int = 0
) -> dict[str, str]:
    """Assign each case to a split; all cases, and every tumour type as nearly as whole cases allow, in these shares.

    Deterministic: cases are ordered by a hash of their name, not by their place in a list. More cases make another
    division, in which former test cases may be trained on: never go on from weights of the old one.
    Each type gets its share rounded down; the cases that are left over go where all types together lack some, so that
    small types do not all lose the same split.

    Args:
        tumor_types: tumour type of each case.
        shares: of train, val and test; they sum to 1.
        seed: another one gives another division.

    """
    by_type: dict[str, list[str]] = defaultdict(list)
    for case in sorted(tumor_types, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
        by_type[tumor_types[case]].append(case)
    counts = counts_by_type({kind: len(by_type[kind]) for kind in sorted(by_type)}, shares)
    return {
        case: split
        for kind, cases in by_type.items()
        for case, split in zip(cases, [s for s in SPLITS for _ in range(counts[kind][s])], strict=True)
    }


def counts_by_type(sizes: Mapping[str, int], shares: tuple[float, float, float]) -> dict[str, dict[str, int]]:
    """Return how many of each type's cases go to each split; the splits' sums are those of ``totals_of``."""
    total = sum(sizes.values())
    totals = totals_of(total, shares)
    ideal = {kind: {s: size * totals[s] / total for s in SPLITS} for kind, size in sizes.items()}
    counts = {kind: {s: math.floor(ideal[kind][s] + NEARLY) for s in SPLITS} for kind in sizes}
    lacking = {s: totals[s] - sum(of_kind[s] for of_kind in counts.values()) for s in SPLITS}
    left, pace, dealt = sum(lacking.values()), dict(lacking), 0
    for kind, size in sizes.items():
        for _ in range(size - sum(counts[kind].values())):
            dealt += 1
            # What the type lacks, and how far the split is behind an even dealing of what is left over.
            behind = {
                s: ideal[kind][s] - counts[kind][s] + pace[s] * dealt / left - (pace[s] - lacking[s])
                for s in SPLITS
                if lacking[s]
            }
            best = max(behind, key=lambda s: behind[s])
            counts[kind][best] += 1
            lacking[best] -= 1
    return counts


def totals_of(total: int, shares: tuple[float, float, float]) -> dict[str, int]:
    """Divide a number of cases by largest remainder; from three cases on, no split is empty."""
    counts = {s: math.floor(share * total + NEARLY) for s, share in zip(SPLITS, shares, strict=True)}
    remainders = {s: share * total - counts[s] for s, share in zip(SPLITS, shares, strict=True)}
    for split in sorted(SPLITS, key=lambda s: -remainders[s])[: total - sum(counts.values())]:
        counts[split] += 1
    for split in SPLITS:
        if total >= len(SPLITS) and counts[split] == 0:
            counts[max(SPLITS, key=lambda s: counts[s])] -= 1
            counts[split] += 1
    return counts
