"""`mitosis detect --like run.json`: the same settings once more, and whether the same files came out."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mitosis import __version__
from mitosis.bundle import Bundle
from mitosis.config import Config, first_problem, one_line
from mitosis.cpu import Precision
from mitosis.errors import BundleError, InputError
from mitosis.provenance import RUN_NAME, bundle_settings, digest, ends
from mitosis.results import RESULT_NAMES, Options

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """What a run.json says that decides the result, and what came of it."""

    path: Path
    image: Path
    image_bytes: int
    image_ends: str  # sha256 of the first and last MiB
    options: Options
    config: Config
    version: str
    bundle: dict[str, Any]
    runtime: dict[str, str]
    files: dict[str, str]  # name: sha256

    @property
    def on_cpu(self) -> bool:
        """Whether the networks ran on a CPU."""
        return " CPU " in self.runtime["detector"]

    @property
    def precision(self) -> Precision:
        """What the networks ran in on a CPU, auto where they differed or the command line cannot ask for it."""
        names = {name.rsplit(" ", 1)[-1] for name in self.runtime.values()}
        return Precision(names.pop()) if len(names) == 1 and names <= set(Precision) else Precision.AUTO

    def check_bundle(self, bundle: Bundle) -> None:
        """Raise BundleError unless the bundle does what that of the record did; warn of another version of mitosis."""
        then, now = self.bundle, bundle_settings(bundle.description)
        different = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
        if different:
            raise BundleError(
                f"{bundle.folder}: is not the bundle {then['name']} {then['version']} of {self.path}, it differs in "
                f"{', '.join(different)}; name that one with --model"
            )
        if self.version != __version__:
            self.warn("mitosis", self.version, __version__)

    def check_runtime(self, runtime: dict[str, str]) -> None:
        """Warn where another device, precision or version of it runs the networks."""
        if runtime != self.runtime:
            self.warn("runtime", self.runtime, runtime)

    def check_written(self, folders: Iterable[Path]) -> None:
        """Warn, once, of folders that another runtime filled; those that are not to be seen here are left out."""
        for path in (folder / RUN_NAME for folder in folders):
            if path.is_file() and (runtime := json.loads(path.read_text())["runtime"]) != self.runtime:
                return self.warn("runtime", self.runtime, runtime)
        return None

    def warn(self, kind: str, then: object, now: object) -> None:
        """Say what may change numbers a little."""
        log.warning("%s: was made with %s %s, now it is %s; numbers may differ", self.path, kind, then, now)

    def checked_image(self) -> Path:
        """Return the image; raises InputError unless it is there and as large as it was."""
        if not self.image.is_file() or self.image.stat().st_size != self.image_bytes:
            raise InputError(f"{self.image}: is not there or not the file of {self.path}; name the image to use")
        return self.image

    def shows(self, image: Path) -> bool:
        """Tell whether an image is the record's, wherever it lies now."""
        return image.is_file() and image.stat().st_size == self.image_bytes and ends(image) == self.image_ends

    def check_apart(self, folders: Iterable[Path]) -> None:
        """Raise InputError where the record's own results would be taken for those of the new run."""
        for folder in folders:
            if folder.resolve() == self.path.parent.resolve():
                raise InputError(f"{folder}: holds the very run of {self.path}; choose another --output")

    def compare(self, folder: Path) -> None:
        """Say which files of a new folder differ from those of the record."""
        if not folder.is_dir():
            raise InputError(
                f"{folder}: is not to be seen here, so it was not compared with {self.path}; share the disk"
            )
        new = {name: digest(folder / name) for name in RESULT_NAMES if (folder / name).is_file()}
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
            then["image"]["ends_sha256"],
            TypeAdapter(Options).validate_python(then["choices"]),
            Config.model_validate(then["config"]),
            then["version"],
            then["bundle"] | {name: str(then["bundle"][name]) for name in ("name", "version")},
            {name: str(content["runtime"][name]) for name in ("detector", "classifier")},
            dict(content["files"]),
        )
    except ValidationError as error:
        raise InputError(
            f"{path}: {first_problem(error)}; it is of another version, give the options one by one"
        ) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise InputError(f"{path}: is no run.json of this program ({reason}); name one that it wrote") from error
