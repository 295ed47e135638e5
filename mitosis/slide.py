"""Opens an image of any kind and reads windows of it, by level-0 coordinates.

Coordinates are level-0 pixels, x to the right and y down, with pixel *centres* at whole numbers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.ahead import ahead
from mitosis.config import one_line
from mitosis.errors import InputError
from mitosis.readers import Level, Source, read_metaimage, read_picture, read_tiff
from mitosis.spacing import Spacing, checked
from mitosis.stopwatch import Stopwatch

RGB = NDArray[np.uint8]

WHOLE_PX = 64_000_000  # images up to this size (a challenge region has 39 million) are decoded once and kept
STRIP_PX = 128  # lines of a coarse picture read at once
FAR = 8  # times finer than a coarse picture: a level from which it is averaged, once and for all
BLOCK_PX = 1024  # side of what is averaged at once
WHITE = 255

READERS: dict[str, Callable[[Path], Source]] = {
    ".tif": read_tiff,
    ".tiff": read_tiff,
    ".svs": read_tiff,
    ".mha": read_metaimage,
    ".png": read_picture,
    ".jpg": read_picture,
    ".jpeg": read_picture,
}
IMAGE_SUFFIXES = tuple(READERS)


@dataclass
class Slide:
    """An open image. Use as a context manager; ``read`` is thread-safe."""

    path: Path
    width_px: int
    height_px: int
    spacing: Spacing
    origin_mm: tuple[float, float]
    reader: str
    _source: Source = field(repr=False)
    stopwatch: Stopwatch = field(default_factory=Stopwatch, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()

    def read(
        self, x_px: float, y_px: float, width_px: int, height_px: int, scale: float = 1.0, stretched: bool = False
    ) -> RGB:
        """Read a window as (height_px, width_px, 3) RGB.

        The centre of output pixel (row j, column i) lies at level-0 (x_px + i * scale, y_px + j * scale). A coarser
        level of a pyramid is used where one is fine enough. Outside the image is white or, ``stretched``, what the
        image has at its border.

        Raises InputError when the file cannot be decoded there.
        """
        level = self._level_for(scale)
        down = level.downsample
        step = scale / down  # level pixels per output pixel
        # A level's pixel u covers down level-0 pixels and so has its centre at (u + 0.5) * down - 0.5.
        x, y = (x_px + 0.5) / down - 0.5, (y_px + 0.5) / down - 0.5
        if step == 1.0 and x.is_integer() and y.is_integer():
            return self._window(level, int(x), int(y), width_px, height_px, stretched)
        margin = math.ceil(2 * step) + 1  # what the low-pass filter and the interpolation reach
        left, top = math.floor(x) - margin, math.floor(y) - margin
        wide = math.ceil((width_px - 1) * step) + 2 * margin + 2
        high = math.ceil((height_px - 1) * step) + 2 * margin + 2
        shrink = max(1, int(step / 2))  # a box filter takes most of a large step; Gaussians of its width are slow
        wide, high = (-(-length // shrink) * shrink for length in (wide, high))
        pixels = self._window(level, left, top, wide, high, stretched)
        if shrink > 1:
            smaller = cv2.resize(pixels, (wide // shrink, high // shrink), interpolation=cv2.INTER_AREA)
            pixels = np.asarray(smaller, dtype=np.uint8)
        # A shrunk pixel u covers level pixels whose middle is left + shrink * u + (shrink - 1) / 2.
        x, y, step = (x - left - (shrink - 1) / 2) / shrink, (y - top - (shrink - 1) / 2) / shrink, step / shrink
        if step > 1:  # low-pass before sampling, or fine chromatin would alias
            pixels = cv2.GaussianBlur(pixels, (0, 0), 0.5 * math.sqrt(step**2 - 1) + 1e-3).astype(np.uint8)
        to_level = np.array([[step, 0, x], [0, step, y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(pixels, to_level, (width_px, height_px), flags=flags), dtype=np.uint8)

    def coarse(self, scale: float) -> RGB:
        """Read the whole image at ``scale`` level-0 pixels per pixel; memory holds little more than the result.

        Pixel i covers the level-0 pixels from ``i * scale`` to ``(i + 1) * scale``; of the last ones a part may lie
        outside the image, and counts as what is inside. Where the pyramid has no level nearby, one is averaged from the
        coarsest that it has, and stays for next time, as a very coarse result does.
        """
        if scale >= FAR * self._level_for(scale).downsample:
            self._source.levels.append(self._averaged(scale))
        width, height = (max(1, math.ceil(v / scale)) for v in (self.width_px, self.height_px))
        first = (scale - 1) / 2  # the middle of the first pixel, as level-0 pixels have theirs at whole numbers
        strips = [
            self.read(first, first + top * scale, width, min(STRIP_PX, height - top), scale, stretched=True)
            for top in range(0, height, STRIP_PX)
        ]
        picture = np.concatenate(strips)
        if scale >= FAR and self._level_for(scale).downsample != scale:
            self._source.levels.append(Level(picture, scale))
        return picture

    def point_mm(self, points_px: NDArray[np.floating]) -> NDArray[np.float64]:
        """Turn (n, 2) level-0 pixels x, y into millimetres: origin + index * spacing.

        Equals SimpleITK's TransformContinuousIndexToPhysicalPoint on the same file.
        """
        spacing_mm = np.array([self.spacing.x_um, self.spacing.y_um]) / 1000
        return np.asarray(self.origin_mm + points_px.astype(np.float64) * spacing_mm, dtype=np.float64)

    @property
    def band_px(self) -> float:
        """Width of the bands, in level-0 pixels, in which windows are read fastest: each from top to bottom."""
        return self._source.band_px

    def _averaged(self, scale: float) -> Level:
        """Average whole squares of a finer level's pixels, so that one of the result is at most ``scale`` wide."""
        level = self._level_for(scale)
        square = int(scale / level.downsample)
        side = square * max(1, BLOCK_PX // square)
        band = side * max(1, int(self.band_px // side)) if math.isfinite(self.band_px) else level.width_px
        width, height = -(-level.width_px // square), -(-level.height_px // square)
        out = np.full((height, width, 3), WHITE, np.uint8)

        def average(corner: tuple[int, int]) -> None:
            x, y = corner
            wide, high = (square * -(-min(side, n) // square) for n in (level.width_px - x, level.height_px - y))
            pixels = self._window(level, x, y, wide, high, stretched=True)
            small = cv2.resize(pixels, (wide // square, high // square), interpolation=cv2.INTER_AREA)
            x, y = x // square, y // square
            out[y : y + small.shape[0], x : x + small.shape[1]] = small

        for _ in ahead(average, blocks(level.width_px, level.height_px, side, band)):
            pass
        return Level(out, level.downsample * square)

    def _level_for(self, scale: float) -> Level:
        fine_enough = [level for level in self._source.levels if level.downsample <= scale * 1.001]
        return max(fine_enough, key=lambda level: level.downsample, default=self._source.levels[0])

    def _window(self, level: Level, x: int, y: int, width: int, height: int, stretched: bool = False) -> RGB:
        """Read whole level pixels; outside is white or, ``stretched``, as the border is."""
        x1, y1 = max(x, 0), max(y, 0)
        x2, y2 = min(x + width, level.width_px), min(y + height, level.height_px)
        if x1 >= x2 or y1 >= y2:
            return np.full((height, width, 3), WHITE, np.uint8)
        try:
            with self.stopwatch("reading"):
                found = self._source.to_rgb(level.pixels[y1:y2, x1:x2])
        except Exception as error:  # codecs raise whatever they like
            raise InputError(
                f"{self.path}: cannot be decoded near x {x1}, y {y1} ({type(error).__name__}); copy the file again"
            ) from error
        if found.shape[:2] == (height, width):
            return found.copy() if isinstance(level.pixels, np.ndarray) else found
        if stretched:
            borders = (y1 - y, y + height - y2, x1 - x, x + width - x2)
            return np.asarray(cv2.copyMakeBorder(found, *borders, cv2.BORDER_REPLICATE), dtype=np.uint8)
        out = np.full((height, width, 3), WHITE, np.uint8)
        out[y1 - y : y2 - y, x1 - x : x2 - x] = found
        return out


def open_slide(path: Path, spacing_um: float | None = None) -> Slide:
    """Open an image; ``spacing_um`` overrides what the file says.

    Raises InputError when the file is missing, of an unknown kind, damaged or not RGB, and SpacingError when no
    plausible spacing is known.
    """
    reader = READERS.get(path.suffix.lower())
    if not is_file(path):
        wrong = "no such file; check the path"
        if path.is_dir():
            listed = may_be_listed(path)
            wrong = "is a folder; list its images instead" if listed else "may not be read; check its permissions"
        raise InputError(f"{path}: {wrong}")
    if reader is None:
        raise InputError(f"{path}: not a kind of image that can be read; use one of {', '.join(IMAGE_SUFFIXES)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; copy it again")
    source = reader(path)
    try:
        spacing = checked(path, source.spacing, spacing_um)
        first = source.levels[0]
        if first.width_px * first.height_px <= WHOLE_PX and not isinstance(first.pixels, np.ndarray):
            slide = Slide(path, first.width_px, first.height_px, spacing, source.origin_mm, source.name, source)
            whole = slide._window(first, 0, 0, first.width_px, first.height_px)
            source.levels[0] = Level(whole, 1.0)
            source.levels[1:] = []
            source.to_rgb = as_is
        return Slide(path, first.width_px, first.height_px, spacing, source.origin_mm, source.name, source)
    except BaseException:
        source.close()
        raise


def may_be_listed(folder: Path) -> bool:
    """Tell whether this process may read what a folder holds."""
    return os.access(folder, os.R_OK | os.X_OK)


def is_file(path: Path) -> bool:
    """Tell whether a path is a file's; raises InputError where the system does not say."""
    try:
        return path.is_file()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be reached ({one_line(error)}); check its name and permissions") from error


def blocks(width_px: int, height_px: int, side_px: int, band_px: int) -> Iterator[tuple[int, int]]:
    """Yield the upper left corners of the squares that cover an image, band by band, each from top to bottom."""
    for left in range(0, width_px, band_px):
        for y in range(0, height_px, side_px):
            for x in range(left, min(left + band_px, width_px), side_px):
                yield x, y


def as_is(pixels: RGB) -> RGB:
    """Pixels that are RGB bytes already."""
    return pixels
