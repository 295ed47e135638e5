"""Where compiled networks are kept between runs: the next one starts sooner. Never the reason that a run fails."""

from __future__ import annotations

import getpass
import logging
import os
import tempfile
from pathlib import Path

from mitosis.bundle import Bundle
from mitosis.config import one_line

log = logging.getLogger(__name__)


def default_cache() -> Path:
    """Return this user's folder for compiled networks among the temporary files."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return Path(tempfile.gettempdir()) / f"mitosis-{user}"


def cache_of(bundle: Bundle, folder: Path | None) -> Path | None:
    """Return the bundle's own folder below ``folder``; None where none is wanted or none can be used.

    Named by the networks' checksums: another bundle's networks are never found there. A folder that belongs to somebody
    else is not used, since what lies in it is run.
    """
    if folder is None:
        return None
    place = folder / "-".join(part.sha256[:16] for part in bundle.description.parts)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{folder} belongs to another user")
        place.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        level = logging.DEBUG if folder == default_cache() else logging.WARNING  # asked for by name
        log.log(level, "compiled networks are not kept: %s", one_line(error))
        return None
    return place
