"""The smallest data folder that both stages can be trained on: drawn, one object of each kind."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from training.data.images import is_held_out

MITOSIS, LOOK_ALIKE = [39, 39, 89, 89], [300, 300, 350, 350]  # corners


def write_training_data(folder: Path) -> Path:
    """Write windows, frames and patches with their descriptions into ``folder``; returns it."""
    for name, side in (("windows", 704), ("frames", 704), ("patches", 128)):
        (folder / name).mkdir(parents=True)
        image = np.full((side, side, 3), 230, np.uint8)
        cv2.circle(image, (64, 64), 9, (60, 20, 60), -1)
        cv2.imwrite(str(folder / name / "a.png"), image)
    labels = [
        {"image_id": 1, "bbox": MITOSIS, "category_id": 1},
        {"image_id": 1, "bbox": LOOK_ALIKE, "category_id": 2},
    ]
    names = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}]
    image = {"id": 1, "file_name": "a.png", "case": "A", "spacing_um": 0.25, "scanner": "drawn"}
    for name, split in (("windows", "train"), ("frames", "val")):
        document = {"categories": names, "images": [image | {"split": split}], "annotations": labels}
        (folder / f"{name}.json").write_text(json.dumps(document))
    seen = next(name for name in names_of_patches() if not is_held_out(f"S{name}"))
    held_out = next(name for name in names_of_patches() if is_held_out(f"S{name}"))
    for name in (seen, held_out):
        shutil.copy(folder / "patches/a.png", folder / "patches" / name)
    (folder / "patches.csv").write_text(f"file,source,slide,x,y\n{seen},S,,,\n{held_out},S,,,\n")
    return folder


def names_of_patches() -> Iterator[str]:
    return (f"{number}.png" for number in itertools.count())


def write_candidates(run: Path) -> None:
    """Write what mining would leave after a longer training of stage 1: the mitosis and three false positives."""
    rows = [[*MITOSIS, 0.9, 1.0], *([[x, 500, x + 50, 550, 0.5, 0.0] for x in (100, 250, 400)])]
    (run / "candidates.json").write_text(json.dumps({"train": {"0": rows}, "val": {"0": rows}}))
