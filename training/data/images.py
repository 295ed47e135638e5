"""Loads the labelled training windows and mitosis patches: into memory, as far as there is room for them."""

from __future__ import annotations

import csv
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mitosis.errors import InputError
from mitosis.labels import LabelledImage, read_labels
from mitosis.slide import WHOLE_PX
from training.data.balance import UNKNOWN, Origin

RGB = NDArray[np.uint8]

BOX_PX = 50.0  # side of every label's box, as MIDOG++ draws them
PATCH_PX = 128
HELD_OUT_PART = 12
LARGEST_PX = WHOLE_PX  # of an image that training reads whole; what is larger, prepare_data cuts
KEPT_BYTES = 2_000_000_000  # of decoded images in each process; decoding a 512 px window takes 3.4 ms, cutting a tile 2
SPACING_UM = 0.25  # of the pixels that both networks learn on
SPACING_TOLERANCE = 0.15  # the magnification jitter of the training covers it (0.22 to 0.29 um a pixel)
MITOTIC, LOOK_ALIKE = 1, 2  # category ids of the label files


@dataclass(frozen=True)
class LabelledWindow:
    """One training image. ``points`` is (n, 2) float32, x and y in its own pixels; ``categories`` is (n,).

    ``image`` is what ``rgb`` returns, or the file that it decodes.
    """

    image: RGB | Path
    points: NDArray[np.float32]
    categories: NDArray[np.int64]
    origin: Origin = UNKNOWN

    @property
    def rgb(self) -> RGB:
        """The pixels, (height, width, 3)."""
        return latest_rgb(self.image) if isinstance(self.image, Path) else self.image


def read_rgb(path: Path) -> RGB:
    """Read an image file as (height, width, 3) RGB.

    Raises InputError when it is missing, cannot be decoded, or has more than LARGEST_PX pixels.
    """
    check_file(path)
    try:
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:  # OpenCV's own limits
        bgr = None
    if bgr is None:
        raise InputError(f"{path}: cannot be decoded as an image; copy it again, or save it as PNG")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


latest_rgb = lru_cache(maxsize=1)(read_rgb)  # the labels of one image are often asked for one after the other


def check_file(path: Path) -> None:
    """Raise InputError when an image file is missing or its header states more than LARGEST_PX pixels."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path, or run training.prepare_data again")
    width, height = stated_size(path)
    if width * height > LARGEST_PX:
        raise InputError(
            f"{path}: {width} x {height} px are more than the {LARGEST_PX:,} that are read whole; "
            "cut it (training.prepare_data does, for split val)"
        )


def stated_size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels from the file's header; (0, 0) where it cannot be read."""
    if not cv2.haveImageReader(str(path)):  # Ultralytics has Pillow look for further packages where it knows no reader
        return 0, 0
    try:
        with Image.open(path) as image:
            return image.size
    except (ImportError, OSError, SyntaxError, ValueError):  # damaged headers raise any of them
        return 0, 0  # OpenCV may know it, and says so if not


def load_windows(data: Path) -> list[LabelledWindow]:
    """Read the training images of ``windows.json``."""
    return load_images(data, "windows", "train")


def load_frames(data: Path, split: str) -> list[LabelledWindow]:
    """Read the frames of one split of ``frames.json``."""
    return load_images(data, "frames", split)


def load_images(data: Path, kind: str, split: str) -> list[LabelledWindow]:
    """Read one split of ``KIND.json`` with the images, which lie in ``KIND/`` unless whole paths are stated.

    The first images are kept decoded, up to KEPT_BYTES; the others are decoded whenever they are asked for.

    Raises InputError when the labels or an image cannot be read.
    """
    loaded, kept_bytes = [], 0
    for labels in read_labels(data / f"{kind}.json", split):
        path = data / kind / labels.file_name
        image: RGB | Path = path
        if kept_bytes < KEPT_BYTES:
            image = read_rgb(path)
            kept_bytes += image.nbytes
        else:
            check_file(path)
        points, categories = labelled_points(labels)
        loaded.append(LabelledWindow(image, points.astype(np.float32), categories, Origin(labels.scanner, labels.case)))
    return loaded


def labelled_points(labels: LabelledImage) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return an image's labelled points (n, 2), x and y in its pixels, and their categories (n,)."""
    points = np.concatenate([labels.mitotic_figures_px, labels.look_alikes_px])
    return points, np.repeat([MITOTIC, LOOK_ALIKE], [len(labels.mitotic_figures_px), len(labels.look_alikes_px)])


def distance_to_edge(points: NDArray[np.floating], size_px: tuple[int, int]) -> NDArray[np.floating]:
    """Return how far points (n, 2) are from the nearest outermost pixel's centre, (n,), of an image (width, height)."""
    return np.asarray(np.minimum(points, np.asarray(size_px, points.dtype) - 1 - points).min(axis=1))


@dataclass(frozen=True)
class Patch:
    """A 128 x 128 px crop around a mitotic figure.

    ``slide`` names the slide where it is known; then ``mitoses_px`` (n, 2) holds all the labelled mitoses in reach, in
    the patch's pixels, its own first. Where ``slide`` is empty only the central one is known.
    """

    rgb: RGB
    slide: str
    mitoses_px: NDArray[np.float32]
    origin: Origin = UNKNOWN  # of unknown slides, each patch counts as a case


def load_patches(data: Path, held_out: bool = False) -> list[Patch]:
    """Read the patches of ``patches.csv`` that training sees, or the twelfth of their slides that it does not.

    Patches with a black border (the region ended there) are left out: no slide looks like that. ``scanner`` and
    ``case`` may be stated; else the ``source`` counts as scanner, and the slide as case. Without the file there are
    none.
    """
    path = data / "patches.csv"
    rows = []
    if path.exists():
        with path.open(newline="") as file:
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
            origin = Origin(row.get("scanner") or row["source"], row.get("case") or slide or row["file"])
            patches.append(Patch(rgb, slide, mitoses, origin))
    if not patches and not held_out:
        print(f"{path}: no patch to train on; windows take their place", flush=True)
    return patches


def is_held_out(slide: str) -> bool:
    """Tell whether a slide's patches are kept for validation: the same ones on every machine."""
    return zlib.crc32(slide.encode()) % HELD_OUT_PART == 0


def has_black_border(patch: RGB) -> bool:
    """Tell whether any outermost row or column is black."""
    edges = (patch[0], patch[-1], patch[:, 0], patch[:, -1])
    return any(float(edge.mean()) < 8.0 for edge in edges)
