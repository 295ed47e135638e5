"""report.html: one file with everything in it, to be opened in any browser, offline."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from mitosis import __version__
from mitosis.bundle import DESCRIPTION
from mitosis.detections import Detections, centres_px
from mitosis.hotspot import Hotspot, hotspot_ranks
from mitosis.output.atomic import write_whole
from mitosis.pipeline import Model
from mitosis.provenance import commit, digest
from mitosis.quality import quality_flags
from mitosis.slide import Slide
from mitosis.tissue import TissueMask

RGB = NDArray[np.uint8]

REPORT_NAME = "report.html"
THUMBNAIL_PX = 1100  # longer side
CROP_UM, CROP_PX = 32.0, 128  # the cell and its neighbours; at 0.25 um per pixel as they are
NATIVE = 0.2  # spacings within this share of that are not resampled
SHARPNESS_PX = 96  # the middle of a crop, in which its sharpness is measured
GALLERY = 80  # crops of mitotic figures at the most, and as many rejected ones
HEAT_UM = 150.0  # standard deviation of the heat map's kernel, a high-power field's radius being some 270 um
LARGEST_HEAT = 0.03  # of the thumbnail's longer side: on a small region the map would cover everything
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 82)
PARTS = 10_000  # in which the page states probabilities
CHART = {"left": 38, "width": 330, "height": 120}  # of the counts by threshold, in the drawing's units


@dataclass(frozen=True)
class Crop:
    """One picture of the gallery: of candidate ``number``; ``order`` is its place by falling probability."""

    image: str
    number: int
    order: int
    counted: bool
    hotspot: int
    probability: float
    detector_score: float
    classifier_score: float
    x_px: float
    y_px: float


def write_report(
    path: Path, slide: Slide, model: Model, rows: Detections, hotspots: list[Hotspot], tissue: TissueMask
) -> None:
    """Write the report of one slide, whole or not at all.

    It stays small: of the candidates only places and probabilities are kept, some tens of bytes each, and pictures of
    the best on either side of the threshold. The same slide and settings give the same bytes. Raises InputError where
    the slide cannot be decoded, OutputError.
    """
    scale = max(1.0, max(slide.width_px, slide.height_px) / THUMBNAIL_PX)
    thumbnail = slide.coarse(scale)
    gallery, pictures = choose_crops(slide, rows, hotspots)
    spacing_um = (slide.spacing.x_um, slide.spacing.y_um)
    tissue_mm2 = tissue.area_mm2(spacing_um)
    data = page_data(rows, hotspots)
    chart = chart_of(data)
    places = np.rint(centres_px(rows) / scale).astype(int)
    data |= {"x": places[:, 0].tolist(), "y": places[:, 1].tolist(), "tissue": tissue_mm2, "scale": scale}
    data |= {"usual": model.config.classifier_threshold, "parts": PARTS, "chart": CHART}
    about = model.bundle.description
    page = template().render(
        name=slide.path.name,
        version=__version__,
        bundle=f"bundle {about.name} {about.version}",
        provenance=provenance(slide, model),
        threshold=model.config.classifier_threshold,
        figures=int(rows["is_mitotic_figure"].sum()),
        candidates=len(rows),
        tissue_mm2=tissue_mm2,
        area_mm2=slide.width_px * slide.height_px * spacing_um[0] * spacing_um[1] / 1e6,
        hotspots=hotspots,
        flags=quality_flags(slide, tissue, thumbnail, scale * spacing_um[0], pictures, hotspots),
        scale=scale,
        width=thumbnail.shape[1],
        height=thumbnail.shape[0],
        thumbnail=data_uri(thumbnail, ".jpg"),
        heat_map=data_uri(heat_map(thumbnail.shape[:2], rows, scale, spacing_um[0]), ".png"),
        gallery=gallery,
        chart=chart,
        data=data,
    )
    write_whole(path, page.encode(errors="backslashreplace"))  # a file name need not be UTF-8


def provenance(slide: Slide, model: Model) -> list[tuple[str, str]]:
    """Return what a reader of the page should know of how it came about; run.json has the rest."""
    about, config, spacing = model.bundle.description, model.config, slide.spacing
    return [
        ("image", f"{slide.width_px} × {slide.height_px} px, read by {slide.reader}"),
        ("spacing", f"{spacing.x_um:.4f} × {spacing.y_um:.4f} µm per pixel, from {spacing.source}"),
        ("program", f"mitosis {__version__}, commit {commit()}"),
        ("bundle", f"{about.name} {about.version}, sha256 {digest(model.bundle.folder / DESCRIPTION)[:16]}"),
        ("networks", model.runtime),
        ("thresholds", f"probability {config.classifier_threshold:g}; stage 1 {config.detector_confidence:g}"),
    ]


def template() -> jinja2.Template:
    """Load the page's template; every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2")


def page_data(rows: Detections, hotspots: list[Hotspot]) -> dict[str, Any]:
    """Return what the slider counts with, of each candidate.

    ``p`` is its probability in ten-thousandths, ``yes`` whether the run counted it, ``spot`` its hotspot's rank or 0.
    """
    # Rounded down: a candidate is counted here from the same threshold on as everywhere else.
    parts = np.floor(rows["probability"].astype(np.float64) * PARTS + 1e-3).astype(int)
    ranks = hotspot_ranks(centres_px(rows), hotspots)
    return {"p": parts.tolist(), "yes": rows["is_mitotic_figure"].astype(int).tolist(), "spot": ranks.tolist()}


def chart_of(data: dict[str, Any]) -> dict[str, Any]:
    """Return the drawing of the counts by threshold, of the slide and of its first hotspot."""
    probability, spot = np.array(data["p"], int), np.array(data["spot"], int)
    thresholds = np.arange(0, PARTS + 1, PARTS // 100)
    whole, first = (len(p) - np.searchsorted(np.sort(p), thresholds) for p in (probability, probability[spot == 1]))
    top = max(int(whole.max(initial=0)), 1)

    def line(counts: NDArray[np.int64]) -> str:
        x = CHART["left"] + CHART["width"] * thresholds / PARTS
        y = CHART["height"] * (1 - 0.95 * counts / top)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))

    ticks = [(value, CHART["height"] * (1 - 0.95 * value / top)) for value in sorted({0, top // 2, top})]
    return CHART | {"all": line(whole), "spot": line(first), "ticks": ticks}


def choose_crops(slide: Slide, rows: Detections, hotspots: list[Hotspot]) -> tuple[list[Crop], list[RGB]]:
    """Cut the neighbourhoods of the most probable candidates of both kinds, by falling probability."""
    order = np.argsort(-rows["probability"], kind="stable")
    accepted = rows["is_mitotic_figure"][order]
    chosen = order[np.sort(np.concatenate([np.flatnonzero(accepted)[:GALLERY], np.flatnonzero(~accepted)[:GALLERY]]))]
    centres = centres_px(rows[chosen])
    ranks = hotspot_ranks(centres, hotspots)
    scale = CROP_UM / CROP_PX / slide.spacing.x_um
    scale = 1.0 if abs(scale - 1) <= NATIVE else scale
    edge = (CROP_PX - SHARPNESS_PX) // 2
    crops, pictures = [], []
    for place, (row, (x, y)) in enumerate(zip(rows[chosen], centres, strict=True)):
        reach = CROP_PX / 2 * scale
        rgb = slide.read(round(x - reach), round(y - reach), CROP_PX, CROP_PX, scale)
        probability, first, second = (float(row[n]) for n in ("probability", "detector_score", "classifier_score"))
        crops.append(
            Crop(
                data_uri(rgb, ".jpg"),
                int(chosen[place]),
                place,
                bool(row["is_mitotic_figure"]),
                int(ranks[place]),
                probability,
                first,
                second,
                float(x),
                float(y),
            )
        )
        pictures.append(rgb[edge:-edge, edge:-edge])
    return crops, pictures


def heat_map(shape: tuple[int, int], rows: Detections, scale: float, spacing_um: float) -> NDArray[np.uint8]:
    """Draw the density of mitotic figures: (h, w, 4) RGBA, transparent where there are none."""
    sigma_px = min(HEAT_UM / (scale * spacing_um), LARGEST_HEAT * max(shape))
    density = np.zeros(shape, np.float32)
    x, y = (centres_px(rows[rows["is_mitotic_figure"]]) / scale).astype(int).T
    np.add.at(density, (y.clip(0, shape[0] - 1), x.clip(0, shape[1] - 1)), 1.0)
    density = np.asarray(cv2.GaussianBlur(density, (0, 0), max(1.0, sigma_px)), dtype=np.float32)
    strength = density / max(float(density.max()), 1e-9)
    out = np.zeros((*shape, 4), np.uint8)
    out[..., 0] = 230
    out[..., 1] = (200 * (1 - strength)).astype(np.uint8)
    out[..., 3] = (105 * strength**0.7).astype(np.uint8) * (strength > 0.02)
    return out


def data_uri(rgb: NDArray[np.uint8], suffix: str) -> str:
    """Encode an RGB or RGBA picture into the page."""
    codes = cv2.COLOR_RGBA2BGRA if rgb.shape[2] == 4 else cv2.COLOR_RGB2BGR
    _, content = cv2.imencode(suffix, cv2.cvtColor(rgb, codes), JPEG if suffix == ".jpg" else ())
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"
