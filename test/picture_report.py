"""Draws docs/report.jpg: the report of the drawn case as headless Chromium shows it. Run by `make pictures`.

python test/picture_report.py FOLDER PICTURE        FOLDER is the case's folder of results
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from browser import CHROMIUM, Browser

WIDTH_PX, HEIGHT_PX = 1240, 1420
QUALITIES = (85, 75, 65, 55)
LARGEST = 195_000  # bytes


def main(folder: Path, picture: Path) -> None:
    """Write the picture in the best quality that keeps it small."""
    if CHROMIUM is None:
        sys.exit("no Chromium here; install one")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        Browser(Path(profile), WIDTH_PX, HEIGHT_PX) as browser,
    ):
        browser.open((folder / "report.html").absolute().as_uri())
        for quality in QUALITIES:
            browser.picture(picture, quality)
            if picture.stat().st_size <= LARGEST:
                break
        problems = browser.problems()
    sys.exit("\n".join(problems) or 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
