"""Micrometres per pixel: found in the file or given by the user, never guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from mitosis.errors import SpacingError

PLAUSIBLE_UM = (0.05, 1.1)  # finer than any light microscope resolves .. a 10x scan, where mitoses cannot be told
ANISOTROPY = 0.02  # largest relative difference of x and y that is taken for a square pixel
UM_PER_UNIT = {2: 25_400.0, 3: 10_000.0}  # TIFF ResolutionUnit: inch, centimetre
UNIT_NAMES = {2: "inch", 3: "centimetre"}
UM_PER_OME_UNIT = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4}
AGREES = 0.05  # relative difference up to which a fallback and a file say the same


@dataclass(frozen=True)
class Spacing:
    """Micrometres per level-0 pixel along x and y, and where they come from."""

    x_um: float
    y_um: float
    source: str


class Fallback(float):
    """A spacing for files that state none, in micrometres per pixel; it must not contradict one that does."""


def fallback(spacing_um: float | None) -> Fallback | None:
    """Return what ``--spacing`` gives as a fallback; None where it is not given."""
    return None if spacing_um is None else Fallback(spacing_um)


def checked(path: Path, found: Spacing | None, given_um: float | None) -> Spacing:
    """Return the spacing to use: ``given_um``, else the file's; with a ``Fallback`` the other way round.

    Raises SpacingError, naming the file and ``--spacing``, when there is none, when no microscope gives it, or when the
    file contradicts a ``Fallback``.
    """
    if isinstance(given_um, Fallback) and found and not objection(found):
        if not abs(given_um / found.x_um - 1) <= AGREES:
            raise SpacingError(
                f"{path}: states {found.x_um:g} um per pixel ({found.source}), but --spacing says {given_um:g}; run "
                "this image apart, without --spacing, or correct what the file states if that is wrong"
            )
        return found
    if given_um is not None:
        found = Spacing(float(given_um), float(given_um), "option --spacing")
    if found is None:
        raise SpacingError(
            f"{path}: states no pixel spacing; pass --spacing UM (micrometres per pixel, 40x is near 0.25)"
        )
    if problem := objection(found):
        raise SpacingError(f"{path}: {problem}")
    return found


def is_plausible(um: float) -> bool:
    """Tell whether a microscope gives so many micrometres per pixel; NaN is none."""
    return PLAUSIBLE_UM[0] <= um <= PLAUSIBLE_UM[1]


def objection(found: Spacing) -> str | None:
    """Say why a spacing is not to be believed, and what to do; None where it is."""
    for value in (found.x_um, found.y_um):
        if not is_plausible(value):
            return (
                f"its spacing of {value:g} um per pixel ({found.source}) is not between {PLAUSIBLE_UM[0]} and "
                f"{PLAUSIBLE_UM[1]}; pass the right one with --spacing UM"
            )
    if abs(found.x_um / found.y_um - 1) > ANISOTROPY:
        return (
            f"its pixels are not square ({found.x_um:g} x {found.y_um:g} um, {found.source}); resample it, or pass "
            "--spacing UM if the file is wrong"
        )
    return None


def tiff_spacing(tags: Any, description: str) -> Spacing | None:
    """Read the spacing of a TIFF page: Aperio's MPP, OME-XML, else the resolution tags; None where none says.

    Args:
        tags: tifffile's tags of the page.
        description: the page's ImageDescription.

    """
    if match := re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", description):
        return Spacing(float(match[1]), float(match[1]), "Aperio MPP")
    if stated := ome_spacing(description):
        return stated
    unit = int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2  # TIFF 6.0: inch where absent
    if unit not in UM_PER_UNIT or "XResolution" not in tags or "YResolution" not in tags:
        return None
    x, y = (pixels_per_unit(tags[name].value) for name in ("XResolution", "YResolution"))
    if x <= 0 or y <= 0:
        return None
    return Spacing(UM_PER_UNIT[unit] / x, UM_PER_UNIT[unit] / y, f"TIFF resolution per {UNIT_NAMES[unit]}")


def ome_spacing(description: str) -> Spacing | None:
    """Read the PhysicalSize of the first image of OME-XML; None where there is none in a unit of length."""
    if not (pixels := re.search(r"<(?:\w+:)?OME\b.*?<(?:\w+:)?(Pixels\b[^>]*)>", description, re.DOTALL)):
        return None
    stated = {name: unescape(value) for name, _, value in re.findall(r"\b(\w+)\s*=\s*([\"'])(.*?)\2", pixels[1])}
    sizes = []
    for axis in "XY":
        unit = stated.get(f"PhysicalSize{axis}Unit", "µm").replace("\u03bc", "\u00b5")  # Greek mu, micro sign
        try:
            sizes.append(float(stated[f"PhysicalSize{axis}"]) * UM_PER_OME_UNIT[unit])
        except (KeyError, ValueError):
            return None
    return Spacing(sizes[0], sizes[1], "OME PhysicalSize")


def pixels_per_unit(value: tuple[int, int]) -> float:
    """Turn a TIFF rational into a number; 0/0 is 0, that is: not stated."""
    return value[0] / value[1] if value[1] else 0.0


def dpi_spacing(dpi: tuple[float, float] | None) -> Spacing | None:
    """Read a PNG's or JPEG's dots per inch; what only a screen or a printer has (72, 300 ...) counts as not stated."""
    if not dpi or min(dpi) <= 0 or 25_400 / float(min(dpi)) > PLAUSIBLE_UM[1]:
        return None
    return Spacing(25_400 / float(dpi[0]), 25_400 / float(dpi[1]), "dots per inch")
