"""Stage 1's second look: tiles in which it found something are shown to it turned, and what it says is averaged.

A mitotic figure has no up, but a network trained for hours still scores it differently each way round; the mean errs
less. Only tiles with a candidate are looked at again, so that tissue without any costs what it did; so these looks may
be a larger network's, and a tile's candidates the mean opinion of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.calibration import logits
from mitosis.errors import BundleError
from mitosis.network import Network, Output
from mitosis.tiling import Tile

STRIDES_PX = (8, 16, 32)  # of YOLO11's three grids, in the order of its output
QUARTERS = 4
TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}  # ten times numpy's speed

Pixels = NDArray[np.uint8]


class HaloedTile(NamedTuple):
    """A tile as it was read: ``rgb`` (side + 2 halo, side + 2 halo, 3) holds a halo of its surroundings too."""

    tile: Tile
    rgb: Pixels

    @property
    def batch(self) -> Pixels:
        """What the network sees, (1, side, side, 3)."""
        halo_px = (len(self.rgb) - self.tile.side_px) // 2
        inner = slice(halo_px, halo_px + self.tile.side_px)
        return self.rgb[None, inner, inner]


class Turned(NamedTuple):
    """A tile to look at again: what the first look said, (1, 5, n), and by how many quarter turns it is turned."""

    shown: HaloedTile
    first: Output
    quarters: int


def look_again(
    network: Network,
    looks: Iterable[tuple[HaloedTile, Output]],
    views: int,
    confidence: float,
    repeating: Network | None = None,
    share: float | None = None,
) -> Iterator[tuple[HaloedTile, Output]]:
    """Yield the tiles that hold a candidate, with the mean (5, n) of ``views`` looks; the others are left out.

    Args:
        network: stage 1, or the bundle's network for its further looks.
        looks: every tile with what the network said at first, (1, 5, n).
        views: 1, 2 or 4: as it is, turned by a half, by every quarter.
        confidence: lowest score of a candidate.
        repeating: where the first look rounds its numbers, what repeats it at these tiles without.
        share: of the mean, for all looks but the first together; else all looks count alike.

    Raises BundleError when the network's output is not that of YOLO11's three grids.

    """
    hopeful: Iterator[tuple[HaloedTile, Output]] = (
        (shown, raw) for shown, raw in looks if (raw[0, 4] >= confidence).any()
    )
    if views == 1:
        yield from ((shown, raw[0]) for shown, raw in hopeful)
        return
    if repeating:
        hopeful = repeating.map((shown, shown.batch) for shown, _ in hopeful)

    def again() -> Iterator[tuple[Turned, Pixels]]:
        for shown, raw in hopeful:
            for quarters in range(QUARTERS // views, QUARTERS, QUARTERS // views):
                turned = np.asarray(cv2.rotate(shown.batch[0], TURNS[quarters]), dtype=np.uint8)
                yield Turned(shown, raw, quarters), turned[None]

    more = iter(network.map(again()))
    for others in zip(*[more] * (views - 1), strict=True):
        (shown, first, _), _ = others[0]
        side_px = shown.tile.side_px
        yield shown, mean([first[0], *(turned_back(raw[0], at.quarters, side_px) for at, raw in others)], share)


def turned_back(raw: Output, quarters: int, side_px: int) -> Output:
    """Return what the network said of a tile turned by ``quarters`` (anticlockwise) as if it had not been turned.

    Every grid is square, so that each of its cells falls on one of the same grid.
    """
    sides = [side_px // stride for stride in STRIDES_PX]
    if raw.shape[1] != sum(side**2 for side in sides):
        raise BundleError(f"stage 1 gives {raw.shape[1]} boxes a tile, not YOLO11's; set views: 1 with --config")
    grids = np.split(raw, np.cumsum([side**2 for side in sides])[:-1], axis=1)
    turned = [np.rot90(g.reshape(5, s, s), -quarters, axes=(1, 2)) for g, s in zip(grids, sides, strict=True)]
    x, y, width, height, score = np.concatenate([g.reshape(5, -1) for g in turned], axis=1)
    for _ in range(quarters):
        x, y, width, height = side_px - y, x, height, width
    return np.stack([x, y, width, height, score])


def mean(looks: list[Output], share: float | None = None) -> Output:
    """Average what several looks at a tile say, (5, n) each: boxes as they are, scores as logits.

    ``share`` is what all looks but the first have of it together; without, all count alike.
    """
    further = len(looks) - 1
    if share is None:
        share = further / len(looks)
    weights = [1 - share, *[share / further] * further]
    out: Output = np.average(looks, axis=0, weights=weights).astype(np.float32)
    out[4] = 1 / (1 + np.exp(-np.average([logits(raw[4]) for raw in looks], axis=0, weights=weights)))
    return out
