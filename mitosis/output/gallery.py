"""Pictures of an evaluation: hits, false alarms and misses on each image, and a sheet of the cells themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from mitosis.errors import InputError
from mitosis.evaluation import RADIUS_UM, RECORD_NAME, assign, read_result
from mitosis.labels import LabelledImage
from mitosis.output.grand_challenge import Points
from mitosis.output.overlay import GREEN, ORANGE, RED, RGB, draw_boxes, write_png, write_text
from mitosis.slide import WHOLE_PX, Slide, open_slide

KINDS = {"TP": GREEN, "FP": ORANGE, "FN": RED}
TITLES = {"TP": "true positives", "FP": "false positives", "FN": "missed mitotic figures"}
CROP_PX, COLUMNS, FRAME_PX, CAPTION_PX, TITLE_PX = 80, 14, 3, 16, 34
SHOWN = 5 * COLUMNS  # cells of a kind on the sheet
BOX_UM = 12.5  # side of a box around a point: MIDOG++'s 50 px


class Cell(NamedTuple):
    """One cell of the sheet; ``score`` is NaN where the network did not propose it."""

    kind: str
    score: float
    rgb: RGB


class Verdicts(NamedTuple):
    """What became of an image's points: places in its pixels (n, 2), kinds and probabilities (n,)."""

    points_px: NDArray[np.float64]
    kinds: list[str]
    scores: NDArray[np.float64]


def judge(image: LabelledImage, points: Points) -> Verdicts:
    """Tell hits, false alarms and misses apart, as many of each as the challenge's evaluator counts.

    A miss carries the probability of the rejected candidate on it, NaN where there is none.
    """
    truth_um = image.mitotic_figures_px * image.spacing_um
    kept, rejected = (points.xy_mm[points.is_mitotic_figure == wanted] * 1000 for wanted in (True, False))
    hits = assign(truth_um, kept)
    missed = truth_um[hits < 0]
    low = points.probability[~points.is_mitotic_figure]
    near = [low[np.linalg.norm(rejected - place, axis=1) <= RADIUS_UM] for place in missed]
    places = np.concatenate([kept, missed]) / image.spacing_um
    found = set(hits.tolist())
    kinds = ["TP" if index in found else "FP" for index in range(len(kept))] + ["FN"] * len(missed)
    scores = [*points.probability[points.is_mitotic_figure], *(float(v.max()) if len(v) else np.nan for v in near)]
    return Verdicts(places, kinds, np.array(scores, np.float64))


def write_gallery(
    folder: Path, predictions: Path, images: Iterable[LabelledImage], image_folder: Path | None = None
) -> None:
    """Write FOLDER/<stem>.png for each image of up to 64 megapixels, and FOLDER/cells.png.

    Raises InputError where an image is not found or cannot be read, OutputError.
    """
    cells: list[Cell] = []
    for image in images:
        verdicts = judge(image, read_result(predictions / image.stem, image.spacing_um))
        with open_slide(find_image(image, predictions, image_folder), image.spacing_um) as slide:
            cells += cut_cells(slide, verdicts)
            if slide.width_px * slide.height_px <= WHOLE_PX:
                whole = slide.read(0, 0, slide.width_px, slide.height_px)
                drawn = draw_verdicts(whole, verdicts, BOX_UM / image.spacing_um)
                write_png(folder / f"{image.stem}.png", drawn, "--gallery")
    write_png(folder / "cells.png", sheet(cells), "--gallery")


def find_image(image: LabelledImage, predictions: Path, image_folder: Path | None) -> Path:
    """Return an image's file: in the folder that the user names, else where run.json says that it was."""
    if image_folder:
        path = image_folder / image.file_name
    else:
        record = predictions / image.stem / RECORD_NAME
        try:
            path = Path(json.loads(record.read_text())["slide"]["path"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{record}: does not say where the image is; name its folder with --images") from error
    if not path.is_file():
        raise InputError(f"{path}: no such file, so nothing can be drawn on it; name its folder with --images")
    return path


def cut_cells(slide: Slide, verdicts: Verdicts) -> list[Cell]:
    """Cut out the neighbourhood of every point."""
    corners = np.rint(verdicts.points_px).astype(int) - CROP_PX // 2
    return [
        Cell(kind, float(score), slide.read(int(x), int(y), CROP_PX, CROP_PX))
        for kind, score, (x, y) in zip(verdicts.kinds, verdicts.scores, corners, strict=True)
    ]


def draw_verdicts(image: RGB, verdicts: Verdicts, side_px: float) -> RGB:
    """Return a copy of an image with a box around every point, coloured by kind, and a legend."""
    out = image.copy()
    boxes = np.concatenate([verdicts.points_px - side_px / 2, verdicts.points_px + side_px / 2], axis=1)
    legend = []
    for kind, colour in KINDS.items():
        chosen = np.array([k == kind for k in verdicts.kinds], bool)
        draw_boxes(out, boxes[chosen], colour, verdicts.scores[chosen])
        legend.append((f"{int(chosen.sum())} {TITLES[kind]}", colour))
    size = max(0.6, min(out.shape[:2]) / 1600)
    for line, (text, colour) in enumerate(legend, start=1):
        write_text(out, text, (12, round(36 * size) * line), size, colour)
    return out


def sheet(cells: Sequence[Cell], titles: Mapping[str, str] = TITLES) -> RGB:
    """Lay cells out by kind, the most probable first; ``titles`` says which kinds and in which order."""
    side, step = CROP_PX + 2 * FRAME_PX, CROP_PX + 2 * FRAME_PX + CAPTION_PX
    parts = []
    for kind, title in titles.items():
        colour = KINDS[kind]
        ordered = sorted((c for c in cells if c.kind == kind), key=lambda c: -np.nan_to_num(c.score, nan=-1.0))
        shown = ordered[:SHOWN]
        lines = -(-len(shown) // COLUMNS)
        part = np.full((TITLE_PX + lines * step, COLUMNS * side, 3), 255, np.uint8)
        more = f", {len(shown)} shown" if len(shown) < len(ordered) else ""
        write_text(part, f"{len(ordered)} {title}{more}", (6, 24), 0.6, colour)
        for index, cell in enumerate(shown):
            x, y = index % COLUMNS * side, TITLE_PX + index // COLUMNS * step
            part[y : y + side, x : x + side] = framed(cell.rgb, colour)
            text = "not proposed" if np.isnan(cell.score) else f"{cell.score:.2f}"
            cv2.putText(part, text, (x + 4, y + side + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (60,) * 3, 1, cv2.LINE_AA)
        parts.append(part)
    return np.concatenate(parts)


def framed(rgb: RGB, colour: tuple[int, int, int]) -> RGB:
    """Put a frame of one colour around a picture."""
    w = FRAME_PX
    return np.asarray(cv2.copyMakeBorder(rgb, w, w, w, w, cv2.BORDER_CONSTANT, value=colour), dtype=np.uint8)
