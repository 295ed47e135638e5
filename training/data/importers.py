"""Reads published data sets of mitotic figures, each in its own form, into one list of labelled images.

The traps of each form are handled where they occur: MIDOG++ states two corners and not COCO's width and height, and has
50 images that are unlabelled rather than empty; SlideRunner databases number their classes differently each.
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from mitosis.errors import InputError
from mitosis.slide import IMAGE_SUFFIXES, open_slide
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
UNLABELLED_MIDOG = range(151, 201)  # MIDOG 2021's unlabelled scanner: not negative
DISAGREED = (0, None)  # the class of what the experts did not agree on
SPOT, POLYGON = 1, 3  # SlideRunner's annotation types


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
    """

    path: Path
    name: str
    case: str
    tumor_type: str
    scanner: str
    objects: list[LabelledObject] = field(default_factory=list)


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
    """Read MIDOG++: ``MIDOG++.json``, TIFF regions, and the companion CSV (``;``) where there is one.

    ``tumor_type`` and ``scanner`` are for images of which neither says it.
    """
    path = folder / "MIDOG++.json"
    document = json.loads(path.read_text())
    names = {c["id"]: category_of(c["name"], path) for c in document["categories"]}
    domains = read_domains(folder)
    objects: dict[int, list[LabelledObject]] = {}
    for annotation in document["annotations"]:
        x1, y1, x2, y2 = annotation["bbox"]  # two corners
        category = names[annotation["category_id"]]
        if category is not None:
            found = LabelledObject((x1 + x2) / 2, (y1 + y2) / 2, category)
            objects.setdefault(annotation["image_id"], []).append(found)
    slides = []
    for image in document["images"]:
        number = Path(image["file_name"]).stem
        if number.isdigit() and int(number) in UNLABELLED_MIDOG:
            if image["id"] in objects:
                raise InputError(f"{path}: {image['file_name']} should be unlabelled but has annotations; wrong file?")
            continue
        domain = domains.get(number.lstrip("0"), {})
        tumor = image.get("tumor_type") or domain.get("Tumor", tumor_type)
        inside = [
            o for o in objects.get(image["id"], []) if 0 <= o.x_px < image["width"] and 0 <= o.y_px < image["height"]
        ]
        slides.append(
            LabelledSlide(folder / image["file_name"], number, number, tumor, domain.get("Scanner", scanner), inside)
        )
    return slides


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

    Columns are found by name. A polygon counts with the middle of its bounding box. Annotations marked as deleted, and
    those on whose class the experts did not agree (class 0), are left out.
    """
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        classes = {
            row["uid"]: category_of(row["name"], database)
            for row in connection.execute("SELECT uid, name FROM Classes")
        } | dict.fromkeys(DISAGREED)
        objects: dict[int, list[LabelledObject]] = {}
        for slide, name, points in agreed_labels(connection):
            if name not in classes:
                raise InputError(f"{database}: an annotation has class {name}, which Classes does not name; mend it")
            if (category := classes[name]) is not None:
                x, y = ((min(axis) + max(axis)) / 2 for axis in zip(*points, strict=True))
                objects.setdefault(slide, []).append(LabelledObject(x, y, category))
        files = list(connection.execute("SELECT uid, filename FROM Slides ORDER BY uid"))
    paths = {row["uid"]: slides / row["filename"] for row in files}
    return [
        LabelledSlide(path, path.stem, path.stem, tumor_type, scanner, objects.get(uid, []))
        for uid, path in paths.items()
    ]


def agreed_labels(connection: sqlite3.Connection) -> Iterator[tuple[int, int, list[tuple[float, float]]]]:
    """Yield (slide, agreed class, points) of every annotation that is not deleted."""
    columns = {row["name"] for row in connection.execute("PRAGMA table_info(Annotations)")}
    kept = "AND (deleted IS NULL OR deleted = 0)" if "deleted" in columns else ""
    points: dict[int, list[tuple[float, float]]] = {}
    for row in connection.execute(
        "SELECT annoId, coordinateX, coordinateY FROM Annotations_coordinates ORDER BY annoId, orderIdx"
    ):
        points.setdefault(row["annoId"], []).append((float(row["coordinateX"]), float(row["coordinateY"])))
    query = f"SELECT uid, slide, agreedClass FROM Annotations WHERE type IN ({SPOT}, {POLYGON}) {kept} ORDER BY uid"
    for row in connection.execute(query):
        if row["uid"] in points:
            yield row["slide"], row["agreedClass"], points[row["uid"]]


def read_yolo(folder: Path, tumor_type: str, scanner: str) -> list[LabelledSlide]:
    """Read a YOLO-format folder: ``data.yaml`` (names), ``images/``, ``labels/*.txt`` (class, centre and size in 0..1).

    As YOLO has it, an image without a label file holds no object. An image is named by its path under ``images/``,
    since ``train/a.png`` and ``val/a.png`` are two; each is a case of its own.

    Raises InputError for an unknown class or a malformed line.
    """
    path = folder / "data.yaml"
    names = yaml.safe_load(path.read_text())["names"]
    by_number = dict(enumerate(names)) if isinstance(names, list) else {int(k): v for k, v in names.items()}
    categories = {number: category_of(name, path) for number, name in by_number.items()}
    slides = []
    for image in sorted(p for p in (folder / "images").rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        relative = image.relative_to(folder / "images").with_suffix("")
        name = "_".join(relative.parts)
        labels = folder / "labels" / f"{relative}.txt"
        objects = []
        if labels.exists():
            with open_slide(image, spacing_um=1.0) as slide:  # only its size is wanted
                width, height = slide.width_px, slide.height_px
            for number, x, y in yolo_centres(labels):
                if number not in categories:
                    raise InputError(f"{labels}: class {number} is not in {path}; mend one of them")
                category = categories[number]
                if category is not None:
                    objects.append(LabelledObject(x * width, y * height, category))
        slides.append(LabelledSlide(image, name, name, tumor_type, scanner, objects))
    return slides


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
