"""Reads labelled images in MIDOG++'s JSON form."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mitosis.config import one_line
from mitosis.errors import InputError

MITOTIC_NAME, LOOK_ALIKE_NAME = "mitotic figure", "not mitotic figure"


@dataclass(frozen=True)
class LabelledImage:
    """One image's labels: centres (n, 2) of the boxes, x and y in the image's pixels."""

    file_name: str
    case: str
    scanner: str
    spacing_um: float
    mitotic_figures_px: NDArray[np.float64]
    look_alikes_px: NDArray[np.float64]

    @property
    def stem(self) -> str:
        """The file's name without its suffix, which names the folder of its results."""
        return Path(self.file_name).stem


def read_labels(path: Path, split: str | None = None) -> list[LabelledImage]:
    """Read the images of one split, or all. ``bbox`` is [x1, y1, x2, y2], two corners and not COCO's width and height.

    Raises InputError when the file is not of that form, or holds no image of the split.
    """
    try:
        document = json.loads(path.read_text())
        names = {category["id"]: category["name"] for category in document["categories"]}
        centres: dict[tuple[int, str], list[tuple[float, float]]] = {}
        for annotation in document["annotations"]:
            x1, y1, x2, y2 = annotation["bbox"]
            key = (annotation["image_id"], names[annotation["category_id"]])
            centres.setdefault(key, []).append(((x1 + x2) / 2, (y1 + y2) / 2))
        splits = sorted({str(image.get("split")) for image in document["images"]})
        images = [
            LabelledImage(
                image["file_name"],
                str(image.get("case", image["id"])),
                str(image.get("scanner", "unknown")),
                float(image["spacing_um"]),
                as_points(centres.get((image["id"], MITOTIC_NAME), [])),
                as_points(centres.get((image["id"], LOOK_ALIKE_NAME), [])),
            )
            for image in document["images"]
            if split is None or image.get("split") == split
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: is not in MIDOG++'s JSON form ({reason}); see docs/formats.md") from error
    if not images:
        raise InputError(f"{path}: holds no image of split '{split}'; choose one of {', '.join(splits)}")
    return images


def as_points(points: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Return (n, 2), also for none."""
    return np.array(points, dtype=np.float64).reshape(-1, 2)
