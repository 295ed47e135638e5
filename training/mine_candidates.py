"""Between the stages: run the trained detector over training windows and validation frames, keep its candidates.

python -m training.mine_candidates --data ../shared/data --run runs/first
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track

from mitosis.config import Config
from mitosis.detections import boxes_px
from mitosis.detector import read_candidates
from mitosis.merging import merge
from mitosis.tiling import Tile, tiles
from training.data.images import BOX_PX, MITOTIC, RGB, LabelledWindow, distance_to_edge, load_frames, load_windows
from training.networks.yolo11 import MitosisDetector

FILE_NAME = "candidates.json"
TILE_PX = 512
MATCH_PX = 30.0  # 7.5 um at 0.25 um a pixel: the challenge's radius
EDGE_PX = BOX_PX / 2  # nearer to a training window's edge, a mitosis may be labelled in the neighbour alone


def load_detector(run: Path) -> MitosisDetector:
    """Rebuild the trained detector with its averaged weights, ready to predict."""
    saved = torch.load(run / "detector.pt", map_location="cpu", weights_only=True)
    model = MitosisDetector(saved["variant"], saved["scale"])
    model.load_state_dict(saved["average"])
    model.eval().to(memory_format=torch.channels_last)
    return model


@torch.no_grad()
def predict(model: MitosisDetector, rgb: RGB, confidence: float) -> NDArray[np.float32]:
    """Return the merged candidates of one image as (n, 5): box corners in its pixels, and score."""
    found, device = [], next(model.parameters()).device
    for tile in tiles(rgb.shape[1], rgb.shape[0], TILE_PX, Config().overlap):
        x = torch.from_numpy(tile_of(rgb, tile))
        pixels = x.to(device).permute(2, 0, 1)[None].float().contiguous(memory_format=torch.channels_last) / 255
        with torch.autocast(device.type, torch.bfloat16):
            raw = model(pixels)[0]
        rows = read_candidates(raw[0].float().cpu().numpy(), tile, confidence, Config().nms_iou)
        for name, shift in (("x1", tile.x_px), ("y1", tile.y_px), ("x2", tile.x_px), ("y2", tile.y_px)):
            rows[name] += shift
        found.append(rows)
    rows = merge(np.concatenate(found), Config().merge_iou)
    return np.column_stack([boxes_px(rows), rows["detector_score"]])


def tile_of(rgb: RGB, tile: Tile) -> RGB:
    """Cut a tile out of an image, (side, side, 3); white where the image ends, as in inference."""
    cut = rgb[tile.y_px : tile.y_px + TILE_PX, tile.x_px : tile.x_px + TILE_PX]
    out = np.full((TILE_PX, TILE_PX, 3), 255, np.uint8)
    out[: cut.shape[0], : cut.shape[1]] = cut
    return out


def mine(
    model: MitosisDetector, windows: list[LabelledWindow], what: str, confidence: float, edge_px: float = 0.0
) -> dict[int, list[list[float]]]:
    """Return per image index the boxes (x1, y1, x2, y2, score, whether a labelled mitosis is near)."""
    mined: dict[int, list[list[float]]] = {}
    for index, window in enumerate(track(windows, what)):
        rows = held_against_labels(predict(model, window.rgb, confidence), window, edge_px)
        if len(rows):
            mined[index] = rows.round(3).tolist()
    return mined


def held_against_labels(boxes: NDArray[np.float32], window: LabelledWindow, edge_px: float) -> NDArray[np.float32]:
    """Add to boxes (n, 5) whether a labelled mitosis is within MATCH_PX; false ones near an edge are left out.

    A window has labels only for what has its centre inside. So what lies across its edge may be a mitosis without a
    label, and would teach stage 2 that mitoses are none.

    Args:
        boxes: corners in the window's pixels, and score.
        window: the image with its labels.
        edge_px: false positives whose centre is nearer than this to an outermost pixel's centre go.

    Returns:
        (m, 6): corners, score, 1 where a mitosis is near and else 0.

    """
    centres = (boxes[:, :2] + boxes[:, 2:4]) / 2
    mitoses = window.points[window.categories == MITOTIC]
    near = (np.linalg.norm(centres[:, None] - mitoses[None], axis=2) <= MATCH_PX).any(axis=1)
    height, width = window.rgb.shape[:2]
    rows = np.column_stack([boxes, near]).astype(np.float32)
    return np.asarray(rows[near | (distance_to_edge(centres, (width, height)) >= edge_px)])


def main(
    data: Annotated[Path, typer.Option(help="Folder with windows.json and frames.json")],
    run: Annotated[Path, typer.Option(help="Folder of the trained detector; the result goes there too")],
    confidence: Annotated[
        float, typer.Option(help="Lowest score of a candidate; a lower one gives more and more varied negatives")
    ] = Config().detector_confidence,
) -> None:
    """Write RUN/candidates.json: stage 1's candidates on the training windows and on the frames of split val."""
    model = load_detector(run)
    if torch.cuda.is_available():
        model.cuda()
    found = {
        "train": mine(model, load_windows(data), "training windows", confidence, EDGE_PX),
        "val": mine(model, load_frames(data, "val"), "validation frames", confidence),
    }
    (run / FILE_NAME).write_text(json.dumps(found))
    for split, boxes in found.items():
        near = [row[5] for rows in boxes.values() for row in rows]
        print(f"{split}: {len(near)} candidates, {int(sum(near))} of them mitoses")


if __name__ == "__main__":
    typer.run(main)
