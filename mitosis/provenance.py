"""run.json: what was done to which image, with what. Written last: where it is, the slide is finished."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from mitosis import __version__
from mitosis.ahead import usable_cores
from mitosis.bundle import DESCRIPTION, Description
from mitosis.config import one_line
from mitosis.errors import InputError
from mitosis.output.atomic import write_whole
from mitosis.pipeline import Model
from mitosis.slide import Slide

RUN_NAME = "run.json"
END_BYTES = 1 << 20
PACKAGES = ("numpy", "opencv-python-headless", "openvino", "onnxruntime-gpu", "tifffile", "imagecodecs", "SimpleITK")


@cache
def commit() -> str:
    """Return the program's commit: baked into the image, or asked of git, or 'unknown'.

    '-dirty' follows where files of the checkout were changed since. A checkout that only surrounds an installed copy is
    somebody else's, and is not asked.
    """
    if baked := os.environ.get("MITOSIS_COMMIT"):
        return baked
    root = Path(__file__).parents[1]
    try:
        top, found = git(root, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != root.resolve():
            return "unknown"
        return found + "-dirty" * bool(git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return "unknown"


def git(folder: Path, *arguments: str) -> str:
    """Return what a git command prints."""
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def settings(image: Path, model: Model, choices: dict[str, Any]) -> dict[str, Any]:
    """Return all that decides the result; two runs with equal settings give equal output.

    ``choices`` is what the user chose apart from the model. The image counts with its size, time of change and ends:
    reading gigabytes for a checksum would take longer than many a detection. Raises InputError where it cannot be read.
    """
    stat = image.stat()
    about = {"name": image.name, "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns, "ends_sha256": ends(image)}
    return {
        "image": about,
        "version": __version__,
        "bundle": bundle_settings(model.bundle.description),
        "runtime": runtime_of(model),  # the precision decides, too
        "config": model.config.model_dump(),
        "choices": choices,
    }


def ends(image: Path) -> str:
    """Return the checksum of a file's first and last MiB. Raises InputError where it cannot be read."""
    try:
        with image.open("rb") as file:
            read = hashlib.sha256(file.read(END_BYTES))
            file.seek(max(0, image.stat().st_size - END_BYTES))
            read.update(file.read(END_BYTES))
    except OSError as error:
        raise InputError(f"{image}: cannot be read ({one_line(error)}); check its permissions") from error
    return read.hexdigest()


def bundle_settings(about: Description) -> dict[str, Any]:
    """Return all of a bundle that decides the result; its operating point does so through the configuration."""
    names = {"name", "version", "detector", "classifier", "second_look", "calibration", "adaptive"}
    return about.model_dump(mode="json", include=names)


def runtime_of(model: Model) -> dict[str, str]:
    """Return what runs each network, with its version and precision."""
    return {"detector": model.detector.name, "classifier": model.classifier.name}


def finished_result(folder: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result that a folder holds, if it is that of these very settings and all its files are there."""
    try:
        content: dict[str, Any] = json.loads((folder / RUN_NAME).read_text())
        if content["settings"] != wanted or not all((folder / name).is_file() for name in content["files"]):
            return None
        return dict(content["result"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_run(
    folder: Path,
    wanted: dict[str, Any],
    slide: Slide,
    model: Model,
    began: datetime,
    seconds: dict[str, float],
    result: dict[str, Any],
    names: Sequence[str],
) -> None:
    """Write FOLDER/run.json about the files ``names`` of FOLDER, those that are there; raises OutputError."""
    files = [path for path in map(folder.joinpath, sorted(names)) if path.is_file()]
    content = {
        "settings": wanted,
        "commit": commit(),
        "began": began.isoformat(timespec="seconds"),
        "slide": {
            "path": str(slide.path.absolute()),
            "width_px": slide.width_px,
            "height_px": slide.height_px,
            "spacing_um": [slide.spacing.x_um, slide.spacing.y_um],
            "spacing_source": slide.spacing.source,
            "origin_mm": list(slide.origin_mm),
            "reader": slide.reader,
        },
        "bundle": {"folder": str(model.bundle.folder.absolute()), "sha256": digest(model.bundle.folder / DESCRIPTION)},
        "threshold": model.config.classifier_threshold,  # differs from that of the settings where it was adapted
        "runtime": runtime_of(model),
        "packages": {name: found for name in PACKAGES if (found := installed(name))},
        "machine": machine(),
        "seed": None,  # nothing is drawn at random
        "seconds": {name: round(value, 3) for name, value in sorted(seconds.items())},
        "result": result,
        "files": {path.name: digest(path) for path in files},
    }
    write_whole(folder / RUN_NAME, (json.dumps(content, indent=1) + "\n").encode())


def digest(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def installed(package: str) -> str | None:
    """Return a package's version, None where it is not installed."""
    try:
        return package_version(package)
    except PackageNotFoundError:
        return None


@cache
def machine() -> dict[str, Any]:
    """Describe the machine."""
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "processor": processor(),
        "cpus": usable_cores(),
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the processor's name as Linux has it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
