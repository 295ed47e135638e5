"""The whole way gives the same bytes whatever the threads' timing and however the image is read."""

import random
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from mitosis.errors import InputError, MemoryFullError
from mitosis.network import Batch, Item, Network, Output
from mitosis.pipeline import Model, detect, load_model, tiles_to_read
from mitosis.results import Options, process_slide
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


class Failing(Network):
    """A stage 2 that runs out of memory."""

    name = "failing"

    def map(self, items: Iterable[tuple[Item, Batch]]) -> Iterator[tuple[Item, Output]]:
        for item, batch in items:
            raise MemoryFullError("no memory")
            yield item, batch  # a generator, as a network's is


def test_a_failure_leaves_no_thread_reading(case: Path, model: Model) -> None:
    """Even while the error is held, as it is until the last slide is done."""
    before = threading.active_count()
    with open_slide(case) as slide, pytest.raises(MemoryFullError) as held:
        detect(slide, replace(model, classifier=Failing()))
    assert held.value.__traceback__ is not None
    assert threading.active_count() == before


def on_glass(case: Path, path: Path, spacing_um: float) -> Path:
    """Write a corner of the drawn case onto glass, with so many micrometres per pixel."""
    canvas = np.full((2500, 3500, 3), 244, np.uint8)
    canvas[700:1500, 900:1900] = tifffile.imread(case)[:800, :1000]
    shown = cv2.resize(canvas, None, fx=0.25 / spacing_um, fy=0.25 / spacing_um)
    per_cm = 1e4 / spacing_um
    tifffile.imwrite(path, shown, photometric="rgb", resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    return path


@pytest.mark.parametrize("spacing_um", [0.25, 0.4])
def test_the_mask_saves_tiles_and_costs_no_candidate(
    case: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spacing_um: float
) -> None:
    """Of a whole slide glass is skipped, unless the user asks for all; of an image of challenge size nothing is."""
    path, read = on_glass(case, tmp_path / "a.tif", spacing_um), []

    def run(tissue_mask: bool) -> tuple[int, bytes]:
        folder = tmp_path / f"out{len(read)}"
        options = Options(tissue_mask=tissue_mask, overlay=False, report=False)
        totals: list[int] = []
        process_slide(path, folder, model, options, lambda _, total: totals.append(total))
        read.append(totals[-1])
        return totals[-1], (folder / "detections.geojson").read_bytes()

    region, expected = run(True)
    for module in ("slide", "results"):
        monkeypatch.setattr(f"mitosis.{module}.WHOLE_PX", 0)
    some, with_mask = run(True)
    every, without = run(False)
    assert some < 0.6 * every == 0.6 * region
    assert with_mask == without == expected
    assert len(expected) > 1000
