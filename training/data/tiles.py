"""Draws training tiles for the detector: an endless, seeded stream of augmented tiles with their boxes."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from mitosis.errors import InputError
from training.data.augmentation import (
    erase,
    jitter_sharpness,
    jitter_stain,
    rand_augment,
    random_affine,
    random_rectangle,
    warp,
)
from training.data.balance import BalancedDraw
from training.data.images import BOX_PX, LOOK_ALIKE, MITOTIC, RGB, LabelledWindow, Patch
from training.profiles import DetectorProfile

VISIBLE = 0.4  # a label stays if this share of its box is inside the tile
PATCH_CELLS_PX = (56, 113)  # cell sides of a patch mosaic: varied, or the network learns the grid
PATCH_REACH_PX = (
    100.0  # from a patch's middle; farther out the mirrored border would show its mitosis again, unlabelled
)
PATCH_SHIFT_PX = 48.0  # how far off its cell's middle a mitosis may lie: often at a seam, or outside
WINDOW_CELLS = 0.35  # share of a patch mosaic's cells that show training windows, half of them around a labelled object
SCALES = (0.8, 1.25)  # magnification jitter; also covers 0.23 to 0.27 um per pixel

Boxes = NDArray[np.float32]  # (n, 4): x1, y1, x2, y2 in the tile's pixels


class TileStream(IterableDataset[tuple[Tensor, Tensor]]):
    """Yields (3, side, side) uint8 tiles and (n, 4) boxes, for ever. Each worker draws its own stream."""

    def __init__(
        self,
        windows: list[LabelledWindow],
        patches: list[Patch],
        side_px: int,
        profile: DetectorProfile,
        seed: int,
        mosaics: bool = True,
    ) -> None:
        self.side_px, self.profile, self.seed, self.mosaics = side_px, profile, seed, mosaics
        self.windows = BalancedDraw(windows, [window.origin for window in windows])
        self.patches = BalancedDraw(patches, [patch.origin for patch in patches])
        self.objects = {kind: labelled_objects(windows, kind) for kind in (MITOTIC, LOOK_ALIKE)}
        if not any(map(len, self.objects.values())):
            raise InputError("windows.json: holds no labelled object, and there is nothing to learn; check its labels")

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Start a stream that depends on the seed and the worker alone."""
        cv2.setNumThreads(0)  # the workers are the parallelism
        worker = get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            rgb, boxes = self.augmented(rng)
            yield torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))), torch.from_numpy(boxes)

    def augmented(self, rng: Generator) -> tuple[RGB, Boxes]:
        """Draw one tile with everything that the profile asks for."""
        profile, (rgb, boxes) = self.profile, self.draw(rng)
        if rng.random() < profile.mixup:
            other, other_boxes = self.draw(rng)
            weight = rng.random()
            rgb = np.asarray(cv2.addWeighted(rgb, weight, other, 1 - weight, 0), dtype=np.uint8)
            boxes = np.concatenate([boxes, other_boxes])
        if profile.colour:
            rgb = jitter_sharpness(rng, jitter_stain(rng, rgb, profile.colour))
        if profile.rand_augment:
            rgb = rand_augment(rng, rgb)
        if rng.random() < profile.erasing:
            rectangle = random_rectangle(rng, self.side_px, self.side_px, profile.erasing_area)
            rgb, boxes = erase(rng, rgb, rectangle), boxes[hidden(boxes, rectangle) < 1 - VISIBLE]
        return rgb, boxes

    def draw(self, rng: Generator) -> tuple[RGB, Boxes]:
        """Draw one tile of a random kind, before mixing and colour."""
        mix = self.profile.mix
        kind = rng.uniform(0 if self.patches else mix.patches, 1)  # without patches, the other kinds share their part
        if kind < mix.patches:
            return self.patch_mosaic(rng)
        if kind < mix.patches + mix.mosaic and self.mosaics:
            half = self.side_px // 2
            return join([[self.window(rng, half) for _ in range(2)] for _ in range(2)], half)
        return self.window(rng, self.side_px)

    def window(self, rng: Generator, side: int) -> tuple[RGB, Boxes]:
        """Cut a square out of a window: around a labelled object, or anywhere."""
        return self.around_object(rng, side) if rng.random() < self.profile.mix.labelled else self.anywhere(rng, side)

    def anywhere(self, rng: Generator, side: int) -> tuple[RGB, Boxes]:
        """Cut a square at a random point of a random window."""
        window = self.windows(rng)
        height, width = window.rgb.shape[:2]
        return self.cut(rng, window, rng.uniform((0, 0), (width, height)).astype(np.float32), side)

    def around_object(self, rng: Generator, side: int) -> tuple[RGB, Boxes]:
        """Cut a square that holds a random labelled object somewhere inside."""
        kinds = (MITOTIC, LOOK_ALIKE) if rng.random() < self.profile.mix.mitotic_share else (LOOK_ALIKE, MITOTIC)
        window, index = (self.objects[kinds[0]] or self.objects[kinds[1]])(rng)  # some data sets label no look-alikes
        reach = side / 2 - 24
        return self.cut(rng, window, window.points[index] + rng.uniform(-reach, reach, 2).astype(np.float32), side)

    def cut(self, rng: Generator, window: LabelledWindow, centre: NDArray[np.float32], side: int) -> tuple[RGB, Boxes]:
        """Cut a turned and scaled square near ``centre``, moved so that it stays inside the window where it can."""
        scale, rgb = float(np.exp(rng.uniform(*np.log(SCALES)))), window.rgb
        height, width = rgb.shape[:2]
        margin = np.minimum(side / scale / 2, np.array([width, height]) / 2)
        centre = np.clip(centre, margin, np.array([width, height]) - margin).astype(np.float32)
        matrix = random_affine(rng, centre, side, scale)
        centres = window.points[window.categories == MITOTIC] @ matrix[:, :2].T + matrix[:, 2]
        return warp(rgb, matrix, side), visible_boxes(centres, side)

    def patch_mosaic(self, rng: Generator) -> tuple[RGB, Boxes]:
        """Fill a tile with patches of many cases and cuts of windows, in cells of a random size from a random corner.

        Every patch has its mitosis in the middle, and a network soon learns to look for the middle between seams. So a
        mitosis may lie anywhere in its cell or outside, and other cells hold look-alikes or just tissue.
        """
        cell = int(rng.integers(*PATCH_CELLS_PX))
        cells = -(-self.side_px // cell)
        grid = [[self.mosaic_cell(rng, cell) for _ in range(cells)] for _ in range(cells)]
        rgb, boxes = join(grid, cell)
        x, y = rng.integers(0, cells * cell - self.side_px + 1, 2)
        rgb, boxes = rgb[y : y + self.side_px, x : x + self.side_px], boxes - np.array([x, y, x, y], np.float32)
        return rgb, clipped_boxes(boxes, self.side_px)

    def mosaic_cell(self, rng: Generator, cell: int) -> tuple[RGB, Boxes]:
        """Draw one cell of a patch mosaic."""
        draw = rng.random()
        if draw < WINDOW_CELLS / 2:
            return self.around_object(rng, cell)
        return self.anywhere(rng, cell) if draw < WINDOW_CELLS else self.one_patch(rng, cell)

    def one_patch(self, rng: Generator, cell: int) -> tuple[RGB, Boxes]:
        """Cut a turned and scaled square out of one patch, its mitosis anywhere."""
        patch = self.patches(rng)
        scale = float(np.exp(rng.uniform(*np.log(SCALES))))
        shift = min(PATCH_SHIFT_PX, PATCH_REACH_PX - cell / scale * np.sqrt(0.5))
        middle = (patch.mitoses_px[0] + rng.uniform(-shift, shift, 2)).astype(np.float32)
        matrix = random_affine(rng, middle, cell, scale)
        centres = patch.mitoses_px @ matrix[:, :2].T + matrix[:, 2]
        return warp(patch.rgb, matrix, cell, cv2.BORDER_REFLECT_101), visible_boxes(centres, cell)


def labelled_objects(windows: list[LabelledWindow], kind: int) -> BalancedDraw[tuple[LabelledWindow, int]]:
    """Return all labelled objects of a category, each as its window and its place among the window's points."""
    objects = [(w, int(i)) for w in windows for i in np.flatnonzero(w.categories == kind)]
    return BalancedDraw(objects, [window.origin for window, _ in objects])


def visible_boxes(centres: NDArray[np.floating], side_px: int) -> Boxes:
    """Return the boxes around ``centres``, clipped to the tile; those mostly outside are dropped.

    All are equally large, as the labels draw them at any magnification. Were they scaled with the tile, the network
    would have to tell the magnification, and its scores, which follow the overlap, would suffer where it cannot.
    """
    boxes = np.concatenate([centres - BOX_PX / 2, centres + BOX_PX / 2], axis=1).reshape(-1, 4)
    return clipped_boxes(boxes, side_px)


def clipped_boxes(boxes: NDArray[np.floating], side_px: int) -> Boxes:
    """Clip boxes to the tile and drop those of which too little is left."""
    clipped = boxes.clip(0, side_px)
    before, after = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, clipped))
    visible: Boxes = clipped[after >= VISIBLE * before].astype(np.float32)
    return visible


def hidden(boxes: Boxes, rectangle: tuple[int, int, int, int]) -> NDArray[np.floating]:
    """Return the share of each box that the rectangle covers, (n,)."""
    x1, y1, x2, y2 = rectangle
    covered = boxes.clip((x1, y1, x1, y1), (x2, y2, x2, y2))
    covered_px, box_px = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (covered, boxes))
    return np.asarray(covered_px / box_px)


def join(grid: list[list[tuple[RGB, Boxes]]], cell_px: int) -> tuple[RGB, Boxes]:
    """Put equally large squares side by side, with their boxes."""
    rgb = np.concatenate([np.concatenate([cell for cell, _ in row], axis=1) for row in grid])
    boxes = [
        boxes + np.array([column, line, column, line], np.float32) * cell_px
        for line, row in enumerate(grid)
        for column, (_, boxes) in enumerate(row)
    ]
    return rgb, np.concatenate(boxes)


def collate(samples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Stack tiles to (B, 3, H, W) uint8 and give the boxes in the form that Ultralytics' loss takes."""
    tiles = torch.stack([tile for tile, _ in samples])
    side = tiles.shape[-1]
    boxes = torch.cat([b for _, b in samples])
    owner = torch.cat([torch.full((len(b),), float(i)) for i, (_, b) in enumerate(samples)])
    centres = torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1) / side
    return tiles, {"batch_idx": owner, "cls": torch.zeros(len(boxes), 1), "bboxes": centres}
