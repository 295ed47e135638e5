"""Which slides a user means: files, folders, globs, manifests."""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from mitosis.errors import InputError
from mitosis.slide import IMAGE_SUFFIXES


def check_names(paths: Sequence[Path]) -> None:
    """Refuse two images whose results would share a folder."""
    seen: dict[str, Path] = {}
    for path in paths:
        if (other := seen.setdefault(path.stem, path)) != path:
            raise InputError(f"{path}: its results would overwrite those of {other}; rename one or run them apart")


def images_in(folder: Path) -> list[Path]:
    """Return the images directly in a folder, by name; raises InputError where there is none."""
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise InputError(f"{folder}: no image there; put one of {', '.join(IMAGE_SUFFIXES)} into it")
    return found


def find_slides(given: Sequence[Path]) -> list[Path]:
    """Resolve files, folders, globs (for shells that leave them alone) and manifests (.csv) to slides, each once.

    Raises InputError for a folder or a manifest without slides. A file that does not exist is kept, and fails by name.
    """
    return list(dict.fromkeys(path for one in given for path in expand(one)))


def expand(given: Path) -> Iterator[Path]:
    """Yield the slides that one argument stands for."""
    if given.is_dir():
        yield from images_in(given)
    elif given.suffix.lower() == ".csv":
        yield from read_manifest(given)
    elif not given.exists() and glob.has_magic(str(given)):
        found = sorted(map(Path, glob.glob(str(given), recursive=True)))  # noqa: PTH207 - may be absolute
        if not found:
            raise InputError(f"{given}: matches no file; check the pattern")
        yield from found
    else:
        yield given


def read_manifest(path: Path) -> list[Path]:
    """Read a CSV file with a column ``path``; relative paths start at the manifest's folder."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            slides = [path.parent / row["path"] for row in csv.DictReader(file) if row["path"]]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise InputError(f"{path}: is not a manifest; it needs a header with a column 'path'") from error
    if not slides:
        raise InputError(f"{path}: lists no slide; give each a line")
    return slides
