"""Where the folders lie that come with the program: ``model`` and ``resources``."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path:
    """Return such a folder: inside an installed package (see setup.py), beside that of a checkout or of the image."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name
