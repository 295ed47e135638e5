"""run.json: what was done to which image, with what. Written last: where it is, the slide is finished."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from mitosis import __version__
from mitosis.output.atomic import write_whole
from mitosis.pipeline import Model
from mitosis.slide import Slide

RUN_NAME = "run.json"


@cache
def commit() -> str:
    """Return the program's commit: baked into the image, or asked of git, or 'unknown'."""
    if baked := os.environ.get("MITOSIS_COMMIT"):
        return baked
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def settings(image: Path, model: Model, choices: dict[str, Any]) -> dict[str, Any]:
    """Return all that decides the result; two runs with equal settings give equal output.

    ``choices`` is what the user chose apart from the model. The image counts with its size and time of change: reading
    gigabytes for a checksum would take longer than many a detection.
    """
    about, stat = model.bundle.description, image.stat()
    return {
        "image": {"name": image.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns},
        "version": __version__,
        "bundle": {
            "name": about.name,
            "version": about.version,
            "detector_sha256": about.detector.sha256,
            "classifier_sha256": about.classifier.sha256,
        },
        "runtime": model.detector.name,  # the precision decides, too
        "config": model.config.model_dump(),
        "calibration": about.calibration.model_dump() if about.calibration else None,
        "choices": choices,
    }


def is_finished(folder: Path, wanted: dict[str, Any]) -> bool:
    """Tell whether a folder holds the finished result of these very settings."""
    try:
        return bool(json.loads((folder / RUN_NAME).read_text())["settings"] == wanted)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def write_run(
    folder: Path, wanted: dict[str, Any], slide: Slide, model: Model, seconds: dict[str, float], result: dict[str, Any]
) -> None:
    """Write FOLDER/run.json; raises OutputError."""
    content = {
        "settings": wanted,
        "commit": commit(),
        "slide": {
            "path": str(slide.path),
            "width_px": slide.width_px,
            "height_px": slide.height_px,
            "spacing_um": [slide.spacing.x_um, slide.spacing.y_um],
            "spacing_source": slide.spacing.source,
            "reader": slide.reader,
        },
        "runtime": {"detector": model.detector.name, "classifier": model.classifier.name},
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()},
        "seed": None,  # nothing is drawn at random
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "result": result,
    }
    write_whole(folder / RUN_NAME, (json.dumps(content, indent=1) + "\n").encode())
