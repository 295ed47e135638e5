"""Puts the default bundle and ``resources/`` into what is installed; all else is in pyproject.toml.

Both lie beside the package in a checkout (and in the image), where ``pip install -e`` finds them.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("model/bundle.yaml", "model/*.onnx", "resources/*")


class BuildWithData(build_py):
    """Copies the data into the built package; an editable install needs no copy."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:
            return
        for pattern in SHIPPED:
            for source in sorted(Path().glob(pattern)):
                target = Path(self.build_lib) / "mitosis" / source
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target))


setup(cmdclass={"build_py": BuildWithData})
