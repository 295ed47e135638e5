"""Reads folders in YOLO's form into the same list of labelled images as ``training.data.importers``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from mitosis.config import one_line
from mitosis.errors import InputError
from mitosis.slide import IMAGE_SUFFIXES, open_slide
from training.data.importers import LabelledObject, LabelledSlide, category_of

IMAGES, LABELS = "images", "labels"  # the folders, anywhere in the data set


def read_yolo(folder: Path, tumor_type: str, scanner: str) -> list[LabelledSlide]:
    """Read a YOLO-format folder: ``data.yaml`` (names), images, labels (class, centre and size in 0..1).

    Labels lie at the image's path with ``images`` made ``labels``, be it ``images/train/a.png`` or
    ``train/images/a.png``. As YOLO has it, an image without a label file holds no object. An image is named by its path
    without ``images``, since ``train/a.png`` and ``val/a.png`` are two; each is a case of its own.

    Raises InputError where there is no image, for an unknown class or a malformed line.
    """
    categories = read_categories(folder / "data.yaml")
    images = sorted({p for p in folder.rglob(f"{IMAGES}/**/*") if p.suffix.lower() in IMAGE_SUFFIXES})
    if not images:
        raise InputError(f"{folder}: no image in images/ or in train/images/ and the like; name the data set's folder")
    slides = []
    for image in images:
        *parents, stem = image.relative_to(folder).with_suffix("").parts
        place = len(parents) - 1 - parents[::-1].index(IMAGES)  # the last one
        before, after = parents[:place], parents[place + 1 :]
        name = "_".join([*before, *after, stem])
        labels = folder.joinpath(*before, LABELS, *after, f"{stem}.txt")
        objects = read_objects(image, labels, categories) if labels.exists() else []
        slides.append(LabelledSlide(image, name, name, tumor_type, scanner, objects))
    return slides


def read_categories(path: Path) -> dict[int, int | None]:
    """Return the category of each class number of ``data.yaml``. Raises InputError where it does not name them."""
    try:
        names = yaml.safe_load(path.read_text())["names"]
        by_number = dict(enumerate(names)) if isinstance(names, list) else {int(k): v for k, v in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: does not name the classes under 'names' ({reason}); see docs/formats.md") from error
    return {number: category_of(str(name), path) for number, name in by_number.items()}


def read_objects(image: Path, labels: Path, categories: dict[int, int | None]) -> list[LabelledObject]:
    """Return one image's labelled objects. Raises InputError for a class that ``categories`` does not have."""
    with open_slide(image, spacing_um=1.0) as slide:  # only its size is wanted
        width, height = slide.width_px, slide.height_px
    objects = []
    for number, x, y in yolo_centres(labels):
        if number not in categories:
            raise InputError(f"{labels}: class {number} is not in data.yaml; mend one of them")
        category = categories[number]
        if category is not None:
            objects.append(LabelledObject(x * width, y * height, category))
    return objects


def yolo_centres(labels: Path) -> Iterator[tuple[int, float, float]]:
    """Yield (class, x, y) of each line of a YOLO label file, the centre in shares of width and height.

    Raises InputError that names the line which is not class, centre and size.
    """
    for number, line in enumerate(labels.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            kind, *box = line.split()
            x, y, _, _ = (float(value) for value in box)
            found = int(kind), x, y
        except ValueError as error:
            raise InputError(f"{labels}, line {number}: '{line}' is not class, x, y, width, height; mend it") from error
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise InputError(f"{labels}, line {number}: the centre {x:g}, {y:g} is not within 0..1; state shares")
        yield found
