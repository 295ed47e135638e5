"""Small challenge-shaped cases, and ways to spoil them. For processes and for containers alike."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray

FOLDER = "images/histopathology-roi-cropout"
SLUG = "histopathology-region-of-interest-cropout"
RESULT = "mitotic-figures.json"
WHITE = np.full((300, 400, 3), 240, np.uint8)


def make_case(folder: Path, name: str = "a.tiff", rgb: NDArray[np.uint8] = WHITE, spacing_um: float = 0.25) -> Path:
    """Write a challenge case; returns its image's path."""
    image = folder / FOLDER / name
    image.parent.mkdir(parents=True)
    (folder / "inputs.json").write_text(json.dumps([{"interface": {"slug": SLUG, "relative_path": FOLDER}}]))
    per_cm = 1e4 / spacing_um
    tags = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(image, rgb, photometric="rgb", rowsperstrip=64, **tags)
    return image


def make_metaimage_case(folder: Path, rgb: NDArray[np.uint8] = WHITE, spacing_um: float = 0.25) -> Path:
    """Write a case whose image is a MetaImage; returns its path."""
    tiff = make_case(folder)
    image = sitk.GetImageFromArray(rgb, isVector=True)
    image.SetSpacing((spacing_um / 1000, spacing_um / 1000))
    tiff.unlink()
    sitk.WriteImage(image, str(tiff.with_suffix(".mha")))
    return tiff.with_suffix(".mha")


def noise(side_px: int) -> NDArray[np.uint8]:
    """An image that keeps detection busy."""
    return np.random.default_rng(0).integers(0, 255, (side_px, side_px, 3), np.uint8)


def last_line(result: subprocess.CompletedProcess[str]) -> str:
    """The line that the platform shows a user."""
    return [line for line in result.stderr.splitlines() if line.strip()][-1]


def empty_folder(case: Path) -> None:
    shutil.rmtree(case / FOLDER)


def no_image(case: Path) -> None:
    (case / FOLDER / "a.tiff").unlink()


def two_images(case: Path) -> None:
    shutil.copy(case / FOLDER / "a.tiff", case / FOLDER / "b.tiff")


def unreadable(case: Path) -> None:
    (case / FOLDER / "a.tiff").write_bytes(b"II*\0 and then nonsense")


def truncated(case: Path) -> None:
    image = case / FOLDER / "a.tiff"
    image.write_bytes(image.read_bytes()[:100_000])


def no_spacing(case: Path) -> None:
    tifffile.imwrite(case / FOLDER / "a.tiff", np.zeros((300, 300, 3), np.uint8), photometric="rgb")


def unknown_slug(case: Path) -> None:
    (case / "inputs.json").write_text('[{"interface": {"slug": "other", "relative_path": "x"}}]')


def bad_description(case: Path) -> None:
    (case / "inputs.json").write_text("{")


BAD_CASES: list[tuple[Callable[[Path], None], str]] = [  # how a case is spoiled, and what the last line then holds
    (empty_folder, "exactly one"),
    (no_image, "exactly one"),
    (two_images, "a.tiff, b.tiff"),
    (unreadable, "a.tiff: is"),
    (truncated, "truncated"),
    (no_spacing, "--spacing"),
    (unknown_slug, "'other'"),
    (bad_description, "inputs.json"),
]
