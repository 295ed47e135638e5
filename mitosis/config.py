"""The whole configuration of a run: the paper's values unless a file or the model bundle says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mitosis.errors import InputError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Views = Literal[1, 2, 4]


class OperatingPoint(BaseModel):
    """What a bundle may carry because it was chosen together with its weights; None keeps the default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    detector_confidence: Share | None = None
    nms_iou: Share | None = None
    classifier_threshold: Share | None = None
    merge_iou: Share | None = None
    views: Views | None = None


class Config(BaseModel):
    """Every number that steers detection. Frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    overlap: Annotated[float, Field(ge=0.0, lt=0.9)] = 0.2  # share of a tile (paper, inference step 1)
    detector_confidence: Share = 0.2  # lowest stage 1 score of a candidate (paper, inference step 2)
    nms_iou: Share = 0.3  # non-maximum suppression inside a tile (paper, stage 1)
    classifier_threshold: Share = 0.5  # a lower probability rejects the candidate (paper, inference step 3)
    merge_iou: Share = 0.5  # across tiles (paper, inference step 4)
    views: Views = 1  # stage 1's looks at a tile that holds candidates, turned (paper: one)
    classifier_batch: Annotated[int, Field(ge=1)] = 8  # crops in one call of stage 2, the last filled up

    def at(self, point: OperatingPoint) -> Config:
        """Return this configuration with the thresholds that ``point`` states."""
        return self.model_copy(update=point.model_dump(exclude_none=True))

    def looking(self, views: int) -> Config:
        """Return this configuration with so many of stage 1's looks; raises InputError."""
        if views not in get_args(Views):
            raise InputError(f"--views {views}: stage 1 looks 1, 2 or 4 times; name one of these or leave it out")
        return self.model_copy(update={"views": views})


def read_config(path: Path, base: Config | None = None) -> Config:
    """Read a YAML file of ``Config`` fields and lay them over ``base``; fields that the file leaves out stay as there.

    Raises InputError naming the file and the field.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        stated = Config.model_validate({} if content is None else content)
        return (base or Config()).model_copy(update=stated.model_dump(exclude_unset=True))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; mend the field or leave --config out") from error
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, or a date that there is not
        raise InputError(
            f"{path}: cannot be read as YAML ({one_line(error)}); mend it or leave --config out"
        ) from error


def first_problem(error: ValidationError) -> str:
    """Say in a few words which field pydantic refuses first, and why."""
    problem = error.errors()[0]
    if not problem["loc"]:
        return f"is a {type(problem['input']).__name__} and not 'field: value' lines"
    return f"field '{'.'.join(map(str, problem['loc']))}': {problem['msg']}"


def one_line(error: BaseException) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split())
