"""One function per family of files; each turns a file into a ``Source`` of RGB levels."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import imagecodecs
import numpy as np
import PIL
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC

from mitosis.chunks import band_px, open_pixels
from mitosis.config import one_line
from mitosis.errors import InputError
from mitosis.spacing import Spacing, dpi_spacing, tiff_spacing

RGB = NDArray[np.uint8]

TO_RGB_ITSELF = (  # codecs whose output is RGB whatever they hold
    COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.JPEG_LOSSY, COMPRESSION.JPEG2000, COMPRESSION.JPEG_2000_LOSSY,
    COMPRESSION.APERIO_JP2000_YCBC, COMPRESSION.APERIO_JP2000_RGB, COMPRESSION.ALT_JPEG,
)  # fmt: skip
ORIENTATION = 274  # EXIF's tag
JPEG_END = b"\xff\xd9"
PICTURE_PX = 400_000_000  # PNG and JPEG have no windows: larger ones would fill the memory
Image.MAX_IMAGE_PIXELS = None  # the limit above replaces Pillow's
sitk.ProcessObject.SetGlobalWarningDisplay(False)  # the last line on stderr is the user's


@dataclass(frozen=True)
class Level:
    """One resolution. ``pixels`` is sliced as [rows, columns]; ``downsample`` is level-0 pixels per pixel."""

    pixels: Any
    downsample: float

    @property
    def width_px(self) -> int:
        """Columns."""
        return int(self.pixels.shape[1])

    @property
    def height_px(self) -> int:
        """Rows."""
        return int(self.pixels.shape[0])


@dataclass
class Source:
    """What a reader finds in a file; the finest level comes first."""

    name: str
    levels: list[Level]
    spacing: Spacing | None
    origin_mm: tuple[float, float] = (0.0, 0.0)
    band_px: float = math.inf  # windows come cheapest band by band of this width, each from top to bottom
    to_rgb: Callable[[Any], RGB] = field(default=lambda pixels: to_rgb(np.asarray(pixels)))
    close: Callable[[], None] = field(default=lambda: None)


def to_rgb(pixels: NDArray[Any]) -> RGB:
    """Turn (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) bytes into RGB: grey is repeated, alpha is laid on white."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        alpha = pixels[..., 3:].astype(np.float32) / 255
        return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return pixels


def without_fourth(pixels: NDArray[Any]) -> RGB:
    """Drop a fourth sample that is not said to be alpha."""
    return to_rgb(pixels[..., :3] if pixels.ndim == 3 else pixels)


def on_white(pixels: NDArray[Any]) -> RGB:
    """Lay RGB that is multiplied by its alpha already, the fourth sample, on white."""
    if pixels.ndim < 3 or pixels.shape[2] != 4:
        return to_rgb(pixels)
    laid = np.minimum(pixels[..., :3].astype(np.uint16) + (255 - pixels[..., 3:]), 255)
    return np.asarray(laid, dtype=np.uint8)


FOURTH_SAMPLE: dict[int, Callable[[Any], RGB]] = {
    EXTRASAMPLE.UNSPECIFIED: without_fourth,
    EXTRASAMPLE.ASSOCALPHA: on_white,
    EXTRASAMPLE.UNASSALPHA: to_rgb,
}


def check_pixels(path: Path, dtype: np.dtype[Any], channels: int) -> None:
    """Refuse what cannot be turned into RGB bytes without guessing."""
    if dtype != np.uint8:
        raise InputError(
            f"{path}: has {dtype} pixels, and how they map to brightness is not known; save it as 8-bit RGB"
        )
    if channels not in (1, 3, 4):
        raise InputError(f"{path}: has {channels} channels instead of RGB; save it as 8-bit RGB")


def read_tiff(path: Path) -> Source:
    """TIFF, BigTIFF and Aperio SVS: strips or tiles, any compression that imagecodecs knows, pyramids of both kinds."""
    try:
        file = tifffile.TiffFile(path)
    except Exception as error:  # tifffile and struct raise many kinds
        raise InputError(f"{path}: is not a readable TIFF ({one_line(error)[:120]}); copy the file again") from error
    try:
        series = file.series[0]
        page = series.levels[0].pages[0]
        check_one_plane(path, file)
        check_colours(path, page)
        check_pixels(path, page.dtype, page.samplesperpixel)
        levels = [level for level in series.levels if level.axes == series.levels[0].axes]
        for level in levels:
            check_complete(path, level)
            check_chunks(path, level)
        width, lock = page.imagewidth, Lock()
        return Source(
            "tifffile " + tifffile.__version__,
            [
                Level(open_pixels(level.pages[0], file.filehandle, lock), width / level.pages[0].imagewidth)
                for level in levels
            ],
            tiff_spacing(page.tags, page.description),
            band_px=band_px(page),
            to_rgb=FOURTH_SAMPLE[page.extrasamples[0] if page.extrasamples else EXTRASAMPLE.UNSPECIFIED],
            close=file.close,
        )
    except InputError:
        file.close()
        raise
    except Exception as error:
        file.close()
        raise InputError(f"{path}: is a damaged TIFF ({one_line(error)[:120]}); copy the file again") from error


def check_one_plane(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse a stack, of which the first plane would be taken for the whole, and what is stored turned or mirrored.

    A slide's coarser levels, its label and its thumbnail have other sizes than the slide.
    """
    series = file.series[0]
    page = series.levels[0].pages[0]
    if page.axes not in ("YX", "YXS"):
        raise InputError(f"{path}: its axes are {page.axes}, not rows, columns and RGB; save it as one RGB plane")
    planes = math.prod(series.shape) // math.prod(page.shape) + sum(s.shape == series.shape for s in file.series[1:])
    if planes > 1:
        raise InputError(f"{path}: is a stack of {planes} planes; save the plane to be looked at alone")
    check_upright(path, page.tags.valueof("Orientation", 1))


def check_upright(path: Path, orientation: int) -> None:
    """Refuse what is stored turned or mirrored, numbered as TIFF and EXIF do: places would be another picture's."""
    if orientation in range(2, 9):
        raise InputError(f"{path}: is stored rotated or mirrored (Orientation {int(orientation)}); save it upright")


def check_colours(path: Path, page: tifffile.TiffPage) -> None:
    """Refuse colours that would be taken for RGB though they are not."""
    if page.photometric not in (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR):
        raise InputError(f"{path}: its colours are {page.photometric.name}, not RGB or grey; save it as 8-bit RGB")
    if page.photometric == PHOTOMETRIC.YCBCR and page.compression not in TO_RGB_ITSELF:
        raise InputError(f"{path}: its colours are YCbCr, not compressed as JPEG; save it as 8-bit RGB")
    if page.photometric == PHOTOMETRIC.MINISBLACK and page.samplesperpixel in (3, 4):
        raise InputError(f"{path}: says that it is grey, but has {page.samplesperpixel} channels; save it as 8-bit RGB")


def check_complete(path: Path, level: tifffile.TiffPageSeries) -> None:
    """Refuse a file that ends before its pixel data does: some codecs would fill the rest with grey."""
    size = path.stat().st_size
    page = level.pages[0]
    end = max((offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
    if end > size or not end:
        raise InputError(f"{path}: is truncated, {size} bytes of at least {end}; copy the file again")


def check_chunks(path: Path, level: tifffile.TiffPageSeries) -> None:
    """Refuse a file that can only be decoded whole, and whole would fill the memory."""
    page = level.pages[0].keyframe
    if math.prod(page.chunks[:2]) > PICTURE_PX and not page.is_memmappable:
        raise InputError(f"{path}: is one piece of {page.chunks[1]} x {page.chunks[0]} px; convert it to a tiled TIFF")


def read_metaimage(path: Path) -> Source:
    """MetaImage (.mha): spacing and origin in millimetres, read whole by SimpleITK."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise InputError(f"{path}: is not a readable MetaImage ({reason(path, error)}); copy it again") from error
    if image.GetDimension() == 3 and image.GetSize()[2] == 1:
        image = image[:, :, 0]
    if image.GetDimension() != 2:
        raise InputError(f"{path}: is a volume of size {image.GetSize()}, not one plane; save the plane alone")
    if not np.allclose(image.GetDirection(), (1, 0, 0, 1)):
        raise InputError(f"{path}: is rotated or mirrored (direction {image.GetDirection()}); resample it upright")
    pixels = sitk.GetArrayFromImage(image)
    check_pixels(path, pixels.dtype, image.GetNumberOfComponentsPerPixel())
    x_um, y_um = (1000 * mm for mm in image.GetSpacing())
    spacing = Spacing(x_um, y_um, "MetaImage")
    return Source(f"SimpleITK {sitk.Version.VersionString()}", [Level(to_rgb(pixels), 1.0)], spacing, image.GetOrigin())


def reason(path: Path, error: RuntimeError) -> str:
    """Say why SimpleITK cannot read a MetaImage: what it throws names its own source files, and hides a short file."""
    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    try:
        header.ReadImageInformation()
    except RuntimeError:
        said = re.sub(r"^.*ERROR:( \w+\(0x\w+\):)?|Reason: No such file.*", "", one_line(error))
        return said.strip()[:120] or "unknown reason"
    return f"its header says {' x '.join(map(str, header.GetSize()))} px, but its pixels are truncated or damaged"


def read_picture(path: Path) -> Source:
    """PNG and JPEG: decoded whole, by Pillow or, four times faster where it is plain RGB, by imagecodecs."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > PICTURE_PX:
                raise InputError(f"{path}: too large to decode whole; convert it to a tiled TIFF")
            check_upright(path, exif_orientation(image))
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{path}: has {image.mode} pixels, not 8-bit RGB; save it as 8-bit RGB")
            spacing = dpi_spacing(image.info.get("dpi"))
            pixels = jpeg_pixels(path) if (image.format, image.mode) == ("JPEG", "RGB") else None
            name = f"imagecodecs {imagecodecs.__version__}" if pixels is not None else f"Pillow {PIL.__version__}"
            if pixels is None:
                has_alpha = "A" in image.getbands() or "transparency" in image.info
                pixels = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be decoded ({one_line(error)[:120]}); copy the file again") from error
    return Source(name, [Level(to_rgb(pixels), 1.0)], spacing)


def exif_orientation(image: Image.Image) -> int:
    """Return how a picture is stored by its EXIF, 1 where that does not say or is damaged: the pixels are fine."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except (SyntaxError, struct.error, ValueError, TypeError, LookupError, OSError):
        return 1


def jpeg_pixels(path: Path) -> RGB | None:
    """Decode an RGB JPEG; None where that fails or the file's end is missing, which libjpeg would fill with grey."""
    data = path.read_bytes()
    try:
        return np.asarray(imagecodecs.jpeg8_decode(data)) if data.rstrip(b"\0").endswith(JPEG_END) else None
    except imagecodecs.Jpeg8Error:
        return None
