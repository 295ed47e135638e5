"""The model bundle: two or three ONNX files and ``bundle.yaml``, the only thing that training hands to inference."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mitosis.config import OperatingPoint, first_problem, one_line
from mitosis.errors import BundleError

DESCRIPTION = "bundle.yaml"
MEND = "restore the folder from the release, train one with `make train`, or name another with --model"

Positive = Annotated[float, Field(gt=0)]
Triple = tuple[float, float, float]


class Part(BaseModel):
    """One network's file. ``sha256`` is that of the file, so that a damaged copy is noticed before it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, Field(pattern=r"^[\w.-]+\.onnx$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    architecture: str


class DetectorPart(Part):
    """Stage 1: (B, 3, tile_px, tile_px) RGB in 0..1 -> (B, 5, n) centre x, centre y, width, height (px), score.

    Where it is to look more than once (``views``), n are the cells of YOLO11's three grids, the finest first.
    """

    tile_px: Annotated[int, Field(gt=0, multiple_of=32)]
    spacing_um: Positive  # micrometres a pixel that the network expects
    spacing_tolerance: Annotated[float, Field(ge=0, lt=1)]  # within this share of it, pixels are taken as they are


class SecondLookPart(Part):
    """A larger stage 1, same input and output, for all looks at a tile but the first.

    ``share`` is what these looks have of the mean together; as much as their number says where it is not stated.
    """

    share: Annotated[float, Field(gt=0, le=1)] | None = None


class ClassifierPart(Part):
    """Stage 2: (B, 3, input_px, input_px), normalised -> (B, 2) logits of (look-alike, mitotic figure)."""

    input_px: Annotated[int, Field(gt=0)]
    context: Positive  # side of the square crop over the longer side of the candidate's box
    mean: Triple
    std: Triple


class Calibration(BaseModel):
    """Logistic weights that turn both stages' scores into one probability; see ``mitosis.calibration``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector_weight: float
    classifier_weight: float
    bias: float


FeatureName = Literal["haematoxylin", "eosin", "darkest", "tissue_share", "pale_share"]


class FeatureWeight(BaseModel):
    """How one feature of a slide moves the threshold: standardised by ``mean`` and ``scale``, times ``weight``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: float
    scale: Positive
    weight: float  # in logits of the probability


class Adaptive(BaseModel):
    """A threshold that follows the slide; see ``mitosis.adaptive``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reach: Positive  # standard deviations; what lies further out was not learnt and moves the threshold no more
    features: dict[FeatureName, FeatureWeight]

    def standardised(self, name: FeatureName, value: float) -> float:
        """Return a feature in standard deviations from its mean, within the reach."""
        about = self.features[name]
        return max(-self.reach, min(self.reach, (value - about.mean) / about.scale))


class Description(BaseModel):
    """The content of ``bundle.yaml``. Unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1]
    name: str
    version: str
    licence: str
    training_data: str
    class_names: tuple[Literal["not mitotic figure"], Literal["mitotic figure"]]  # stage 2's logits, in this order
    detector: DetectorPart
    classifier: ClassifierPart
    second_look: SecondLookPart | None = None
    operating_point: OperatingPoint = OperatingPoint()
    calibration: Calibration | None = None  # None: stage 2's score is the probability, as in the paper
    adaptive: Adaptive | None = None  # for `mitosis detect --adaptive-threshold`
    metrics: dict[str, float] = {}

    @property
    def parts(self) -> list[Part]:
        """All networks that the bundle has."""
        return [part for part in (self.detector, self.classifier, self.second_look) if part]


class Bundle(BaseModel):
    """A checked bundle: what it says and where its files lie."""

    model_config = ConfigDict(frozen=True)

    folder: Path
    description: Description

    @property
    def detector_file(self) -> Path:
        """Stage 1's ONNX file."""
        return self.folder / self.description.detector.file

    @property
    def classifier_file(self) -> Path:
        """Stage 2's ONNX file."""
        return self.folder / self.description.classifier.file

    @property
    def second_look_file(self) -> Path | None:
        """The ONNX file of stage 1's further looks, where they are another network's."""
        part = self.description.second_look
        return self.folder / part.file if part else None


def read_bundle(folder: Path) -> Bundle:
    """Read and check a bundle; raises BundleError naming the file that is missing, damaged or not understood."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise BundleError(f"{path}: there is no model bundle here; {MEND}")
    try:
        description = Description.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BundleError(f"{path}: cannot be read ({one_line(error)}); {MEND}") from error
    except ValidationError as error:
        raise BundleError(f"{path}: {first_problem(error)}; {MEND}") from error
    for part in description.parts:
        check_part(folder / part.file, part)
    return Bundle(folder=folder, description=description)


def check_part(path: Path, part: Part) -> None:
    """Raise BundleError unless the file is there and has the stated checksum."""
    if not path.is_file():
        raise BundleError(f"{path}: missing, though {DESCRIPTION} names it; {MEND}")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({one_line(error)}); {MEND}") from error
    if found != part.sha256:
        raise BundleError(f"{path}: damaged, its sha256 is {found[:12]}... and not {part.sha256[:12]}...; {MEND}")
