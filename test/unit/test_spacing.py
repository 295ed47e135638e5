"""``--spacing`` fills in for files that state none, and never overrules one that does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import process
from mitosis.errors import InputError, SpacingError
from mitosis.pipeline import load_model
from mitosis.results import Options, process_slide
from mitosis.slide import open_slide
from mitosis.spacing import Fallback, Spacing, checked, fallback, ome_spacing

FILE = Path("a.tiff")
HALF = {"resolution": (20000, 20000), "resolutionunit": "CENTIMETER"}  # 0.5 um a pixel


def write(path: Path, **tags: Any) -> Path:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", **tags)
    return path


@pytest.mark.parametrize("given", [0.25, 0.53, 0.47, float("nan"), -0.5, 0.0])
def test_a_fallback_must_not_contradict(given: float) -> None:
    with pytest.raises(SpacingError, match=rf"a\.tiff: states 0\.5 .*TIFF.*--spacing says {given:g}; run"):
        checked(FILE, Spacing(0.5, 0.5, "TIFF"), Fallback(given))


@pytest.mark.parametrize("given", [0.5, 0.52, 0.48])
def test_of_two_that_agree_the_files_own_is_taken(given: float) -> None:
    own = Spacing(0.5, 0.5, "TIFF")
    assert checked(FILE, own, Fallback(given)) is own


@pytest.mark.parametrize("stated", [None, Spacing(352.8, 352.8, "TIFF"), Spacing(0.25, 0.5, "TIFF")])
def test_a_fallback_helps_where_nothing_plausible_is_stated(stated: Spacing | None) -> None:
    assert checked(FILE, stated, Fallback(0.25)) == Spacing(0.25, 0.25, "option --spacing")
    with pytest.raises(SpacingError, match="--spacing"):
        checked(FILE, stated, None)
    with pytest.raises(SpacingError, match="not between"):
        checked(FILE, stated, Fallback(25))


def test_a_plain_number_is_explicit(tmp_path: Path) -> None:
    """As label files give it, image by image."""
    with open_slide(write(tmp_path / "a.tiff", **HALF), 0.25) as slide:
        assert slide.spacing == Spacing(0.25, 0.25, "option --spacing")
    assert fallback(None) is None


@pytest.mark.parametrize(("unit", "per_um"), [("µm", 1.0), ("nm", 1000.0), ("mm", 0.001)])
def test_ome_tiff(tmp_path: Path, unit: str, per_um: float) -> None:
    """As tifffile writes it."""
    sizes = {"PhysicalSizeX": 0.251 * per_um, "PhysicalSizeY": 0.25 * per_um}
    units = {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    path = write(tmp_path / "a.ome.tif", metadata={"axes": "YXS", **sizes, **units}, ome=True)
    with open_slide(path) as slide:
        assert (slide.spacing.x_um, slide.spacing.y_um) == (pytest.approx(0.251), pytest.approx(0.25))
        assert slide.spacing.source == "OME PhysicalSize"
        assert slide.read(0, 0, 64, 64).std() > 50


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ('PhysicalSizeX="0.5" PhysicalSizeY="0.25"', (0.5, 0.25)),  # micrometres where no unit is stated
        ("PhysicalSizeY='2.5E2' PhysicalSizeX='500' PhysicalSizeXUnit='nm' PhysicalSizeYUnit='nm'", (0.5, 0.25)),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="&#181;m" PhysicalSizeY="1" PhysicalSizeYUnit="\u03bcm"', (1.0, 1.0)),
        ('PhysicalSizeX="1" PhysicalSizeXUnit="pixel" PhysicalSizeY="1" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="0.5"', None),
        ('PhysicalSizeX="wide" PhysicalSizeY="1"', None),
        ("", None),
    ],
)
@pytest.mark.parametrize("prefix", ["", "ome:"])
def test_ome_xml(attributes: str, found: tuple[float, float] | None, prefix: str) -> None:
    """The first image counts; a macro image that follows has other pixels."""
    images = "".join(
        f'<{prefix}Image ID="Image:{index}"><{prefix}Pixels SizeX="9" {about}/></{prefix}Image>'
        for index, about in enumerate((attributes, 'PhysicalSizeX="9" PhysicalSizeY="9"'))
    )
    stated = ome_spacing(f'<?xml version="1.0"?>\n<{prefix}OME Creator="a">{images}</{prefix}OME>')
    assert (stated and (stated.x_um, stated.y_um)) == (found and pytest.approx(found))
    assert ome_spacing(images) is None  # not OME-XML


def test_both_programs_refuse_a_contradiction(root: Path, tmp_path: Path) -> None:
    model = load_model(root / "model")
    (tmp_path / "in").mkdir()
    half = write(tmp_path / "in/half.tiff", **HALF)
    with pytest.raises(SpacingError, match=r"half\.tiff.*states 0\.5"):
        process_slide(half, tmp_path / "out", model, Options(spacing_um=0.25))
    with pytest.raises(InputError, match=r"half\.tiff.*states 0\.5"):
        process.process(tmp_path / "in", tmp_path / "out", model, 0.25)
    unsaid = write(tmp_path / "unsaid.tiff")
    process_slide(unsaid, tmp_path / "out", model, Options(spacing_um=0.25))
    assert '"option --spacing"' in (tmp_path / "out/run.json").read_text()
