"""Opens an image of any kind and reads windows of it, by level-0 coordinates.

Coordinates are level-0 pixels, x to the right and y down, with pixel *centres* at whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.errors import InputError
from mitosis.readers import Level, Source, read_metaimage, read_picture, read_tiff
from mitosis.spacing import Spacing, checked
from mitosis.stopwatch import Stopwatch

RGB = NDArray[np.uint8]

WHOLE_PX = 64_000_000  # images up to this size (a challenge region has 39 million) are decoded once and kept
STRIP_PX = 128  # lines of a coarse picture read at once
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
    """An open image. Use as a context manager; reading is thread-safe for images kept whole."""

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

    def read(self, x_px: float, y_px: float, width_px: int, height_px: int, scale: float = 1.0) -> RGB:
        """Read a window as (height_px, width_px, 3) RGB.

        The centre of output pixel (row j, column i) lies at level-0 (x_px + i * scale, y_px + j * scale). A coarser
        level of a pyramid is used where one is fine enough. Outside the image is white.

        Raises InputError when the file cannot be decoded there.
        """
        level = self._level_for(scale)
        down = level.downsample
        step = scale / down  # level pixels per output pixel
        # A level's pixel u covers down level-0 pixels and so has its centre at (u + 0.5) * down - 0.5.
        x, y = (x_px + 0.5) / down - 0.5, (y_px + 0.5) / down - 0.5
        if step == 1.0 and x.is_integer() and y.is_integer():
            return self._window(level, int(x), int(y), width_px, height_px)
        margin = math.ceil(2 * step) + 1  # what the low-pass filter and the interpolation reach
        left, top = math.floor(x) - margin, math.floor(y) - margin
        wide = math.ceil((width_px - 1) * step) + 2 * margin + 2
        high = math.ceil((height_px - 1) * step) + 2 * margin + 2
        shrink = max(1, int(step / 2))  # a box filter takes most of a large step; Gaussians of its width are slow
        wide, high = (-(-length // shrink) * shrink for length in (wide, high))
        pixels = self._window(level, left, top, wide, high)
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
        """Read the whole image at ``scale`` level-0 pixels per pixel, strip by strip: without a pyramid, too, memory
        holds little more than the result.
        """
        width, height = (max(1, math.ceil(v / scale)) for v in (self.width_px, self.height_px))
        strips = [
            self.read(0, top * scale, width, min(STRIP_PX, height - top), scale) for top in range(0, height, STRIP_PX)
        ]
        return np.concatenate(strips)

    def point_mm(self, points_px: NDArray[np.floating]) -> NDArray[np.float64]:
        """Turn (n, 2) level-0 pixels x, y into millimetres: origin + index * spacing.

        Equals SimpleITK's TransformContinuousIndexToPhysicalPoint on the same file.
        """
        spacing_mm = np.array([self.spacing.x_um, self.spacing.y_um]) / 1000
        return np.asarray(self.origin_mm + points_px.astype(np.float64) * spacing_mm, dtype=np.float64)

    def _level_for(self, scale: float) -> Level:
        fine_enough = [level for level in self._source.levels if level.downsample <= scale * 1.001]
        return max(fine_enough, key=lambda level: level.downsample, default=self._source.levels[0])

    def _window(self, level: Level, x: int, y: int, width: int, height: int) -> RGB:
        """Read whole level pixels; white outside."""
        x1, y1 = max(x, 0), max(y, 0)
        x2, y2 = min(x + width, level.width_px), min(y + height, level.height_px)
        out = np.full((height, width, 3), WHITE, np.uint8)
        if x1 < x2 and y1 < y2:
            try:
                with self.stopwatch("reading"):
                    out[y1 - y : y2 - y, x1 - x : x2 - x] = self._source.to_rgb(level.pixels[y1:y2, x1:x2])
            except Exception as error:  # codecs raise whatever they like
                raise InputError(
                    f"{self.path}: cannot be decoded near x {x1}, y {y1} ({type(error).__name__}); copy the file again"
                ) from error
        return out


def open_slide(path: Path, spacing_um: float | None = None) -> Slide:
    """Open an image; ``spacing_um`` overrides what the file says.

    Raises InputError when the file is missing, of an unknown kind, damaged or not RGB, and SpacingError when no
    plausible spacing is known.
    """
    reader = READERS.get(path.suffix.lower())
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
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


def as_is(pixels: RGB) -> RGB:
    """Pixels that are RGB bytes already."""
    return pixels
