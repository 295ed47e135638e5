"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from mitosis.config import one_line
from mitosis.errors import OutputError

RANDOM = "[a-z0-9_]{8}"  # what mkstemp adds to the names of the hidden neighbours below


def check_folder(folder: Path) -> None:
    """Make a folder, if it is not there, and see that files can be made in it; raises OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({one_line(error)}); choose a writable --output") from error


def remove_leftovers(folder: Path, names: Sequence[str]) -> None:
    """Remove the hidden neighbours of files called ``names`` that a killed process left; raises OutputError."""
    leftover = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.{RANDOM}")
    for path in folder.glob(".*"):
        if leftover.fullmatch(path.name):
            remove(path)


def write_whole(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write ``content``, or its pieces, to ``path`` so that a reader sees the old file, none, or all of the new one.

    The bytes go to a hidden neighbour first, which is then renamed. Raises OutputError naming the path.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({one_line(error)}); choose a folder that can be written to"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in (content,) if isinstance(content, bytes) else content:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # noqa: PTH101 - mkstemp's 0600 would hide the result from the platform
        os.replace(name, path)  # noqa: PTH105
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({one_line(error)}); free space or choose another") from error
    finally:
        Path(name).unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, if it is there; raises OutputError naming it."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be removed ({one_line(error)}); choose a folder that can be written to"
        ) from error
