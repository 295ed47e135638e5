"""Loads the labelled training windows and mitosis patches into memory."""

from __future__ import annotations

import csv
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.labels import read_labels

RGB = NDArray[np.uint8]

BOX_PX = 50.0  # side of every label's box, as MIDOG++ draws them
PATCH_PX = 128
HELD_OUT_PART = 12
MITOTIC, LOOK_ALIKE = 1, 2  # category ids of the label files


@dataclass(frozen=True)
class LabelledWindow:
    """One training image. ``points`` is (n, 2) float32, x and y in its own pixels; ``categories`` is (n,)."""

    rgb: RGB
    points: NDArray[np.float32]
    categories: NDArray[np.int64]
    case: str


def read_rgb(path: Path) -> RGB:
    """Read an image file as (height, width, 3) RGB; raises FileNotFoundError when it cannot be decoded."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise FileNotFoundError(f"{path}: cannot be read as an image")
    return np.ascontiguousarray(bgr[..., ::-1].astype(np.uint8))


def load_windows(data: Path) -> list[LabelledWindow]:
    """Read ``windows.json`` and its images, all of split train."""
    document = json.loads((data / "windows.json").read_text())
    labels: dict[int, list[tuple[float, float, int]]] = {image["id"]: [] for image in document["images"]}
    for annotation in document["annotations"]:
        x1, y1, x2, y2 = annotation["bbox"]  # corners, not COCO's width and height
        labels[annotation["image_id"]].append(((x1 + x2) / 2, (y1 + y2) / 2, annotation["category_id"]))
    windows = []
    for image in document["images"]:
        table = np.array(labels[image["id"]], dtype=np.float64).reshape(-1, 3)
        rgb = read_rgb(data / "windows" / image["file_name"])
        windows.append(
            LabelledWindow(rgb, table[:, :2].astype(np.float32), table[:, 2].astype(np.int64), image["case"])
        )
    return windows


def load_frames(data: Path, split: str) -> list[LabelledWindow]:
    """Read the whole frames of one split of ``frames.json``."""
    return [
        LabelledWindow(
            read_rgb(data / "frames" / image.file_name),
            np.concatenate([image.mitotic_figures_px, image.look_alikes_px]).astype(np.float32),
            np.repeat([MITOTIC, LOOK_ALIKE], [len(image.mitotic_figures_px), len(image.look_alikes_px)]),
            image.case,
        )
        for image in read_labels(data / "frames.json", split)
    ]


@dataclass(frozen=True)
class Patch:
    """A 128 x 128 px crop around a mitotic figure.

    ``slide`` names the slide where it is known; then ``mitoses_px`` (n, 2) holds all the labelled mitoses in reach, in
    the patch's pixels, its own first. Where ``slide`` is empty only the central one is known.
    """

    rgb: RGB
    slide: str
    mitoses_px: NDArray[np.float32]


def load_patches(data: Path, held_out: bool = False) -> list[Patch]:
    """Read the patches of ``patches.csv`` that training sees, or the twelfth of their slides that it does not.

    Patches with a black border (the region ended there) are left out: no slide looks like that.
    """
    with (data / "patches.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row["slide"]:
            places.setdefault(row["source"] + row["slide"], []).append((float(row["x"]), float(row["y"])))
    patches = []
    for row in rows:
        if is_held_out(row["source"] + (row["slide"] or row["file"])) != held_out:
            continue
        mitoses, slide = np.full((1, 2), PATCH_PX / 2, np.float32), ""
        if row["slide"]:
            slide = row["source"] + row["slide"]
            offset = np.array(places[slide], np.float32) - (float(row["x"]), float(row["y"]))
            others = offset[(np.abs(offset).max(axis=1) < PATCH_PX) & offset.any(axis=1)]
            mitoses = np.concatenate([mitoses, others.astype(np.float32) + PATCH_PX / 2])
        rgb = read_rgb(data / "patches" / row["file"])
        if rgb.shape == (PATCH_PX, PATCH_PX, 3) and not has_black_border(rgb):
            patches.append(Patch(rgb, slide, mitoses))
    return patches


def is_held_out(slide: str) -> bool:
    """Tell whether a slide's patches are kept for validation: the same ones on every machine."""
    return zlib.crc32(slide.encode()) % HELD_OUT_PART == 0


def has_black_border(patch: RGB) -> bool:
    """Tell whether any outermost row or column is black."""
    edges = (patch[0], patch[-1], patch[:, 0], patch[:, -1])
    return any(float(edge.mean()) < 8.0 for edge in edges)
