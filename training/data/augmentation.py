"""Geometric and stain augmentation, shared by both stages. Applied to training data only."""

from __future__ import annotations

from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import nn
from torchvision.transforms import v2

from mitosis.stain import HED_FROM_RGB, OD_OF_BYTE, RGB_FROM_HED
from training.data.images import RGB

WHITE = (255, 255, 255)


def random_affine(
    rng: Generator, centre: NDArray[np.float32], side_px: int, scale: float, turn: float = np.pi
) -> NDArray[np.float64]:
    """Return a (2, 3) matrix that turns, flips and scales so that ``centre`` lands in the middle of a square crop.

    ``turn`` is the largest angle to either side, in radians.
    """
    angle = rng.uniform(-turn, turn)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        linear[:, 0] *= -1
    middle = np.full(2, (side_px - 1) / 2)
    matrix: NDArray[np.float64] = np.column_stack([linear, middle - linear @ centre])
    return matrix


def warp(rgb: RGB, matrix: NDArray[np.float64], side_px: int, border: int = cv2.BORDER_CONSTANT) -> RGB:
    """Resample to (side_px, side_px, 3). Outside the image is white, as inference pads."""
    out = cv2.warpAffine(rgb, matrix, (side_px, side_px), flags=cv2.INTER_LINEAR, borderMode=border, borderValue=WHITE)
    return np.asarray(out, dtype=np.uint8)


def jitter_stain(rng: Generator, rgb: RGB, strength: float = 1.0) -> RGB:
    """Vary each stain's amount and the scanner's colour in optical-density space.

    One linear map does it: to haematoxylin-eosin-residual, a gain per stain and one for all (section thickness), back,
    a small mixing of channels and an offset (illumination). ``strength`` 1 spans what different laboratories show.
    """
    gains = np.exp((rng.uniform(-0.35, 0.35, 3) + rng.uniform(-0.3, 0.3)) * strength)
    mixing = np.eye(3) + rng.normal(0, 0.07, (3, 3)) * strength
    matrix = (HED_FROM_RGB @ np.diag(gains) @ RGB_FROM_HED @ mixing).T
    offset = rng.uniform(-0.06, 0.12, 3) * strength
    density = cv2.transform(OD_OF_BYTE[rgb], np.column_stack([matrix, offset]).astype(np.float32))
    light: NDArray[np.float32] = cv2.exp(-density) * 256.0 - 1.0
    return np.clip(light, 0, 255).astype(np.uint8)


def jitter_sharpness(rng: Generator, rgb: RGB) -> RGB:
    """Blur, coarsen, sharpen or compress half of the images: scanners differ in focus, optics and post-processing."""
    draw = rng.random()
    if draw < 0.2:
        return np.asarray(cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.5, 1.8)), dtype=np.uint8)
    if draw < 0.3:
        side = (round(rgb.shape[1] * rng.uniform(0.4, 0.8)), round(rgb.shape[0] * rng.uniform(0.4, 0.8)))
        coarse = cv2.resize(rgb, side, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(coarse, rgb.shape[1::-1], interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
    if draw < 0.42:
        soft = cv2.GaussianBlur(rgb, (0, 0), 1.0)
        amount = rng.uniform(0.3, 1.2)
        return np.asarray(cv2.addWeighted(rgb, 1 + amount, soft, -amount, 0), dtype=np.uint8)
    if draw < 0.52:
        _, file = cv2.imencode(".jpg", rgb, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 80))))
        return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), dtype=np.uint8)
    return rgb


class PhotometricRandAugment(v2.RandAugment):  # type: ignore[misc]
    """RandAugment (Cubuk et al. 2020) at torchvision's default strength, without the operations that move boxes."""

    _AUGMENTATION_SPACE: ClassVar[dict[str, Any]] = {
        name: operation
        for name, operation in v2.RandAugment._AUGMENTATION_SPACE.items()
        if name.split("X")[0].split("Y")[0] not in ("Shear", "Translate", "Rotate")
    }


def rand_augment(rng: Generator, rgb: RGB) -> RGB:
    """Apply two random photometric operations, as seeded by ``rng``."""
    return by_torchvision(rng, rgb, PhotometricRandAugment())


def colour_and_rand_augment(
    rng: Generator, rgb: RGB, jitter: tuple[float, float, float], rand_augment: tuple[int, int]
) -> RGB:
    """Vary brightness, contrast and saturation, then apply as many operations of RandAugment, shears included."""
    brightness, contrast, saturation = jitter
    operations, magnitude = rand_augment
    colour = v2.ColorJitter(brightness, contrast, saturation)
    return by_torchvision(rng, rgb, v2.Compose([colour, v2.RandAugment(operations, magnitude, fill=WHITE)]))


def by_torchvision(rng: Generator, rgb: RGB, transform: nn.Module) -> RGB:
    """Apply one of torchvision's transforms to (H, W, 3) bytes, as seeded by ``rng``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        out = transform(torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))))
    return np.ascontiguousarray(out.numpy().transpose(1, 2, 0))


def random_rectangle(rng: Generator, height: int, width: int, area: tuple[float, float]) -> tuple[int, int, int, int]:
    """Return x1, y1, x2, y2 of a rectangle of ``area`` (share of the image, from and to); Zhong et al. 2017."""
    share, aspect = rng.uniform(*area), np.exp(rng.uniform(-1.2, 1.2))  # width over height between 0.3 and 3.3
    h = min(height, max(1, round(float(np.sqrt(share * height * width / aspect)))))
    w = min(width, max(1, round(float(np.sqrt(share * height * width * aspect)))))
    y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    return x, y, x + w, y + h


def erase(rng: Generator, rgb: RGB, rectangle: tuple[int, int, int, int]) -> RGB:
    """Fill a rectangle with noise."""
    x1, y1, x2, y2 = rectangle
    out = rgb.copy()
    out[y1:y2, x1:x2] = rng.integers(0, 256, (y2 - y1, x2 - x1, 3), dtype=np.uint8)
    return out
