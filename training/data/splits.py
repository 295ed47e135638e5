"""Splits cases, never tiles, into train, val and test."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping

SPLITS = ("train", "val", "test")
SHARES = (0.7, 0.1, 0.2)  # the paper's 7:1:2


def split_cases(
    tumor_types: Mapping[str, str], shares: tuple[float, float, float] = SHARES, seed: int = 0
) -> dict[str, str]:
    """Assign each case to a split; every tumour type is divided in the same shares.

    Deterministic: cases are ordered by a hash of their name, not by their place in a list. More cases make another
    division, in which former test cases may be trained on: never go on from weights of the old one.
    Rounding goes to the split that is furthest behind, so that small types do not all lose the same split.

    Args:
        tumor_types: tumour type of each case.
        shares: of train, val and test; they sum to 1.
        seed: another one gives another division.

    """
    by_type: dict[str, list[str]] = defaultdict(list)
    for case, tumor_type in tumor_types.items():
        by_type[tumor_type].append(case)
    assigned: dict[str, str] = {}
    totals = dict.fromkeys(SPLITS, 0)
    for tumor_type in sorted(by_type):
        counts = dict.fromkeys(SPLITS, 0)
        for case in sorted(by_type[tumor_type], key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
            done = sum(counts.values()) + 1
            behind = {s: share * done - counts[s] for s, share in zip(SPLITS, shares, strict=True)}
            overall = {s: share * (len(assigned) + 1) - totals[s] for s, share in zip(SPLITS, shares, strict=True)}
            best = max(SPLITS, key=lambda s: (behind[s] + 1e-3 * overall[s], -SPLITS.index(s)))
            assigned[case] = best
            counts[best] += 1
            totals[best] += 1
    return assigned
