"""One contender on one region, in a process of its own: prints a line of JSON. Driven by ``against_others``.

python -m benchmarks.rivals ours REGION --model model --spacing 0.25
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from benchmarks.memory import peak_mb

for name, value in (("YOLO_AUTOINSTALL", "False"), ("YOLO_OFFLINE", "True"), ("YOLO_CONFIG_DIR", "/tmp/mitosis-yolo")):
    os.environ.setdefault(name, value)

TILE_PX, OVERLAP = 512, 0.2
BATCH = 8  # tiles that SAHI hands on at once, where it is asked to
WARM_UP_PX = 1024

Points = NDArray[np.float64]
Detect = Callable[[Path], Points]  # an image file -> (n, 2) centres in its pixels


def ours(model: Path, spacing_um: float, confidence: float, one_look: bool = False) -> Detect:
    """Both stages, from the file to the written mitotic-figures.json. Rejected candidates count as found, too.

    With ``one_look``, stage 1 sees every tile once, as everywhere else. A slide, larger than a region, goes as in
    `mitosis detect`: tiles of empty glass are skipped.
    """
    from mitosis.bundle import read_bundle
    from mitosis.config import Config
    from mitosis.output.grand_challenge import read_points
    from mitosis.pipeline import load_model
    from mitosis.results import Options, process_case, process_slide
    from mitosis.slide import WHOLE_PX

    config = Config().at(read_bundle(model).description.operating_point)
    loaded = load_model(model, config=config.looking(1) if one_look else config)

    def run(path: Path) -> Points:
        with TemporaryDirectory() as folder, Image.open(path) as image:
            target = Path(folder) / "mitotic-figures.json"
            if image.width * image.height > WHOLE_PX:
                process_slide(path, Path(folder), loaded, Options(spacing_um, report=False))
            else:
                process_case(path, target, loaded, spacing_um)
            return np.asarray(read_points(target).xy_mm * 1000 / spacing_um)

    return run


def sahi(model: Path, spacing_um: float, confidence: float, batch: int = 1) -> Detect:
    """SAHI's sliced prediction around Ultralytics, stage 1 alone, of a .pt, an .onnx or an OpenVINO folder.

    ``batch`` is how many tiles it hands to the network at once; one is SAHI's own default.
    """
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction

    loaded = AutoDetectionModel.from_pretrained(
        model_type="ultralytics",
        model_path=str(model),
        confidence_threshold=confidence,
        device="cpu",
        image_size=TILE_PX,
        category_mapping={"0": "mitotic figure"},
        task="detect",
    )

    def run(path: Path) -> Points:
        result = get_sliced_prediction(
            str(path),
            loaded,
            slice_height=TILE_PX,
            slice_width=TILE_PX,
            overlap_height_ratio=OVERLAP,
            overlap_width_ratio=OVERLAP,
            perform_standard_pred=False,  # the whole region at once, shrunk to one tile, would find nothing
            postprocess_type="NMS",
            postprocess_match_metric="IOU",
            postprocess_match_threshold=0.5,
            verbose=0,
            batch_size=batch,
        )
        boxes = np.array([found.bbox.to_xyxy() for found in result.object_prediction_list]).reshape(-1, 4)
        return np.asarray((boxes[:, :2] + boxes[:, 2:]) / 2)

    return run


def published(model: Path, spacing_um: float, confidence: float) -> Detect:
    """The paper's published loop on a .pt; see ``published_loop``."""
    from ultralytics import YOLO

    from benchmarks.published_loop import run_published_loop

    loaded = YOLO(str(model), task="detect")

    def run(path: Path) -> Points:
        boxes = np.array(run_published_loop(path, loaded, confidence)).reshape(-1, 5)
        return np.asarray((boxes[:, :2] + boxes[:, 2:4]) / 2)

    return run


CONTENDERS: dict[str, Callable[[Path, float, float], Detect]] = {
    "ours": partial(ours, one_look=True),
    "ours-all-looks": ours,
    "sahi": sahi,
    "sahi-batched": partial(sahi, batch=BATCH),
    "published": published,
}


def warm_up(detect: Detect, image: Path) -> None:
    """Run on a corner of the image, so that nothing is compiled or allocated in the timed run."""
    with TemporaryDirectory() as folder, Image.open(image) as whole:
        corner = Path(folder) / "corner.png"
        whole.crop((0, 0, WARM_UP_PX, WARM_UP_PX)).save(corner)
        detect(corner)


def main(
    contender: Annotated[str, typer.Argument(help=f"One of {', '.join(CONTENDERS)}")],
    image: Path,
    model: Annotated[Path, typer.Option(help="A bundle for ours, else weights that Ultralytics reads")],
    spacing: Annotated[float, typer.Option(help="Micrometres per pixel")],
    confidence: Annotated[float, typer.Option(help="Lowest score of stage 1")],
) -> None:
    """Load, warm up, run once, and print seconds, peak memory and points."""
    started_s = time.perf_counter()
    detect = CONTENDERS[contender](model, spacing, confidence)
    warm_up(detect, image)  # Ultralytics makes its runtime with the first tile
    ready_s = time.perf_counter()
    points = detect(image)
    seconds = time.perf_counter() - ready_s
    found = {"start_up_s": ready_s - started_s, "seconds": seconds, "peak_mb": peak_mb()}
    print(json.dumps(found | {"points": points.round(2).tolist()}))


if __name__ == "__main__":
    typer.run(main)
