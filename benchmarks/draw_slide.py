"""Writes a slide of any size for measurements: a tiled JPEG pyramid, BigTIFF, with a given share of drawn tissue.

    python -m benchmarks.draw_slide SLIDE.tiff --side 60000 --tissue 0.05

One block of tissue is drawn as in test/make_case.py and encoded once; the slide repeats its tiles inside a disc, so
that 60,000 x 60,000 px are written in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated

import cv2
import imagecodecs
import numpy as np
import tifffile
import typer
from draw_tissue import Tissue
from make_case import Plan, draw
from numpy.typing import NDArray

RGB = NDArray[np.uint8]

TILE_PX, BLOCK_TILES = 256, 8
BLOCK_PX = TILE_PX * BLOCK_TILES
QUALITY = 80
LEVELS = (1, 4, 16)  # level-0 pixels per pixel, as scanners write them
MITOSES, LOOK_ALIKES = 2, 6  # a block: 8 and 23 per mm2, a busy tumour
SPACING_UM = 0.25


@cache
def block(factor: int) -> RGB:
    """Return the tissue at a level's scale."""
    rgb: RGB = draw(Plan(3, BLOCK_PX, BLOCK_PX, MITOSES, LOOK_ALIKES))[0]
    return np.asarray(cv2.resize(rgb, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA), np.uint8)


@cache
def glass() -> RGB:
    """Return a tile of nothing but the sensor's noise."""
    tile: RGB = Tissue.empty(TILE_PX, TILE_PX).photograph(np.random.default_rng(0))
    return tile


def tissue_map(side_px: int, share: float) -> NDArray[np.bool_]:
    """Return which of a slide's tiles are tissue: those in a disc in the middle, (n, n)."""
    count = -(-side_px // TILE_PX)
    across = np.abs(np.arange(count) - (count - 1) / 2)
    distance = np.hypot(across[:, None], across).ravel()
    chosen = np.zeros(count * count, bool)
    chosen[np.argsort(distance, kind="stable")[: round(share * count * count)]] = True
    return chosen.reshape(count, count)


class Encoder:
    """Encodes a level's tiles; equal ones once."""

    def __init__(self, factor: int, tissue: NDArray[np.bool_]) -> None:
        self.factor, self.tissue = factor, tissue
        self.done: dict[tuple[int, int, bytes], bytes] = {}

    def tile(self, row: int, column: int) -> bytes:
        """Return one tile as a JPEG file."""
        k = self.factor
        part = np.zeros((k, k), bool)  # which of the level-0 tiles below are tissue
        found = self.tissue[row * k : (row + 1) * k, column * k : (column + 1) * k]
        part[: found.shape[0], : found.shape[1]] = found
        phase = (row * k % BLOCK_TILES, column * k % BLOCK_TILES) if part.any() else (0, 0)
        key = (*phase, part.tobytes())
        if key not in self.done:
            self.done[key] = bytes(imagecodecs.jpeg_encode(self.draw(*phase, part), level=QUALITY))
        return self.done[key]

    def draw(self, row: int, column: int, part: NDArray[np.bool_]) -> RGB:
        """Return a tile's pixels, its upper left corner on the block's level-0 tile (row, column)."""
        repeated = block(self.factor)
        step = TILE_PX // self.factor  # pixels of a level-0 tile
        y, x = ((start * step + np.arange(TILE_PX)) % len(repeated) for start in (row, column))
        mask = np.repeat(np.repeat(part, step, axis=0), step, axis=1)
        return np.where(mask[..., None], repeated[y[:, None], x], glass())


def encoded(side_px: int, factor: int, tissue: NDArray[np.bool_]) -> Iterator[bytes]:
    """Yield a level's tiles, row by row."""
    encoder, count = Encoder(factor, tissue), math.ceil(math.ceil(side_px / factor) / TILE_PX)
    for row in range(count):
        for column in range(count):
            yield encoder.tile(row, column)


def write_slide(path: Path, side_px: int, share: float, levels: tuple[int, ...] = LEVELS) -> None:
    """Write a square slide of which ``share`` is tissue."""
    tissue = tissue_map(side_px, share)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for number, factor in enumerate(levels):
            length = math.ceil(side_px / factor)
            file.write(
                encoded(side_px, factor, tissue), shape=(length, length, 3), dtype=np.uint8, photometric="rgb",
                tile=(TILE_PX, TILE_PX), compression="jpeg", metadata=None, resolutionunit="CENTIMETER",
                resolution=(1e4 / SPACING_UM / factor,) * 2, subfiletype=int(number > 0),
                subifds=len(levels) - 1 if number == 0 else None,
            )  # fmt: skip


def main(
    path: Path,
    side: Annotated[int, typer.Option(help="Pixels of 0.25 um")] = 20000,
    tissue: Annotated[float, typer.Option(help="Share of the area")] = 0.05,
    pyramid: Annotated[bool, typer.Option(help="Write the coarser levels")] = True,
) -> None:
    """Write a slide."""
    write_slide(path, side, tissue, LEVELS if pyramid else LEVELS[:1])
    print(f"{path}: {side} x {side} px, {tissue:.0%} tissue, {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    typer.run(main)
