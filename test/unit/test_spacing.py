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
from mitosis.spacing import Fallback, Spacing, checked, fallback

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
