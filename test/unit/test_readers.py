"""TIFFs that look like RGB and are not, and what a damaged file is told to be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from PIL import Image

from mitosis.errors import InputError
from mitosis.slide import open_slide

TAGS: dict[str, Any] = {"photometric": "rgb", "resolution": (40000.0, 40000.0), "resolutionunit": "CENTIMETER"}


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)


def read(path: Path) -> NDArray[np.uint8]:
    with open_slide(path) as slide:
        return slide.read(0, 0, slide.width_px, slide.height_px)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("fourth", [0, 255])
def test_a_fourth_sample_is_what_the_file_says(
    tmp_path: Path, pixels: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch, whole: bool, fourth: int
) -> None:
    if not whole:
        monkeypatch.setattr("mitosis.slide.WHOLE_PX", 0)
    samples = np.dstack([pixels, np.full(pixels.shape[:2], fourth, np.uint8)])
    white = np.full_like(pixels, 255)
    for kind, expected in (("unspecified", pixels), ("unassalpha", pixels if fourth else white)):
        tifffile.imwrite(tmp_path / "a.tif", samples, extrasamples=[kind], tile=(64, 64), **TAGS)
        np.testing.assert_array_equal(read(tmp_path / "a.tif"), expected)


def test_associated_alpha_is_multiplied_already(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, pixels.shape[:2], np.uint8)[..., None]
    multiplied = np.rint(pixels * (alpha / 255)).astype(np.uint8)
    for name, colours, kind in (("a", multiplied, "assocalpha"), ("b", pixels, "unassalpha")):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.dstack([colours, alpha]), extrasamples=[kind], **TAGS)
    assert np.abs(read(tmp_path / "a.tif").astype(int) - read(tmp_path / "b.tif")).max() <= 1


@pytest.mark.parametrize("metadata", [None, {}])
@pytest.mark.parametrize("apart", [True, False])
def test_a_stack_is_refused(tmp_path: Path, pixels: NDArray[np.uint8], metadata: Any, apart: bool) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in [pixels] * 3 if apart else [np.stack([pixels] * 3)]:
            file.write(page, metadata=metadata, contiguous=False, **TAGS)
    with pytest.raises(InputError, match=r"a\.tif: is a stack of 3 planes"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("subifds", [True, False])
def test_coarser_levels_a_label_and_a_thumbnail_are_no_stack(
    tmp_path: Path, pixels: NDArray[np.uint8], subifds: bool
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(pixels, tile=(64, 64), subifds=2 if subifds else None, **TAGS)
        for step in (2, 4):
            file.write(pixels[::step, ::step], tile=(64, 64), subfiletype=1, **TAGS)
        file.write(pixels[:90, :77], **TAGS)
        file.write(pixels[:50, :140], **TAGS)
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
def test_ycbcr_is_refused_where_no_codec_turns_it_into_rgb(
    tmp_path: Path, pixels: NDArray[np.uint8], compression: str | None
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, compression=compression, **(TAGS | {"photometric": "ycbcr"}))
    with pytest.raises(InputError, match=r"a\.tif: .*YCbCr.*8-bit RGB"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["jpeg2000", "aperio_jp2000_ycbc"])
def test_ycbcr_of_jpeg_2000_is_read(tmp_path: Path, pixels: NDArray[np.uint8], compression: str) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, tile=(64, 64), compression=compression, **(TAGS | {"photometric": "ycbcr"})
    )
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)


def test_grey_of_three_channels_is_refused(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, planarconfig="contig", extrasamples=[0, 0], **(TAGS | {"photometric": "minisblack"})
    )
    with pytest.raises(InputError, match=r"a\.tif: .*grey.*3 channels"):
        open_slide(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(10))
def test_only_what_is_upright_is_read(tmp_path: Path, pixels: NDArray[np.uint8], orientation: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, extratags=[(274, 3, 1, orientation, True)], **TAGS)
    if orientation in range(2, 9):
        with pytest.raises(InputError, match=rf"a\.tif: .*Orientation {orientation}\).*upright"):
            open_slide(tmp_path / "a.tif")
    else:  # 0 and 9 mean nothing, and some programs write them
        np.testing.assert_array_equal(read(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("orientation", [0, 1, 3, 6, 9])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_only_pictures_that_are_upright_are_read(
    tmp_path: Path, pixels: NDArray[np.uint8], orientation: int, suffix: str
) -> None:
    """A camera on the eyepiece writes EXIF; viewers turn the picture, and coordinates would be those of another."""
    image, exif = Image.fromarray(pixels), Image.Exif()
    exif[274] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    if orientation in range(2, 9):
        with pytest.raises(InputError, match=rf"a\.{suffix}: .*Orientation {orientation}\).*upright"):
            open_slide(tmp_path / f"a.{suffix}", 0.25)
    else:
        with open_slide(tmp_path / f"a.{suffix}", 0.25) as slide:
            assert (slide.height_px, slide.width_px) == pixels.shape[:2]


@pytest.mark.parametrize("exif", [b"Exif\0\0garbagegarbage", b"Exif\0\0II*\0"])
def test_damaged_exif_costs_no_picture(tmp_path: Path, pixels: NDArray[np.uint8], exif: bytes) -> None:
    for suffix in ("jpg", "png"):
        Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif)
        with open_slide(tmp_path / f"a.{suffix}", 0.25) as slide:
            assert (slide.height_px, slide.width_px) == pixels.shape[:2]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, r"header says 300 x 200 px, but its pixels are truncated"), (0.0005, r"File cannot be read")],
)
def test_a_damaged_metaimage_says_why(
    tmp_path: Path, pixels: NDArray[np.uint8], compressed: bool, share: float, expected: str
) -> None:
    image = sitk.GetImageFromArray(pixels, isVector=True)
    sitk.WriteImage(image, str(tmp_path / "a.mha"), compressed)
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=expected) as caught:
        open_slide(tmp_path / "a.mha", 0.25)
    assert ".cxx" not in str(caught.value)
    assert "No such file" not in str(caught.value)


def test_rubbish_for_a_metaimage_says_why(tmp_path: Path) -> None:
    (tmp_path / "a.mha").write_bytes(b"rubbish")
    with pytest.raises(InputError, match=r"\(Unable to determine ImageIO reader"):
        open_slide(tmp_path / "a.mha", 0.25)
