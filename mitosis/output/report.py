"""report.html: one file with everything in it, to be opened in any browser, offline."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

from mitosis import __version__
from mitosis.detections import Detections, centres_px
from mitosis.hotspot import Hotspot
from mitosis.output.atomic import write_whole
from mitosis.pipeline import Model
from mitosis.quality import quality_flags
from mitosis.slide import Slide
from mitosis.tissue import TissueMask

RGB = NDArray[np.uint8]

REPORT_NAME = "report.html"
THUMBNAIL_PX = 1100  # longer side
CROP_PX = 96  # 24 um at 0.25 um a pixel: the cell and its neighbours
GALLERY = 80  # crops of mitotic figures at the most, and as many rejected ones
HEAT_UM = 150.0  # standard deviation of the heat map's kernel, a high-power field's radius being some 270 um
LARGEST_HEAT = 0.03  # of the thumbnail's longer side: on a small region the map would cover everything
JPEG = (cv2.IMWRITE_JPEG_QUALITY, 82)


@dataclass(frozen=True)
class Crop:
    """One picture of the gallery."""

    image: str
    probability: float
    detector_score: float
    classifier_score: float
    x_px: float
    y_px: float


def write_report(
    path: Path, slide: Slide, model: Model, rows: Detections, hotspots: list[Hotspot], tissue: TissueMask
) -> None:
    """Write the report of one slide, whole or not at all.

    The size is bounded: of the candidates only their probabilities are kept, and pictures of the best on either side of
    the threshold. Raises InputError where the slide cannot be decoded, OutputError.
    """
    scale = max(1.0, max(slide.width_px, slide.height_px) / THUMBNAIL_PX)
    thumbnail = slide.coarse(scale)
    gallery, pictures = choose_crops(slide, rows)
    spacing_um = (slide.spacing.x_um, slide.spacing.y_um)
    about = model.bundle.description
    page = template().render(
        version=__version__,
        slide=slide,
        bundle=f"{about.name} {about.version}",
        runtime=f"{model.detector.name}; {model.classifier.name}",
        threshold=model.config.classifier_threshold,
        figures=int(rows["is_mitotic_figure"].sum()),
        candidates=len(rows),
        tissue_mm2=tissue.area_mm2(spacing_um),
        area_mm2=slide.width_px * slide.height_px * spacing_um[0] * spacing_um[1] / 1e6,
        hotspots=hotspots,
        flags=quality_flags(slide, tissue, thumbnail, pictures),
        scale=scale,
        width=thumbnail.shape[1],
        height=thumbnail.shape[0],
        thumbnail=data_uri(thumbnail, ".jpg"),
        heat_map=data_uri(heat_map(thumbnail.shape[:2], rows, scale, spacing_um[0]), ".png"),
        gallery=gallery,
        data=page_data(rows, hotspots),
    )
    write_whole(path, page.encode())


def template() -> jinja2.Template:
    """Load the page's template; every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2")


def page_data(rows: Detections, hotspots: list[Hotspot]) -> dict[str, list[int]]:
    """Return what the slider counts with: each candidate's probability in thousandths and its hotspot's rank or 0."""
    rank = np.zeros(len(rows), int)
    for spot in hotspots:
        rank[spot.holds(centres_px(rows))] = spot.rank
    # Rounded down: a candidate is counted here from the same threshold on as everywhere else.
    return {"p": np.floor(rows["probability"] * 1000 + 1e-3).astype(int).tolist(), "spot": rank.tolist()}


def choose_crops(slide: Slide, rows: Detections) -> tuple[list[Crop], list[RGB]]:
    """Cut the neighbourhoods of the most probable candidates of both kinds, by falling probability."""
    order = np.argsort(-rows["probability"], kind="stable")
    accepted = rows["is_mitotic_figure"][order]
    chosen = np.sort(np.concatenate([np.flatnonzero(accepted)[:GALLERY], np.flatnonzero(~accepted)[:GALLERY]]))
    crops, pictures = [], []
    for row, (x, y) in zip(rows[order[chosen]], centres_px(rows[order[chosen]]), strict=True):
        rgb = slide.read(round(x) - CROP_PX // 2, round(y) - CROP_PX // 2, CROP_PX, CROP_PX)
        probability, *scores = (float(row[n]) for n in ("probability", "detector_score", "classifier_score"))
        crops.append(Crop(data_uri(rgb, ".jpg"), probability, scores[0], scores[1], float(x), float(y)))
        pictures.append(rgb)
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
    out[..., 3] = (120 * np.sqrt(strength)).astype(np.uint8) * (strength > 0.02)
    return out


def data_uri(rgb: NDArray[np.uint8], suffix: str) -> str:
    """Encode an RGB or RGBA picture into the page."""
    codes = cv2.COLOR_RGBA2BGRA if rgb.shape[2] == 4 else cv2.COLOR_RGB2BGR
    _, content = cv2.imencode(suffix, cv2.cvtColor(rgb, codes), JPEG if suffix == ".jpg" else ())
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"
