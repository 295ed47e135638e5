"""`mitosis detect --like run.json`: the same settings once more, and whether the same files came out."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mitosis import __version__
from mitosis.config import Config, first_problem, one_line
from mitosis.errors import BundleError, InputError
from mitosis.pipeline import Model
from mitosis.provenance import RUN_NAME, digest
from mitosis.results import Options

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What a run.json says that decides the result, and what came of it."""

    path: Path
    image: Path
    image_bytes: int
    options: Options
    config: Config
    version: str
    bundle: dict[str, Any]
    runtime: dict[str, str]
    files: dict[str, str]  # name: sha256

    def check_model(self, model: Model) -> None:
        """Raise BundleError unless the model is that of the record; warn of what may change numbers a little."""
        about = model.bundle.description
        same = (about.detector.sha256, about.classifier.sha256)
        if same != (self.bundle["detector_sha256"], self.bundle["classifier_sha256"]):
            raise BundleError(
                f"{model.bundle.folder}: is not the bundle {self.bundle['name']} {self.bundle['version']} of "
                f"{self.path}; name that one with --model"
            )
        runtime = {"detector": model.detector.name, "classifier": model.classifier.name}
        for kind, then, now in (("mitosis", self.version, __version__), ("runtime", self.runtime, runtime)):
            if then != now:
                log.warning("%s: was made with %s %s, now it is %s; numbers may differ", self.path, kind, then, now)

    def checked_image(self) -> Path:
        """Return the image; raises InputError unless it is there and as large as it was."""
        if not self.image.is_file() or self.image.stat().st_size != self.image_bytes:
            raise InputError(f"{self.image}: is not there or not the file of {self.path}; name the image to use")
        return self.image

    def compare(self, folder: Path) -> None:
        """Say which files of a new folder differ from those of the record."""
        new = {path.name: digest(path) for path in folder.iterdir() if path.is_file() and path.name != RUN_NAME}
        different = sorted(name for name in self.files.keys() | new.keys() if self.files.get(name) != new.get(name))
        if different:
            log.warning("%s: differs from %s in %s", folder, self.path, ", ".join(different))
        else:
            log.info("%s: all %d files are the same as those of %s", folder, len(new), self.path)


def read_record(path: Path) -> Record:
    """Read a run.json; raises InputError where it is none, or of a version that had other settings."""
    try:
        content = json.loads(path.read_text())
        then = content["settings"]
        return Record(
            path,
            Path(content["slide"]["path"]),
            then["image"]["bytes"],
            TypeAdapter(Options).validate_python(then["choices"]),
            Config.model_validate(then["config"]),
            then["version"],
            then["bundle"],
            content["runtime"],
            content["files"],
        )
    except ValidationError as error:
        raise InputError(
            f"{path}: {first_problem(error)}; it is of another version, give the options one by one"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: is no run.json of this program ({reason}); name one that it wrote") from error
