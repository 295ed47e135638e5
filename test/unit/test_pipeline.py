"""The whole way gives the same bytes whatever the threads' timing and however the image is read."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mitosis.errors import InputError
from mitosis.pipeline import Model, detect, load_model, tiles_to_read
from mitosis.slide import Slide, open_slide
from mitosis.tiling import by_bands, tiles


@pytest.fixture(scope="module")
def model(root: Path) -> Model:
    return load_model(root / "model")


@pytest.fixture
def case(root: Path) -> Path:
    return root / "test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff"


def test_timing_does_not_matter(case: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_slide(case) as slide:
        expected = detect(slide, model)
        assert len(expected) > 20
        read = Slide.read

        def dawdling(self: Slide, *window: float) -> NDArray[np.uint8]:
            time.sleep(random.choice([0, 0, 0.05]))
            return read(self, *window)  # type: ignore[arg-type]

        monkeypatch.setattr(Slide, "read", dawdling)
        for _ in range(2):
            np.testing.assert_array_equal(detect(slide, model), expected)


@pytest.mark.parametrize("band_px", [300, 900])
def test_streaming_equals_the_whole_image(
    case: Path, model: Model, monkeypatch: pytest.MonkeyPatch, band_px: int
) -> None:
    """From the file chunk by chunk and band by band, as whole slides are read."""
    with open_slide(case) as slide:
        expected = detect(slide, model)
    monkeypatch.setattr("mitosis.slide.WHOLE_PX", 0)
    monkeypatch.setattr("mitosis.chunks.BAND_PX", band_px)
    with open_slide(case) as slide:
        assert slide.band_px == band_px
        np.testing.assert_array_equal(detect(slide, model), expected)


def test_damage_in_the_middle_is_an_input_error(case: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mitosis.slide.WHOLE_PX", 0)
    with open_slide(case) as slide:

        def broken(*_: object) -> None:
            raise RuntimeError("codec")

        monkeypatch.setattr(slide._source.levels[0].pixels, "_read", broken)
        with pytest.raises(InputError, match="cannot be decoded"):
            detect(slide, model)
        monkeypatch.undo()
        detect(slide, model)  # every request of the networks is free again


def test_bands_hold_every_tile_once(case: Path, model: Model) -> None:
    all_tiles = list(tiles(5000, 3000, 512, 0.2))
    ordered = by_bands(all_tiles, 1200)
    assert sorted(ordered, key=lambda t: (t.y_px, t.x_px)) == all_tiles
    assert [t.x_px // 1200 for t in ordered] == sorted(t.x_px // 1200 for t in ordered)
    assert by_bands(all_tiles, float("inf")) == all_tiles
    with open_slide(case) as slide:
        assert len(tiles_to_read(slide, model, None)) == 20
