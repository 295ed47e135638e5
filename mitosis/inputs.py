"""Which slides a user means: files, folders, globs, manifests."""

from __future__ import annotations

import csv
import glob
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from mitosis.config import one_line
from mitosis.errors import InputError
from mitosis.provenance import RUN_NAME
from mitosis.slide import IMAGE_SUFFIXES, may_be_listed

log = logging.getLogger(__name__)


def check_names(paths: Sequence[Path]) -> None:
    """Refuse two images whose results would share a folder."""
    seen: dict[str, Path] = {}
    for path in paths:
        if (other := seen.setdefault(path.stem, path)) != path:
            raise InputError(f"{path}: its results would overwrite those of {other}; rename one or run them apart")


def images_in(folder: Path) -> list[Path]:
    """Return the images directly in a folder, by name; raises InputError where there is none.

    Hidden files are none: on other people's disks macOS leaves a ``._slide.svs`` beside each slide.
    """
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({one_line(error)}); check its permissions") from error
    found = [path for path in found if not path.name.startswith(".") and not is_result(path)]
    if not found:
        raise InputError(f"{folder}: no image there; put one of {', '.join(IMAGE_SUFFIXES)} into it")
    return found


def is_result(path: Path) -> bool:
    """Tell whether a file was written by an earlier run: run.json beside it lists it."""
    try:
        return path.name in json.loads((path.parent / RUN_NAME).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def find_slides(given: Sequence[Path]) -> list[Path]:
    """Resolve files, folders, globs (for shells that leave them alone) and manifests (.csv) to slides, each once.

    Raises InputError for a folder or a manifest without slides. A file that does not exist is kept, and fails by name.
    """
    found: dict[tuple[str, str], Path] = {}
    for path in (path for one in given for path in expand(one)):
        # The same file, however it is named; but links of other names are slides of their own, with own results.
        found.setdefault((path.name, true_path(path)), path)
    return list(found.values())


def true_path(path: Path) -> str:
    """Return the file behind links; the path itself where the system refuses to follow it."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return str(path)


def expand(given: Path) -> Iterator[Path]:
    """Yield the slides that one argument stands for. One that cannot be reached is kept, and fails by name."""
    try:
        is_folder, is_there = given.is_dir(), given.exists()
    except (OSError, ValueError):
        is_folder, is_there = False, True
    if is_folder and may_be_listed(given):
        yield from images_in(given)
    elif not is_there and glob.has_magic(str(given)):
        yield from expand_glob(given)
    elif given.suffix.lower() == ".csv":
        yield from read_manifest(given)
    else:
        yield given


def expand_glob(pattern: Path) -> Iterator[Path]:
    """Yield the slides that a pattern matches: images, and what folders and manifests among the matches stand for.

    What holds no slide is passed over, and so are results of earlier runs; raises InputError where nothing is left.
    """
    matches = sorted(map(Path, glob.glob(str(pattern), recursive=True)))  # noqa: PTH207 - may be absolute
    if not matches:
        raise InputError(f"{pattern}: matches no file; check the pattern")
    found: list[Path] = []
    reasons: list[InputError] = []
    for path in matches:
        suffix = path.suffix.lower()
        try:
            if path.is_dir():
                found += images_in(path)
            elif suffix == ".csv" and not is_result(path):
                found += read_manifest(path)
            elif suffix in IMAGE_SUFFIXES and not is_result(path):
                found.append(path)
        except InputError as error:
            log.log(logging.WARNING if suffix == ".csv" else logging.DEBUG, "%s; passed over", error)
            reasons.append(error)
    if not found:
        reason = f"{pattern}: matches no image; those end in {', '.join(IMAGE_SUFFIXES)}"
        raise reasons[0] if reasons else InputError(reason)
    yield from found


def read_manifest(path: Path) -> list[Path]:
    """Read a CSV file with a column ``path``; relative paths start at the manifest's folder.

    Raises InputError, with the line that names no path where there is one.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            lines = [(reader.line_num, row["path"]) for row in reader]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8; save it as 'CSV UTF-8'") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); check the path") from error
    except (KeyError, csv.Error) as error:
        raise InputError(f"{path}: is not a manifest; it needs a header with a column 'path'") from error
    if gaps := [number for number, name in lines if not (name or "").strip()]:
        raise InputError(f"{path}: line {gaps[0]} has no path; fill it in, or remove the line")
    if not lines:
        raise InputError(f"{path}: lists no slide; give each a line")
    return [path.parent / name for _, name in lines]
