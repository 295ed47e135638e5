"""Draws training crops for the classifier at the geometry that inference uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from mitosis.classifier import crop
from mitosis.errors import InputError
from mitosis.stain import OD_OF_BYTE
from training.data.augmentation import (
    colour_and_rand_augment,
    erase,
    jitter_sharpness,
    jitter_stain,
    random_affine,
    random_rectangle,
    warp,
)
from training.data.balance import UNKNOWN, BalancedDraw, Origin
from training.data.images import BOX_PX, PATCH_PX, RGB, Patch
from training.networks.convnext import IMAGENET_MEAN, IMAGENET_STD, INPUT_PX
from training.profiles import ClassifierProfile

CONTEXT = 1.28  # the crop's side over the box's longer side: a 50 px box gives a 64 px crop, no resampling
SCALES = (0.85, 1.18)
CORNER_PX = 46.0  # a negative's distance from the patch's centre along both axes: the central mitosis stays outside
NEAR_PX = 36.0  # a negative this near to a label would show that label's object
NUCLEUS_PX = 5.0  # a nucleus is some 30 px wide
MARGIN_PX = 8  # a shift of the crop, and what its resampling reaches
EDGE_PX = 16  # nearer to the patch's edge more than half of the crop would be mirrored
NEGATIVE, POSITIVE = 0, 1
# Shares of each class by pool. Windows give half of either class, or "this scanner" would say something of the class.
WINDOW_SHARE = 0.5  # of the positives; the others are patches
HARD_SHARES = (0.3, 0.2, 0.3)  # of the negatives: look-alikes, false positives, other nuclei of patches; else corners
LARGEST_SHARE = 0.01  # of the negatives, for one place: a pool of a few would be learnt by heart


@dataclass
class Spot:
    """A place to crop: an image, a point (x, y) in its pixels, the box's longer side there, and whose image it is.

    Of a large image only what a crop can reach is kept, and the point is one in that: a data set's windows may need
    more memory than there is.
    """

    rgb: RGB
    centre: NDArray[np.float32]
    box_px: float = BOX_PX
    origin: Origin = UNKNOWN

    def __post_init__(self) -> None:
        """Cut the surroundings out."""
        reach = math.ceil(CONTEXT * self.box_px / SCALES[0] * math.sqrt(0.5)) + MARGIN_PX
        height, width = self.rgb.shape[:2]
        if min(height, width) > 4 * reach:
            x, y = np.clip(self.centre, 0, (width - 1, height - 1)).astype(int).tolist()
            left, top = max(0, x - reach), max(0, y - reach)
            self.rgb = self.rgb[top : y + reach + 1, left : x + reach + 1].copy()
            self.centre = self.centre - np.array([left, top], np.float32)


@dataclass(frozen=True)
class Pools:
    """Where crops come from."""

    mitoses: list[Spot]  # labelled mitotic figures of the windows
    patches: list[Patch]  # centre positive, corners negative
    look_alikes: list[Spot]  # labelled look-alikes of the windows
    false_positives: list[Spot]  # stage 1's own in windows, mined
    other_nuclei: list[Spot]  # nuclei beside the patches' mitoses: from many cases and scanners


Item = TypeVar("Item", Spot, Patch)


class CropStream(IterableDataset[tuple[Tensor, int]]):
    """Yields normalised (3, 64, 64) crops with their class, for ever; classes are balanced."""

    def __init__(self, pools: Pools, profile: ClassifierProfile, seed: int) -> None:
        self.profile, self.seed = profile, seed
        self.mitoses = balanced(pools.mitoses)
        self.patches = balanced(pools.patches)
        hard = [balanced(spots) for spots in (pools.look_alikes, pools.false_positives, pools.other_nuclei)]
        self.negatives: list[Callable[[Generator], Spot]] = [*hard, self.corner]
        upper = np.cumsum(negative_shares([len(spots) for spots in hard], corners=len(pools.patches) > 0))
        if upper[-1] == 0:
            raise InputError("windows.json: no look-alike, no false positive, and no patch either; label look-alikes")
        if not (pools.mitoses or pools.patches):
            raise InputError("windows.json: no mitotic figure, and no patch either; check the labels")
        self.upper = upper / upper[-1]

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        """Start a stream that depends on the seed and the worker alone."""
        cv2.setNumThreads(0)
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            label = int(rng.integers(2))
            yield augmented(rng, self.spot(rng, label), self.profile), label

    def spot(self, rng: Generator, label: int) -> Spot:
        """Draw a place of the given class."""
        draw = rng.random()
        if label == NEGATIVE:
            return self.negatives[int(np.searchsorted(self.upper, draw, side="right"))](rng)
        of_window = draw < WINDOW_SHARE if self.mitoses and self.patches else bool(self.mitoses)
        return self.mitoses(rng) if of_window else self.patch_spot(rng)

    def patch_spot(self, rng: Generator) -> Spot:
        """Take a patch's own mitosis."""
        patch = self.patches(rng)
        return Spot(patch.rgb, patch.mitoses_px[0])

    def corner(self, rng: Generator) -> Spot:
        """Take a corner of a patch that shows no labelled mitosis."""
        while True:
            patch = self.patches(rng)
            centre = (PATCH_PX / 2 + CORNER_PX * rng.choice((-1.0, 1.0), 2)).astype(np.float32)
            if np.linalg.norm(patch.mitoses_px - centre, axis=1).min() > NEAR_PX:
                return Spot(patch.rgb, centre)


def balanced(items: list[Item]) -> BalancedDraw[Item]:
    """Return a bag of spots or patches, balanced over where they come from."""
    return BalancedDraw(items, [item.origin for item in items])


def negative_shares(sizes: list[int], corners: bool) -> list[float]:
    """Return the shares of the pools of HARD_SHARES and, last, of the patches' corners; they need not sum to 1.

    What a pool is too small for goes to the corners; without patches, to all pools alike.
    """
    shares = [min(share, LARGEST_SHARE * size) for share, size in zip(HARD_SHARES, sizes, strict=True)]
    return [*shares, 1 - sum(shares) if corners else 0.0]


def other_nuclei(patch: Patch) -> list[Spot]:
    """Return the darkest places of a patch away from its mitoses, up to two: mostly nuclei, which are no mitoses.

    Only where the slide's mitoses are all known. Stage 1's false positives cannot take this part: having seen each
    patch with its one mitosis, it proposes next to nothing beside it.
    """
    if not patch.slide:
        return []
    density = cv2.GaussianBlur(cv2.transform(OD_OF_BYTE[patch.rgb], np.full((1, 3), 1 / 3)), (0, 0), NUCLEUS_PX)
    y, x = np.mgrid[:PATCH_PX, :PATCH_PX]
    free = (np.minimum(x, y) >= EDGE_PX) & (np.maximum(x, y) < PATCH_PX - EDGE_PX)
    spots: list[Spot] = []
    for taken in patch.mitoses_px:
        free &= np.hypot(x - taken[0], y - taken[1]) > NEAR_PX
    while len(spots) < 2 and free.any():
        row, column = np.unravel_index(np.argmax(np.where(free, density, -np.inf)), density.shape)
        spots.append(Spot(patch.rgb, np.array([column, row], np.float32), origin=patch.origin))
        free &= np.hypot(x - column, y - row) > NEAR_PX
    return spots


def augmented(rng: Generator, spot: Spot, profile: ClassifierProfile) -> Tensor:
    """Crop with a random turn, flip, magnification, shift, stain and sharpness."""
    scale = float(np.exp(rng.uniform(*np.log(SCALES)))) * INPUT_PX / (CONTEXT * spot.box_px)
    centre = spot.centre + rng.uniform(-profile.shift_px, profile.shift_px, 2).astype(np.float32)
    # Mirrored rather than white outside: a white corner must not tell a patch's corner from its centre.
    matrix = random_affine(rng, centre, INPUT_PX, scale, np.deg2rad(profile.turn_deg))
    rgb = warp(spot.rgb, matrix, INPUT_PX, cv2.BORDER_REFLECT_101)
    if profile.colour:
        rgb = jitter_sharpness(rng, jitter_stain(rng, rgb, profile.colour))
    if any(profile.colour_jitter) or profile.rand_augment[0]:
        rgb = colour_and_rand_augment(rng, rgb, profile.colour_jitter, profile.rand_augment)
    if rng.random() < profile.erasing:
        rgb = erase(rng, rgb, random_rectangle(rng, INPUT_PX, INPUT_PX, profile.erasing_area))
    return normalised(rgb)


def plain(spot: Spot) -> Tensor:
    """Crop as inference does, without augmentation."""
    centre = spot.centre.astype(np.float64)
    box = np.concatenate([centre - spot.box_px / 2, centre + spot.box_px / 2])
    return normalised(crop(spot.rgb, box, CONTEXT, INPUT_PX))


def normalised(rgb: RGB) -> Tensor:
    """(H, W, 3) bytes -> (3, H, W), ImageNet mean 0 and standard deviation 1."""
    x = (rgb.astype(np.float32) / 255 - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    return torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))
