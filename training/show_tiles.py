"""Draws a sheet of augmented tiles with their boxes, as stage 1 sees them.

python -m training.show_tiles --data ../shared/data --profile paper --output tiles.png
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer

from training.data.images import load_patches, load_windows
from training.data.tiles import TileStream
from training.profiles import DETECTOR_PROFILES

TILE_PX = 512
SHOWN_PX = 256
GREEN_BGR = (60, 200, 0)


def main(
    data: Annotated[Path, typer.Option(help="Folder with windows.json, as train_detector reads it")],
    output: Annotated[Path, typer.Option(help="Picture to write")],
    profile: Annotated[str, typer.Option(help=f"Settings: {', '.join(DETECTOR_PROFILES)}")] = "paper",
    rows: int = 3,
    columns: int = 5,
    mosaics: Annotated[bool, typer.Option(help="As in the first epochs; --no-mosaics as later")] = True,
    seed: int = 0,
) -> None:
    """Draw the first tiles of the stream, boxes in green."""
    settings = DETECTOR_PROFILES[profile]
    patches = load_patches(data) if settings.mix.patches else []
    stream = iter(TileStream(load_windows(data), patches, TILE_PX, settings, seed, mosaics))
    sheet = np.zeros((rows * SHOWN_PX, columns * SHOWN_PX, 3), np.uint8)
    for index in range(rows * columns):
        tile, boxes = next(stream)
        bgr = np.ascontiguousarray(tile.numpy().transpose(1, 2, 0)[..., ::-1])
        for x1, y1, x2, y2 in boxes.numpy().round().astype(int).tolist():
            cv2.rectangle(bgr, (x1, y1), (x2, y2), GREEN_BGR, 3)
        y, x = (SHOWN_PX * v for v in divmod(index, columns))
        sheet[y : y + SHOWN_PX, x : x + SHOWN_PX] = cv2.resize(bgr, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(output), sheet)


if __name__ == "__main__":
    typer.run(main)
