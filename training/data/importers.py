"""Reads MIDOG++ and SlideRunner databases, each in its own form, into one list of labelled images.

The traps of each form are handled where they occur: MIDOG++ states two corners and not COCO's width and height, and has
50 images that are unlabelled rather than empty; SlideRunner databases number their classes differently each.
docs/formats.md describes the forms.
"""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mitosis.config import one_line
from mitosis.errors import InputError
from mitosis.labels import LOOK_ALIKE_NAME, MITOTIC_NAME, checked_name, checked_spacing, in_midogpp_form, read_centres
from training.data.images import LOOK_ALIKE, MITOTIC

# In small letters, with blanks for hyphens and underscores.
ALIASES = {
    MITOTIC: ("mitotic figure", "mitotic figures", "mitosis", "mitose", "mitoses", "mf"),
    LOOK_ALIKE: (
        "not mitotic figure", "non mitotic figure", "nonmitotic", "non mitotic", "non mitosis", "imposter", "nmf",
        "hard negative", "hard negative look alike", "look alike", "lookalike", "mitosis like", "mitosislike",
        "mitotic like", "mitotic figure look alike", "mitotic figure look alikes", "mitotic figure lookalike",
        "mitotic figure lookalikes",
    ),
}  # fmt: skip
# In the CCMCT and CMC databases, but neither of the two: a granulocyte, say, is what its class says and no label here.
IGNORED = ("tumor cell", "tumorcell", "tumorzelle", "eosinophil", "eosinophile", "granulocyte", "unknown")
NAMES = {MITOTIC: MITOTIC_NAME, LOOK_ALIKE: LOOK_ALIKE_NAME}
MIDOG_FILE = re.compile(r"\d{3}\.tiff")
UNLABELLED_MIDOG = range(151, 201)  # MIDOG 2021's unlabelled scanner: not negative
DISAGREED = (0, None)  # the class of what the experts did not agree on


@dataclass(frozen=True)
class LabelledObject:
    """A labelled cell: its centre in level-0 pixels and its category (MITOTIC or LOOK_ALIKE)."""

    x_px: float
    y_px: float
    category: int


@dataclass(frozen=True)
class LabelledSlide:
    """One image or slide of a data set, with what splitting and balancing need to know.

    ``name`` is the image's own and names what is cut from it; images of one ``case`` are never split apart.
    ``spacing_um`` is what the labels say of the image's micrometres per pixel, if anything.
    """

    path: Path
    name: str
    case: str
    tumor_type: str
    scanner: str
    objects: list[LabelledObject] = field(default_factory=list)
    spacing_um: float | None = None


def category_of(name: str, where: Path) -> int | None:
    """Resolve a class name by alias; None for one that is known and irrelevant. Raises InputError for any other."""
    plain = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    for category, aliases in ALIASES.items():
        if plain in aliases:
            return category
    if plain in IGNORED:
        return None
    raise InputError(f"{where}: unknown class '{name}'; add it to ALIASES or IGNORED in {Path(__file__).name}")


def read_midogpp(folder: Path, tumor_type: str = "unknown", scanner: str = "unknown") -> list[LabelledSlide]:
    """Read ``MIDOG++.json`` and, where there is one, the companion CSV (``;``); the images lie beside them.

    Other data of this form may state ``case``, ``scanner``, ``tumor_type`` and ``spacing_um``, too. ``tumor_type``
    and ``scanner`` are for images of which neither file says it. Labels may lie outside their image.

    Raises InputError where the file is not of the form or contradicts itself.
    """
    path = folder / "MIDOG++.json"
    with in_midogpp_form(path):
        document = json.loads(path.read_text())
        objects = objects_by_image(path, document)
        domains = read_domains(folder)
        slides = []
        for image in labelled_images(path, document["images"], set(objects), bool(domains)):
            file, case = folder / checked_name(path, image), image.get("case")
            domain = domains.get(file.stem.lstrip("0"), {})
            slides.append(
                LabelledSlide(
                    file,
                    file.stem,
                    file.stem if case is None else str(case),
                    image.get("tumor_type") or domain.get("Tumor", tumor_type),
                    image.get("scanner") or domain.get("Scanner", scanner),
                    objects.get(image["id"], []),
                    checked_spacing(path, image) if "spacing_um" in image else None,
                )
            )
    return slides


def objects_by_image(path: Path, document: Any) -> dict[Any, list[LabelledObject]]:
    """Return the labelled objects by the image's id, mitotic figures first; raises InputError as ``mitosis.labels``."""
    categories = {c["id"]: category_of(c["name"], path) for c in document["categories"]}
    relevant = document | {
        "categories": [{"id": number, "name": NAMES[kind]} for number, kind in categories.items() if kind is not None],
        "annotations": [a for a in document["annotations"] if categories[a["category_id"]] is not None],
    }
    kinds = {name: kind for kind, name in NAMES.items()}
    objects: dict[Any, list[LabelledObject]] = {}
    for (image, name), centres in read_centres(path, relevant).items():
        objects.setdefault(image, []).extend(LabelledObject(x, y, kinds[name]) for x, y in centres)
    return {image: sorted(found, key=lambda o: o.category) for image, found in objects.items()}


def labelled_images(
    path: Path, images: list[dict[str, Any]], annotated: set[Any], has_domains: bool
) -> list[dict[str, Any]]:
    """Leave out MIDOG++'s unlabelled images, and say so; of other data, an image without an object is a negative.

    MIDOG++ names its images 001.tiff to 553.tiff, states their tumour there or in the companion CSV, and no case.
    Raises InputError where an image that should be unlabelled has labels.
    """
    named = all("case" not in image and MIDOG_FILE.fullmatch(str(image["file_name"])) for image in images)
    if not named or not (has_domains or any("tumor_type" in image for image in images)):
        return images
    unlabelled = [image for image in images if int(image["file_name"][:3]) in UNLABELLED_MIDOG]
    for image in unlabelled:
        if image["id"] in annotated:
            raise InputError(
                f"{path}: {image['file_name']} has no labels in MIDOG++, but some here; state each image's case if "
                "these are other images"
            )
    if unlabelled:
        print(f"{path}: {len(unlabelled)} of 151.tiff to 200.tiff left out; in MIDOG++ these are unlabelled")
    return [image for image in images if image not in unlabelled]


def read_domains(folder: Path) -> dict[str, dict[str, str]]:
    """Return the companion CSV's rows by slide number; empty where there is no such file."""
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
        if rows and "Slide" in rows[0]:
            return {row["Slide"].strip().removesuffix(".tiff").lstrip("0"): row for row in rows}
    return {}


def read_slide_runner(database: Path, slides: Path, tumor_type: str, scanner: str) -> list[LabelledSlide]:
    """Read a SlideRunner database (MITOS_WSI_CCMCT, MITOS_WSI_CMC) in its old or new column layout.

    Columns are found by name. Whatever its type, an annotation counts with the middle of its bounding box. Those marked
    as deleted, and those on whose class the experts did not agree (class 0), are left out.

    Raises InputError for a file that is none, an unknown class, or an annotation without a place.
    """
    try:
        with sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True) as connection:
            connection.row_factory = sqlite3.Row
            classes = {
                row["uid"]: category_of(row["name"], database)
                for row in connection.execute("SELECT uid, name FROM Classes")
            } | dict.fromkeys(DISAGREED)
            objects: dict[int, list[LabelledObject]] = {}
            for uid, slide, name, points in agreed_labels(connection):
                if name not in classes:
                    raise InputError(f"{database}: annotation {uid} has class {name}, which Classes lacks; mend it")
                if (category := classes[name]) is None:
                    continue
                if not points:
                    raise InputError(f"{database}: annotation {uid} has no coordinates; mark it as deleted, or mend it")
                x, y = ((min(axis) + max(axis)) / 2 for axis in zip(*points, strict=True))
                objects.setdefault(slide, []).append(LabelledObject(x, y, category))
            files = list(connection.execute("SELECT uid, filename FROM Slides ORDER BY uid"))
    except sqlite3.Error as error:
        raise InputError(f"{database}: is no SlideRunner database ({one_line(error)}); name its .sqlite") from error
    paths = {row["uid"]: slides / row["filename"] for row in files}
    return [
        LabelledSlide(path, path.stem, path.stem, tumor_type, scanner, objects.get(uid, []))
        for uid, path in paths.items()
    ]


def agreed_labels(connection: sqlite3.Connection) -> Iterator[tuple[int, int, int, list[tuple[float, float]]]]:
    """Yield (annotation, slide, agreed class, points) of every annotation that is not deleted."""
    columns = {row["name"] for row in connection.execute("PRAGMA table_info(Annotations)")}
    kept = "WHERE deleted IS NULL OR deleted = 0" if "deleted" in columns else ""
    points: dict[int, list[tuple[float, float]]] = {}
    for row in connection.execute(
        "SELECT annoId, coordinateX, coordinateY FROM Annotations_coordinates ORDER BY annoId, orderIdx"
    ):
        points.setdefault(row["annoId"], []).append((float(row["coordinateX"]), float(row["coordinateY"])))
    for row in connection.execute(f"SELECT uid, slide, agreedClass FROM Annotations {kept} ORDER BY uid"):
        yield row["uid"], row["slide"], row["agreedClass"], points.get(row["uid"], [])
