"""Draws an H&E-like region with planted mitotic figures and look-alikes, as a challenge-shaped case.

    python test/make_case.py            writes test/input/interf0 and test/planted.json

Everything is drawn: no pixel comes from a photograph. Stains are added in optical density and turned into light by
Beer and Lambert's law, as in tissue; the shapes imitate what pathologists look for. The same seed gives the same bytes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.random import Generator
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from draw_tissue import LOOK_ALIKES, MITOSES, Tissue, draw_background, draw_nucleus

HERE = Path(__file__).parent
SPACING_UM = 0.25
PLACE = "images/histopathology-roi-cropout"
FILE = "synthetic-region.tiff"
MARGIN_PX, DISTANCE_PX = 20, 70
TILE_EDGES_PX = (409, 512)  # the first inner tile edges at 20 % overlap: what is planted here is cut by a tile


@dataclass(frozen=True)
class Plan:
    """What to draw."""

    seed: int = 7
    width_px: int = 2048
    height_px: int = 1536
    mitoses: int = 24
    look_alikes: int = 24
    nuclei_per_mm2: float = 5200.0


def places(rng: Generator, plan: Plan, count: int) -> list[tuple[float, float]]:
    """Scatter ``count`` points at least ``DISTANCE_PX`` apart; the first ones lie on tile edges and the border."""
    found = [(edge, 300.0 + 200 * i) for i, edge in enumerate(TILE_EDGES_PX) if edge < plan.width_px - 60]
    found.append((plan.width_px / 2, float(MARGIN_PX)))
    found = found[:count]
    while len(found) < count:
        x, y = rng.uniform((60, 60), (plan.width_px - 60, plan.height_px - 60))
        if all(np.hypot(x - a, y - b) > DISTANCE_PX for a, b in found):
            found.append((float(x), float(y)))
    return found


def draw(plan: Plan) -> tuple[NDArray[np.uint8], list[tuple[float, float, int]]]:
    """Return the image (h, w, 3) RGB and its objects (x, y, category): 1 mitotic figure, 2 look-alike."""
    rng = np.random.default_rng(plan.seed)
    tissue = Tissue.empty(plan.height_px, plan.width_px)
    draw_background(rng, tissue)
    special = places(rng, plan, plan.mitoses + plan.look_alikes)
    scatter_nuclei(rng, plan, tissue, special)
    objects = []
    for index, (x, y) in enumerate(special):
        category, shapes = (1, MITOSES) if index < plan.mitoses else (2, LOOK_ALIKES)
        shapes[index % len(shapes)](rng, tissue, x, y)
        objects.append((round(x, 1), round(y, 1), category))
    return tissue.photograph(rng), objects


def scatter_nuclei(rng: Generator, plan: Plan, tissue: Tissue, special: list[tuple[float, float]]) -> None:
    """Fill the region with interphase nuclei that keep clear of each other and of the planted objects."""
    area_mm2 = plan.width_px * plan.height_px * (SPACING_UM / 1000) ** 2
    taken = np.zeros((plan.height_px // 8 + 1, plan.width_px // 8 + 1), np.uint8)
    for x, y in special:
        cv2.circle(taken, (int(x) // 8, int(y) // 8), 5, 1, -1)
    for _ in range(int(plan.nuclei_per_mm2 * area_mm2)):
        x, y = rng.uniform((0, 0), (plan.width_px, plan.height_px))
        cell = (int(x) // 8, int(y) // 8)
        if not taken[cell[1], cell[0]]:
            draw_nucleus(rng, tissue, x, y)
            cv2.circle(taken, cell, 3, 1, -1)


def write_case(folder: Path, planted: Path, plan: Plan) -> None:
    """Write the case's folder and the labels in MIDOG++'s form."""
    image, objects = draw(plan)
    (folder / PLACE).mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        folder / PLACE / FILE, image, photometric="rgb", tile=(256, 256), compression="jpeg",
        compressionargs={"level": 88}, resolution=(1e4 / SPACING_UM,) * 2, resolutionunit="CENTIMETER",
        metadata=None, software="mitosis test case",
    )  # fmt: skip
    slug = "histopathology-region-of-interest-cropout"
    interface = {"slug": slug, "title": "Region of interest", "kind": "Image", "relative_path": PLACE}
    socket = {"interface": interface, "image": {"name": FILE}, "file": None, "value": None}
    (folder / "inputs.json").write_text(json.dumps([socket], indent=1) + "\n")
    planted.write_text(json.dumps(labels(plan, objects), indent=1) + "\n")


def labels(plan: Plan, objects: list[tuple[float, float, int]]) -> dict[str, object]:
    """Describe what was planted: corners of 50 x 50 px boxes."""
    image = {"id": 1, "file_name": FILE, "width": plan.width_px, "height": plan.height_px, "case": "synthetic"}
    image |= {"split": "test", "scanner": "drawn", "spacing_um": SPACING_UM, "tumor_type": "drawn"}
    boxes = [
        {"id": i, "image_id": 1, "bbox": [x - 25, y - 25, x + 25, y + 25], "category_id": category}
        for i, (x, y, category) in enumerate(objects, start=1)
    ]
    names = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}]
    return {"info": {"description": "drawn"}, "categories": names, "images": [image], "annotations": boxes}


if __name__ == "__main__":
    write_case(HERE / "input" / "interf0", HERE / "planted.json", Plan())
