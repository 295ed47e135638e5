"""Tiles that cover an image with overlap. Pure arithmetic in grid pixels, the pixels that the network sees."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class Tile:
    """A square of the grid, first pixel (x_px, y_px). ``inner`` says which edges have image beyond them.

    ``inner`` is (left, top, right, bottom): an object that touches such an edge may go on in the neighbouring tile.
    ``number`` counts the grid's tiles in reading order, those that are skipped as glass included.
    """

    x_px: int
    y_px: int
    side_px: int
    inner: tuple[bool, bool, bool, bool]
    number: int = 0


def tile_starts(length_px: int, tile_px: int, overlap: float) -> list[int]:
    """Return where tiles start along one axis so that they cover ``length_px`` pixels.

    Neighbours share at least ``overlap`` of a tile; the last tile is moved back to end with the image, so that no tile
    reaches outside unless the image is smaller than one tile. Starts are strictly increasing and never negative.
    """
    if length_px <= tile_px:
        return [0]
    stride_px = max(1, tile_px - math.ceil(tile_px * overlap))
    last_px = length_px - tile_px
    return [*range(0, last_px, stride_px), last_px]


def by_bands(chosen: list[Tile], band_px: float) -> list[Tile]:
    """Order tiles band by band from left to right, each band row by row: neighbours in the list are near each other."""
    return sorted(chosen, key=lambda tile: (tile.x_px // band_px, tile.y_px, tile.x_px))


def tiles(width_px: int, height_px: int, tile_px: int, overlap: float) -> Iterator[Tile]:
    """Yield the tiles of a grid row by row."""
    rows, columns = tile_starts(height_px, tile_px, overlap), tile_starts(width_px, tile_px, overlap)
    for number, (y_px, x_px) in enumerate(product(rows, columns)):
        inner = (x_px > 0, y_px > 0, x_px + tile_px < width_px, y_px + tile_px < height_px)
        yield Tile(x_px, y_px, tile_px, inner, number)
