"""Finds mitotic figures in H&E images: slide -> windows -> candidates -> detections -> files. Imports no torch.

    from mitosis import detect, load_model, open_slide

    model = load_model(Path("model"))
    with open_slide(Path("slide.svs")) as slide:
        rows = detect(slide, model)  # a structured array, see mitosis.detections.DETECTION_DTYPE
    print(rows["is_mitotic_figure"].sum(), "mitotic figures")

``pandas.DataFrame(rows)`` makes a data frame of it. ``find_hotspots`` counts per field, ``evaluate`` scores folders of
results against labels; the command line uses these very functions.
"""

import sys

__version__ = "0.11.0"

# OpenVINO reports every start to Google Analytics and keeps a client number in the home folder, unless this is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

from mitosis.detections import DETECTION_DTYPE, Detections
from mitosis.evaluation import evaluate
from mitosis.hotspot import Hotspot, Shape, find_hotspots
from mitosis.pipeline import Model, detect, load_model
from mitosis.slide import Slide, open_slide

__all__ = [
    "DETECTION_DTYPE",
    "Detections",
    "Hotspot",
    "Model",
    "Shape",
    "Slide",
    "detect",
    "evaluate",
    "find_hotspots",
    "load_model",
    "open_slide",
]
