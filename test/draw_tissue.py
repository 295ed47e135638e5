"""The brush of ``make_case``: cells as two stains' optical densities. All lengths are pixels of 0.25 um."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float32]

# Optical density per unit of stain for R, G, B: haematoxylin (blue-purple) and eosin (pink), after Ruifrok & Johnston.
STAINS = np.array([[0.62, 0.71, 0.30], [0.10, 0.85, 0.35]], np.float32)


@dataclass
class Tissue:
    """How much haematoxylin and eosin lies at each pixel; both (h, w)."""

    haematoxylin: Field
    eosin: Field

    @classmethod
    def empty(cls, height: int, width: int) -> Tissue:
        """Return bare glass."""
        return cls(np.zeros((height, width), np.float32), np.zeros((height, width), np.float32))

    def photograph(self, rng: Generator) -> NDArray[np.uint8]:
        """Return (h, w, 3) RGB: light through the stains, the lens's blur, the sensor's noise."""
        light = np.exp(-(self.haematoxylin[..., None] * STAINS[0] + self.eosin[..., None] * STAINS[1]))
        light = cv2.GaussianBlur(light.astype(np.float32), (0, 0), 1.1) * 244
        light += cv2.GaussianBlur(rng.normal(0, 5, light.shape).astype(np.float32), (0, 0), 0.8)
        return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def noise(rng: Generator, shape: tuple[int, int], grain: float) -> Field:
    """Return smooth noise, mean 0, standard deviation 1, with features of about ``grain`` pixels."""
    coarse = rng.normal(size=(int(shape[0] / grain) + 4, int(shape[1] / grain) + 4)).astype(np.float32)
    out = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return (out - out.mean()) / (out.std() + 1e-6)


def draw_background(rng: Generator, tissue: Tissue) -> None:
    """Cytoplasm: eosin in clouds and fibres, a haze of haematoxylin, a few pale gaps."""
    shape = tissue.eosin.shape
    fibres = noise(rng, shape, 7) * 0.06 + noise(rng, shape, 3) * 0.05 + noise(rng, shape, 40) * 0.09
    tissue.eosin[:] = np.clip(0.50 + fibres + noise(rng, shape, 220) * 0.07, 0.1, None)
    tissue.haematoxylin[:] = np.clip(0.13 + noise(rng, shape, 60) * 0.03 + noise(rng, shape, 4) * 0.03, 0, None)
    gaps = 1 / (1 + np.exp(-(noise(rng, shape, 150) - 2.1) * 9))
    tissue.eosin *= 1 - 0.93 * gaps
    tissue.haematoxylin *= 1 - 0.93 * gaps


class Stamp:
    """A square of the tissue around a point, drawn with soft-edged shapes in its own turned coordinates."""

    def __init__(
        self, rng: Generator, tissue: Tissue, x: float, y: float, reach: int, angle: float | None = None
    ) -> None:
        height, width = tissue.eosin.shape
        self.rng = rng
        self.rows = slice(max(0, int(y) - reach), min(height, int(y) + reach + 1))
        self.columns = slice(max(0, int(x) - reach), min(width, int(x) + reach + 1))
        grid_y, grid_x = np.mgrid[self.rows, self.columns].astype(np.float32)
        turn = rng.uniform(0, np.pi) if angle is None else angle
        self.u = (grid_x - x) * np.cos(turn) + (grid_y - y) * np.sin(turn)
        self.v = (grid_y - y) * np.cos(turn) - (grid_x - x) * np.sin(turn)
        self.haematoxylin = tissue.haematoxylin[self.rows, self.columns]  # views: drawing here draws on the tissue
        self.eosin = tissue.eosin[self.rows, self.columns]

    def ellipse(self, u: float, v: float, a: float, b: float, rough: float = 0.08, edge: float = 0.9) -> Field:
        """Return 0..1 inside an ellipse with half axes a, b around (u, v); ``rough`` roughens its outline."""
        angle = np.arctan2(self.v - v, self.u - u)
        waves = sum(self.rng.normal() / k * np.cos(k * angle + self.rng.uniform(0, 2 * np.pi)) for k in range(2, 9))
        radius = np.hypot((self.u - u) / a, (self.v - v) / b) - rough * waves
        return (1 / (1 + np.exp(np.clip((radius - 1) * min(a, b) / edge, -30, 30)))).astype(np.float32)

    def set(self, mask: Field, haematoxylin: Field | float, eosin: Field | float) -> None:
        """Replace the stains under a soft mask."""
        self.haematoxylin += mask * (haematoxylin - self.haematoxylin)
        self.eosin += mask * (eosin - self.eosin)

    def grain(self, size: float) -> Field:
        """Return noise over the stamp."""
        return noise(self.rng, self.u.shape, size)


def draw_nucleus(rng: Generator, tissue: Tissue, x: float, y: float) -> None:
    """An interphase nucleus: pale, vesicular, with a rim and nucleoli; or a spindle one; or a lymphocyte."""
    kind = rng.random()
    a, b = (rng.uniform(17, 25), rng.uniform(13, 19)) if kind < 0.72 else (rng.uniform(18, 26), rng.uniform(5, 7))
    density = rng.uniform(0.45, 0.75)
    if kind > 0.88:
        a = b = rng.uniform(10, 13)
        density = rng.uniform(0.85, 1.05)
    stamp = Stamp(rng, tissue, x, y, 44)
    body = stamp.ellipse(0, 0, a, b)
    rim = np.clip(body - stamp.ellipse(0, 0, a - 2.6, b - 2.6), 0, 1)
    chromatin = density * (0.85 + 0.22 * stamp.grain(4) + 0.12 * stamp.grain(2))
    stamp.set(body, np.clip(chromatin, 0.15, None) + 0.40 * rim, 0.34)
    for _ in range(rng.integers(0, 3) if kind < 0.72 else 0):
        spot = stamp.ellipse(rng.uniform(-0.4, 0.4) * a, rng.uniform(-0.4, 0.4) * b, 2.6, 2.6, edge=0.6)
        stamp.set(spot, 1.1, 0.5)


def cleared_cell(stamp: Stamp) -> None:
    """The rounded cell of a mitosis: a pale zone of cytoplasm without a nuclear membrane."""
    stamp.set(stamp.ellipse(0, 0, 33, 30, edge=2.0) * 0.75, 0.10 + 0.02 * stamp.grain(3), 0.36 + 0.04 * stamp.grain(3))


def chromosomes(stamp: Stamp, mask: Field) -> None:
    """Condensed chromatin: nearly black, blue, dense throughout."""
    stamp.set(mask, np.clip(2.15 + 0.25 * stamp.grain(3), 1.5, None), 0.45)


def metaphase(rng: Generator, tissue: Tissue, x: float, y: float) -> None:
    """A plate of chromosomes seen from the side."""
    stamp = Stamp(rng, tissue, x, y, 46)
    cleared_cell(stamp)
    chromosomes(stamp, stamp.ellipse(0, 0, rng.uniform(17, 21), rng.uniform(5, 7), rough=0.22))


def anaphase(rng: Generator, tissue: Tissue, x: float, y: float) -> None:
    """Two plates that move apart."""
    stamp, gap = Stamp(rng, tissue, x, y, 46), rng.uniform(9, 13)
    cleared_cell(stamp)
    for side in (-gap, gap):
        chromosomes(stamp, stamp.ellipse(0, side, rng.uniform(14, 17), rng.uniform(4, 5.5), rough=0.20))


def prometaphase(rng: Generator, tissue: Tissue, x: float, y: float) -> None:
    """A ragged clump, made of short rods."""
    stamp = Stamp(rng, tissue, x, y, 46)
    cleared_cell(stamp)
    mask = stamp.ellipse(0, 0, 10, 8.5, rough=0.3)
    for _ in range(9):
        u, v = rng.normal(0, 6.5, 2)
        mask = np.maximum(mask, stamp.ellipse(u, v, rng.uniform(5, 8), rng.uniform(3, 4.5), rough=0.25))
    chromosomes(stamp, mask)


def pyknosis(rng: Generator, tissue: Tissue, x: float, y: float) -> None:
    """A dying cell: a small, smooth, round nucleus in shrunken, deeply pink cytoplasm."""
    stamp = Stamp(rng, tissue, x, y, 46)
    stamp.set(stamp.ellipse(0, 0, 20, 18, edge=1.5), 0.15, 0.95)
    stamp.set(stamp.ellipse(0, 0, rng.uniform(8, 10), rng.uniform(8, 9), rough=0.02), 1.5, 0.6)


def apoptosis(rng: Generator, tissue: Tissue, x: float, y: float) -> None:
    """Nuclear debris: several smooth balls of unequal size in pink cytoplasm."""
    stamp = Stamp(rng, tissue, x, y, 46)
    stamp.set(stamp.ellipse(0, 0, 19, 17, edge=1.5), 0.14, 0.9)
    for radius in (6.5, 4.5, 3.0, 2.5):
        stamp.set(stamp.ellipse(*rng.normal(0, 6, 2), radius, radius, rough=0.02), 1.45, 0.6)


def hyperchromasia(rng: Generator, tissue: Tissue, x: float, y: float) -> None:
    """A dark interphase nucleus with an intact, smooth outline."""
    stamp = Stamp(rng, tissue, x, y, 46)
    body = stamp.ellipse(0, 0, rng.uniform(17, 21), rng.uniform(11, 14), rough=0.04)
    stamp.set(body, 1.05 + 0.14 * stamp.grain(3), 0.4)


MITOSES = (metaphase, anaphase, prometaphase)
LOOK_ALIKES = (pyknosis, apoptosis, hyperchromasia)
