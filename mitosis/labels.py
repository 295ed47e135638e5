"""Reads labelled images in MIDOG++'s JSON form."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitosis.config import one_line
from mitosis.errors import InputError
from mitosis.spacing import PLAUSIBLE_UM, is_plausible

MITOTIC_NAME, LOOK_ALIKE_NAME = "mitotic figure", "not mitotic figure"
ALIASES = {
    MITOTIC_NAME: ("mitotic figure", "mitotic figures", "mitosis", "mitoses", "mf"),
    LOOK_ALIKE_NAME: (
        "not mitotic figure", "non-mitotic figure", "non mitotic figure", "hard negative", "hard negative look-alike",
        "hard negative look-alikes", "hard negative lookalike", "look-alike", "lookalike", "imposter", "nmf",
    ),
}  # fmt: skip


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

    Raises InputError when the file is not of that form, contradicts itself, or holds no image of the split.
    """
    with in_midogpp_form(path):
        document = json.loads(path.read_text())
        centres = read_centres(path, document)
        splits = sorted({str(image.get("split")) for image in document["images"]})
        images = [
            LabelledImage(
                checked_name(path, image),
                str(image.get("case", image["id"])),
                str(image.get("scanner", "unknown")),
                checked_spacing(path, image),
                as_points(centres.get((image["id"], MITOTIC_NAME), [])),
                as_points(centres.get((image["id"], LOOK_ALIKE_NAME), [])),
            )
            for image in document["images"]
            if split is None or str(image.get("split")) == split
        ]
    if not splits:
        raise InputError(f"{path}: lists no image; name another file")
    if not images:
        raise InputError(f"{path}: holds no image of split '{split}'; choose one of {', '.join(splits)}")
    check_stems(path, images)
    return images


@contextmanager
def in_midogpp_form(path: Path) -> Iterator[None]:
    """Let whatever a document of another form leads to become an InputError that names the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: is not in MIDOG++'s JSON form ({reason}); see docs/formats.md") from error


def checked_name(path: Path, image: dict[str, Any]) -> str:
    """Return an image's file name; raises InputError where it is no text."""
    if not isinstance(name := image["file_name"], str):
        raise InputError(f"{path}: image {image['id']}: its file_name {name} is no text; mend it")
    return name


def checked_spacing(path: Path, image: dict[str, Any]) -> float:
    """Return an image's micrometres per pixel; raises InputError where no microscope gives them."""
    spacing_um = float(image["spacing_um"])
    if not is_plausible(spacing_um):
        raise InputError(
            f"{path}: image {image['id']}: its spacing_um is {spacing_um:g}, outside "
            f"{PLAUSIBLE_UM[0]}..{PLAUSIBLE_UM[1]}; state micrometres per pixel"
        )
    return spacing_um


def read_centres(path: Path, document: Any) -> dict[tuple[int, str], list[tuple[float, float]]]:
    """Return the boxes' centres by image and by ``MITOTIC_NAME`` or ``LOOK_ALIKE_NAME``.

    Raises InputError, naming the annotation, where a box, an image or a category is not what it should be, and whatever
    a document of another form leads to.
    """
    names = {category["id"]: category["name"] for category in document["categories"]}
    known = [image["id"] for image in document["images"]]
    if twice := [number for number, count in Counter(known).items() if count > 1]:
        raise InputError(f"{path}: two images have id {twice[0]}; give each its own")
    known_ids = set(known)
    centres: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for index, annotation in enumerate(document["annotations"]):
        entry = f"{path}: annotation {annotation.get('id', f'at place {index}')}"
        x1, y1, x2, y2 = annotation["bbox"]
        if not (x2 > x1 and y2 > y1):
            raise InputError(
                f"{entry}: its bbox {annotation['bbox']} ends before it begins; write the corners [x1, y1, x2, y2], "
                "not COCO's [x, y, width, height]"
            )
        if annotation["image_id"] not in known_ids:
            raise InputError(f"{entry}: there is no image of id {annotation['image_id']}; mend image_id")
        name = plain_name(names[annotation["category_id"]])
        if name is None:
            raise InputError(
                f"{entry}: its category '{names[annotation['category_id']]}' is neither '{MITOTIC_NAME}' nor "
                f"'{LOOK_ALIKE_NAME}'; rename the category, or remove its annotations"
            )
        centres.setdefault((annotation["image_id"], name), []).append(((x1 + x2) / 2, (y1 + y2) / 2))
    return centres


def plain_name(name: str) -> str | None:
    """Return ``MITOTIC_NAME`` or ``LOOK_ALIKE_NAME`` for a category's name in any of its spellings, None for others."""
    plain = " ".join(name.lower().replace("_", " ").split())
    return next((known for known, aliases in ALIASES.items() if plain in aliases), None)


def check_stems(path: Path, images: list[LabelledImage]) -> None:
    """Refuse two images whose results would lie in one folder: both would be scored on the same detections."""
    seen: dict[str, str] = {}
    for image in images:
        if image.stem in seen:
            raise InputError(
                f"{path}: {seen[image.stem]} and {image.file_name} share the stem '{image.stem}', and so one folder of "
                "results; rename one, or evaluate them apart with --split"
            )
        seen[image.stem] = image.file_name


def as_points(points: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Return (n, 2), also for none."""
    return np.array(points, dtype=np.float64).reshape(-1, 2)
