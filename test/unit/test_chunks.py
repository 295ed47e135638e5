"""Windows of a TIFF are what tifffile decodes whole; each chunk is decoded once, whatever the threads."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from mitosis.chunks import ChunkedPixels
from mitosis.errors import InputError
from mitosis.readers import read_tiff
from mitosis.slide import open_slide

HEIGHT, WIDTH = 700, 900
TAGS = {"photometric": "rgb", "resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
LAYOUTS: list[dict[str, Any]] = [
    {"tile": (128, 128), "compression": "jpeg"},
    {"tile": (64, 256), "compression": "deflate"},
    {"rowsperstrip": 48, "compression": "lzw"},
    {"rowsperstrip": 1, "compression": "deflate"},
    {"rowsperstrip": 2000},
    {"tile": (1024, 1024), "bigtiff": True},
]


@pytest.fixture(params=LAYOUTS, ids=str)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tiff", pixels, **TAGS, **request.param)
    return tmp_path / "a.tiff"


def opened(path: Path) -> ChunkedPixels:
    pixels = read_tiff(path).levels[0].pixels
    assert isinstance(pixels, ChunkedPixels)
    return pixels


def windows(count: int) -> list[tuple[slice, slice]]:
    rng = np.random.default_rng(1)
    y, x = rng.integers(0, HEIGHT - 1, count), rng.integers(0, WIDTH - 1, count)
    y2, x2 = rng.integers(y + 1, HEIGHT + 1), rng.integers(x + 1, WIDTH + 1)
    corners = zip(y.tolist(), y2.tolist(), x.tolist(), x2.tolist(), strict=True)
    return [(slice(top, bottom), slice(left, right)) for top, bottom, left, right in corners]


@pytest.mark.parametrize("bulk_px", [100, 10**9])
def test_windows_equal_the_whole(path: Path, monkeypatch: pytest.MonkeyPatch, bulk_px: int) -> None:
    monkeypatch.setattr("mitosis.chunks.BULK_PX", bulk_px)
    whole, pixels = tifffile.imread(path), opened(path)
    for window in windows(40):
        np.testing.assert_array_equal(pixels[window], whole[window])


def test_threads_get_the_same(path: Path) -> None:
    whole, pixels = tifffile.imread(path), opened(path)
    with ThreadPoolExecutor(8) as pool:
        for window, found in zip(windows(60), pool.map(pixels.__getitem__, windows(60)), strict=True):
            np.testing.assert_array_equal(found, whole[window])


def test_each_chunk_is_decoded_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overlapping windows, read by threads, top to bottom."""
    decoded: Counter[int] = Counter()
    read = ChunkedPixels._read

    def counted(self: ChunkedPixels, index: int) -> NDArray[np.uint8]:
        decoded[index] += 1
        return read(self, index)

    monkeypatch.setattr(ChunkedPixels, "_read", counted)
    pixels = opened(path)
    places = [(slice(y, y + 200), slice(x, x + 200)) for y in range(0, 500, 100) for x in range(0, 700, 100)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(pixels.__getitem__, places))
    assert set(decoded.values()) == {1}


def test_no_more_is_kept_than_fits(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mitosis.chunks.KEPT_BYTES", 1)
    monkeypatch.setattr("mitosis.chunks.STRIP_LINES", 96)
    whole = tifffile.imread(path)
    with tifffile.TiffFile(path) as file:
        pixels = ChunkedPixels(file.pages[0], file.filehandle, Lock())
        for window in windows(20):
            np.testing.assert_array_equal(pixels[window], whole[window])
            assert len(pixels._kept) <= pixels._capacity <= 97


def test_a_chunk_that_cannot_be_decoded_is_an_error_each_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("damaged")

    pixels = opened(path)
    monkeypatch.setattr(pixels, "_read", broken)
    for _ in range(2):
        with pytest.raises(ValueError, match="damaged"):
            pixels[0:10, 0:10]
    monkeypatch.undo()
    np.testing.assert_array_equal(pixels[0:10, 0:10], tifffile.imread(path)[0:10, 0:10])


def test_what_the_file_leaves_out_is_white(tmp_path: Path) -> None:
    tile = np.full((64, 64, 3), 90, np.uint8).tobytes()
    content = iter([tile, b"", b"", tile])
    tifffile.imwrite(tmp_path / "a.tiff", content, shape=(128, 128, 3), dtype=np.uint8, tile=(64, 64), **TAGS)
    with open_slide(tmp_path / "a.tiff") as slide:
        found = slide.read(0, 0, 128, 128)
    assert (found[:64, :64] == 90).all()
    assert (found[:64, 64:] == 255).all()


def test_one_huge_strip_is_mapped_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mitosis.chunks.KEPT_BYTES", 1000)
    monkeypatch.setattr("mitosis.readers.PICTURE_PX", 1000)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    tifffile.imwrite(tmp_path / "plain.tiff", pixels, rowsperstrip=100, **TAGS)
    with open_slide(tmp_path / "plain.tiff") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 120, 100), pixels)
    tifffile.imwrite(tmp_path / "packed.tiff", pixels, rowsperstrip=100, compression="lzw", **TAGS)
    with pytest.raises(InputError, match=r"packed\.tiff.*120 x 100.*tiled"):
        open_slide(tmp_path / "packed.tiff")
