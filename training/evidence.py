"""What a calibration rests on: labelled images with all their candidates and both scores, not merged yet.

One scanner's frames would give an operating point for that scanner. So each frame of split val is there as it is and as
simulated other laboratories would show it: stain, illumination and sharpness beyond what training varied. Patches of
real other laboratories, which training never saw, stand beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from rich.progress import track

from mitosis.bundle import Calibration
from mitosis.config import Config
from mitosis.detections import Detections, centres_px
from mitosis.labels import LabelledImage
from mitosis.pipeline import Model, decided, scored_candidates
from mitosis.slide import open_slide
from training.data.augmentation import jitter_sharpness, jitter_stain
from training.data.images import RGB, read_rgb
from training.held_out import write_mosaics
from training.scored import Scored, images_of

SIMULATED = 5  # laboratories
SIMULATED_STRENGTH = 1.3  # of the stain jitter; training's own is 1


@dataclass(frozen=True)
class Found:
    """One image's labels and all its candidates, with whether each lies on a labelled mitosis."""

    image: LabelledImage
    rows: Detections

    def scored(self, scores: NDArray[np.floating]) -> Scored:
        """Return the candidates with these scores, (n,)."""
        return Scored(self.image, centres_px(self.rows), scores.astype(np.float64))

    def merged(self, calibration: Calibration, config: Config) -> Self:
        """Return the candidates as detection would with this calibration: with their probabilities, doubles merged."""
        return type(self)(self.image, decided(self.rows.copy(), calibration, config))

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Whether a labelled mitotic figure is within the challenge's radius of each candidate, (n,)."""
        return self.scored(self.rows["probability"]).positive


def detect_all(model: Model, images: list[LabelledImage], paths: list[Path]) -> list[Found]:
    """Score all candidates of every image, not merged yet; ``paths`` says where each lies."""
    found = []
    for image, path in track(list(zip(images, paths, strict=True)), "frames"):
        with open_slide(path, image.spacing_um) as slide:
            found.append(Found(image, scored_candidates(slide, model)))
    return found


def simulate_laboratories(paths: list[Path], folder: Path) -> Iterator[list[Path]]:
    """Write every image into FOLDER as each simulated laboratory would show it; yields each one's files in turn."""
    for seed in range(SIMULATED):
        target = folder / str(seed)
        target.mkdir()
        yield simulate_laboratory(paths, target, seed)


def simulate_laboratory(paths: list[Path], target: Path, seed: int) -> list[Path]:
    """Write every image anew into TARGET, all with one laboratory's stain and one scanner's sharpness."""
    written = []
    for number, path in enumerate(paths):
        rng = np.random.default_rng(seed)  # the same draw for all: frames of one laboratory look alike
        written.append(target / f"{number}{path.suffix}")  # not by its name: labels may state a whole path
        cv2.imwrite(str(written[-1]), as_elsewhere(rng, read_rgb(path))[..., ::-1])
    return written


def as_elsewhere(rng: Generator, rgb: RGB) -> RGB:
    """Return an image as another laboratory's stain and another scanner's sharpness would show it."""
    return jitter_sharpness(rng, jitter_stain(rng, rgb, SIMULATED_STRENGTH))


@dataclass(frozen=True)
class Evidence:
    """What the choice rests on: split val as it is, the same as other laboratories would show it, held-out patches."""

    real: list[Found]
    simulated: list[Found]
    patches: list[Found]

    @classmethod
    def gather(cls, data: Path, model: Model) -> Self:
        """Detect on all of it; test frames are not looked at."""
        images, paths = images_of(data, "val")
        simulated = []
        with TemporaryDirectory() as folder:
            for laboratory in simulate_laboratories(paths, Path(folder)):
                simulated += detect_all(model, images, laboratory)
        with TemporaryDirectory() as folder:
            mosaics = write_mosaics(data, Path(folder))
            patches = detect_all(model, mosaics, [Path(folder) / image.file_name for image in mosaics])
        return cls(detect_all(model, images, paths), simulated, patches)

    @property
    def val(self) -> list[Found]:
        """Split val, as it is and as other laboratories would show it."""
        return self.real + self.simulated


def merge_all(found: list[Found], calibration: Calibration, config: Config) -> list[Found]:
    """Merge every image's candidates; see ``Found.merged``."""
    return [f.merged(calibration, config) for f in found]
