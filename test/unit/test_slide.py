"""Reading: pixels against what was written, spacing against SimpleITK, and every refusal."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from PIL import Image

from mitosis.errors import InputError, SpacingError
from mitosis.slide import open_slide

QUARTER = {"resolution": (40000.0, 40000.0), "resolutionunit": "CENTIMETER"}


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    coarse = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (300, 200), interpolation=cv2.INTER_CUBIC))


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"rowsperstrip": 16, "compression": "lzw"},
    {"tile": (64, 64), "compression": "deflate"},
    {"tile": (64, 64), "bigtiff": True},
    {"compression": "deflate", "predictor": True},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_tiff_pixels_are_those_written(tmp_path: Path, pixels: NDArray[np.uint8], layout: dict[str, Any]) -> None:
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, pixels, photometric="rgb", **QUARTER, **layout)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), pixels)
        np.testing.assert_array_equal(slide.read(17, 23, 100, 90), pixels[23:113, 17:117])
        assert slide.spacing.x_um == pytest.approx(0.25)


def test_jpeg_tiff_is_near(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), compression="jpeg", **QUARTER)
    with open_slide(path) as slide:
        assert np.abs(slide.read(0, 0, 300, 200).astype(int) - pixels).mean() < 6


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2}, {"progressive": True, "quality": 40}])
def test_jpeg_pixels_are_pillows(tmp_path: Path, pixels: NDArray[np.uint8], mode: str, options: dict[str, Any]) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels).convert(mode).save(path, **options)
    path.write_bytes(path.read_bytes() + bytes(3))  # some writers fill up a block
    with open_slide(path, 0.25) as slide, Image.open(path) as image:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), np.asarray(image.convert("RGB")))
        assert slide.reader.startswith("imagecodecs" if mode == "RGB" else "Pillow")


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_truncated_picture_is_refused(tmp_path: Path, pixels: NDArray[np.uint8], share: float) -> None:
    for name in ("a.jpg", "a.png"):
        Image.fromarray(pixels).save(tmp_path / name)
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=name):
            open_slide(tmp_path / name, 0.25)


@pytest.mark.parametrize(
    ("unit", "x", "y"), [("INCH", 101600.0, 101600.0), ("CENTIMETER", 43994.7, 43994.7), ("CENTIMETER", 40000, 40400)]
)
@pytest.mark.parametrize("big", [False, True])
def test_spacing_equals_simpleitks(
    tmp_path: Path, pixels: NDArray[np.uint8], unit: str, x: float, y: float, big: bool
) -> None:
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, pixels, photometric="rgb", resolution=(x, y), resolutionunit=unit, bigtiff=big)
    oracle = sitk.ReadImage(str(path))
    with open_slide(path) as slide:
        assert (slide.spacing.x_um / 1000, slide.spacing.y_um / 1000) == pytest.approx(oracle.GetSpacing(), rel=1e-5)
        points = np.array([[0.0, 0.0], [299.0, 199.0], [10.5, 3.25]])
        expected = [oracle.TransformContinuousIndexToPhysicalPoint(p) for p in points.tolist()]
        np.testing.assert_allclose(slide.point_mm(points), expected, rtol=1e-5)


def test_metaimage_keeps_spacing_and_origin(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    image = sitk.GetImageFromArray(pixels, isVector=True)
    image.SetSpacing((0.00025, 0.00025))
    image.SetOrigin((1.5, -2.0))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    with open_slide(tmp_path / "a.mha") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), pixels)
        points = np.array([[0.0, 0.0], [120.25, 60.5]])
        expected = [image.TransformContinuousIndexToPhysicalPoint(p) for p in points.tolist()]
        np.testing.assert_allclose(slide.point_mm(points), expected, atol=1e-12)


def write_pyramid(path: Path, pixels: NDArray[np.uint8], subifds: bool) -> None:
    half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    with tifffile.TiffWriter(path) as file:
        common = {"photometric": "rgb", "tile": (256, 256), **QUARTER}
        file.write(pixels, subifds=1 if subifds else None, **common)
        file.write(half, subfiletype=1, **common)


@pytest.mark.parametrize("whole", [True, False])
def test_coarser_reads_are_aligned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """One dark spot's centroid stays where it is, from a pyramid's level and from level 0 alike."""
    if not whole:
        monkeypatch.setattr("mitosis.slide.WHOLE_PX", 0)
    y, x = np.mgrid[:1024, :1024]
    spot = np.exp(-((x - 619.5) ** 2 + (y - 409.5) ** 2) / (2 * 9**2))
    pixels = np.repeat(np.rint(255 - 250 * spot)[..., None], 3, axis=2).astype(np.uint8)
    write_pyramid(tmp_path / "a.tiff", pixels, subifds=True)
    with open_slide(tmp_path / "a.tiff") as slide:
        assert len(slide._source.levels) == (1 if whole else 2)
        for scale in (1.0, 1.37, 2.0, 2.6):
            window = 255.0 - slide.read(500, 300, 160, 160, scale)[..., 0]
            rows, columns = np.mgrid[:160, :160]
            found_x = 500 + scale * (window * columns).sum() / window.sum()
            found_y = 300 + scale * (window * rows).sum() / window.sum()
            assert (found_x, found_y) == pytest.approx((619.5, 409.5), abs=0.05), scale


def test_outside_is_white(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with open_slide(tmp_path / "a.png", 0.25) as slide:
        window = slide.read(-10, -5, 320, 210)
        np.testing.assert_array_equal(window[5:205, 10:310], pixels)
        assert (window[:5] == 255).all()
        assert (window[:, 310:] == 255).all()


@pytest.mark.parametrize(
    "tags",
    [{}, {"resolution": (1.0, 1.0), "resolutionunit": "NONE"}, {"resolution": (72, 72), "resolutionunit": "INCH"}],
)
def test_no_plausible_spacing_is_an_error(tmp_path: Path, pixels: NDArray[np.uint8], tags: dict[str, Any]) -> None:
    path = tmp_path / "a.tiff"
    tifffile.imwrite(path, pixels, photometric="rgb", **tags)
    with pytest.raises(SpacingError, match=r"a\.tiff.*--spacing"):
        open_slide(path)
    with open_slide(path, 0.25) as slide:
        assert slide.spacing.source == "option --spacing"


@pytest.mark.parametrize("given_um", [0.0, -1.0, float("nan"), 250.0])
def test_absurd_option_is_refused(tmp_path: Path, pixels: NDArray[np.uint8], given_um: float) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(SpacingError):
        open_slide(tmp_path / "a.png", given_um)


def test_oblong_pixels_are_refused(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    tifffile.imwrite(
        tmp_path / "a.tiff", pixels, photometric="rgb", resolution=(40000, 20000), resolutionunit="CENTIMETER"
    )
    with pytest.raises(SpacingError, match="not square"):
        open_slide(tmp_path / "a.tiff")


def test_grey_and_alpha_become_rgb(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    tifffile.imwrite(tmp_path / "grey.tiff", pixels[..., 0], photometric="minisblack", **QUARTER)
    alpha = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    tifffile.imwrite(tmp_path / "alpha.tiff", alpha, photometric="rgb", extrasamples=["unassalpha"], **QUARTER)
    with open_slide(tmp_path / "grey.tiff") as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200)[..., 1], pixels[..., 0])
    with open_slide(tmp_path / "alpha.tiff") as slide:
        assert (slide.read(0, 0, 300, 200) == 255).all()  # wholly transparent: what lies below is white


def test_sixteen_bit_is_refused_with_a_reason(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", pixels.astype(np.uint16) * 256, photometric="rgb", **QUARTER)
    with pytest.raises(InputError, match=r"uint16.*8-bit"):
        open_slide(tmp_path / "a.tiff")


@pytest.mark.parametrize("name", ["a.tiff", "a.mha", "a.png", "a.jpg", "a.svs"])
@pytest.mark.parametrize("content", [b"", b"not an image at all"])
def test_rubbish_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name) as caught:
        open_slide(tmp_path / name, 0.25)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [None, "deflate", "jpeg"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_is_refused(tmp_path: Path, pixels: NDArray[np.uint8], compression: str | None, share: float) -> None:
    tifffile.imwrite(tmp_path / "a.tiff", pixels, photometric="rgb", tile=(64, 64), compression=compression, **QUARTER)
    content = (tmp_path / "a.tiff").read_bytes()
    (tmp_path / "a.tiff").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=r"a\.tiff"), open_slide(tmp_path / "a.tiff") as slide:
        slide.read(0, 0, 300, 200)


def test_missing_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_slide(tmp_path / "none.tiff")
    (tmp_path / "a.docx").write_bytes(b"x")
    with pytest.raises(InputError, match="not a kind of image"):
        open_slide(tmp_path / "a.docx")


@pytest.mark.data
def test_real_slides(data: Path) -> None:
    with open_slide(data / "slides/cmu-1-small-region.svs") as slide:
        assert slide.spacing.source == "Aperio MPP"
        assert slide.spacing.x_um == pytest.approx(0.499)
        assert 100 < slide.read(500, 500, 512, 512).mean() < 250
    with pytest.raises(SpacingError):  # JPEG 2000; its description states no MPP
        open_slide(data / "slides/tcga-cr-7395-01a-01-ts1.svs")
    with open_slide(data / "slides/tcga-cr-7395-01a-01-ts1.svs", 0.5) as slide:
        assert 100 < slide.read(1000, 1000, 512, 512).mean() < 250
