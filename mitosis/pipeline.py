"""The whole way from a slide to detections, streaming: at any time a few tiles are in memory, never the slide.

Threads read ahead, both networks run requests of their own, and this thread passes on what is ready, in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mitosis.ahead import ahead
from mitosis.bundle import Bundle, Calibration, read_bundle
from mitosis.cache import cache_of
from mitosis.calibration import probabilities
from mitosis.classifier import crops, score_candidates
from mitosis.config import Config
from mitosis.cpu import CpuUse, OpenVinoNetwork, Precision
from mitosis.detections import Detections, empty_detections
from mitosis.detector import read_candidates
from mitosis.gpu import Device
from mitosis.merging import merge
from mitosis.network import Network, NetworkFile
from mitosis.runtime import load_networks
from mitosis.slide import Slide
from mitosis.tiling import Tile, by_bands, tiles
from mitosis.tissue import TissueMask
from mitosis.views import HaloedTile, look_again

HALO_PX = 48  # read around each tile, so that a candidate at its edge is cropped with its real surroundings

Look = TypeVar("Look")
Progress = Callable[[int, int], None]  # tiles done, tiles in all


@dataclass(frozen=True)
class Model:
    """Both stages' networks, loaded, with the bundle and the configuration they run under. Holds no image."""

    bundle: Bundle
    config: Config
    detector: Network
    classifier: Network
    second_look: Network | None = None  # of stage 1, where another network takes all looks but the first
    repeating: Network | None = None  # the detector in f32, where the first look only searches, in bf16

    @property
    def looking_again(self) -> Network:
        """What takes all of stage 1's looks but the first."""
        return self.second_look or self.repeating or self.detector

    @property
    def runtime(self) -> str:
        """What runs the networks, and in which precisions, in words."""
        return " / ".join(dict.fromkeys((self.detector.name, self.classifier.name)))


def load_model(
    folder: Path,
    device: Device = Device.AUTO,
    config: Config | None = None,
    use: CpuUse = CpuUse(),  # noqa: B008 - frozen
) -> Model:
    """Load a bundle. Without ``config`` the paper's values hold, with the bundle's own thresholds where it has some.
    ``use`` says how much of a CPU and in what precision, and where compiled networks are kept for the next time.

    Raises BundleError and RuntimeUnavailableError.
    """
    bundle = read_bundle(folder)
    config = config or Config().at(bundle.description.operating_point)
    use = replace(use, cache=cache_of(bundle, use.cache))
    files = network_files(bundle, config)
    model = Model(bundle, config, *load_networks(files if config.views > 1 else files[:2], device, use))
    first_rounds = isinstance(model.detector, OpenVinoNetwork) and model.detector.rounds
    if config.views > 1 and first_rounds and use.precision is Precision.AUTO:
        model = replace(model, repeating=OpenVinoNetwork(files[0]._replace(decides=True), use))
    return model


def network_files(bundle: Bundle, config: Config) -> list[NetworkFile]:
    """Return the files of stage 1, stage 2 and, where it is another, stage 1's second look.

    Each comes with the fixed shape (B, 3, H, W) of its batches. With several looks the first one only searches; the
    others decide.
    """
    tile, side = bundle.description.detector.tile_px, bundle.description.classifier.input_px
    found = [
        NetworkFile(bundle.detector_file, (1, 3, tile, tile), takes_pixels=True),
        NetworkFile(bundle.classifier_file, (config.classifier_batch, 3, side, side), decides=config.views > 1),
    ]
    if bundle.second_look_file:
        found.append(NetworkFile(bundle.second_look_file, (1, 3, tile, tile), takes_pixels=True, decides=True))
    return found


def detect(
    slide: Slide, model: Model, progress: Progress | None = None, tissue: TissueMask | None = None
) -> Detections:
    """Find mitotic figures. Returns every merged candidate, rejected ones too, in level-0 pixels and reading order.

    With ``tissue``, tiles without any are not read.

    Raises InputError when part of the image cannot be decoded.
    """
    rows = scored_candidates(slide, model, progress, tissue)
    return decided(rows, model.bundle.description.calibration, model.config)


def scored_candidates(
    slide: Slide, model: Model, progress: Progress | None = None, tissue: TissueMask | None = None
) -> Detections:
    """Return all tiles' candidates with both stages' scores, doubles included; see ``detect``."""
    part, config = model.bundle.description.classifier, model.config
    with closing(candidates(slide, model, progress, tissue)) as every_tile:
        found = ((rows, images) for rows, images in every_tile if len(rows))
        scored = list(score_candidates(model.classifier, found, part, config.classifier_batch))
    return np.concatenate(scored) if scored else empty_detections()


def decided(rows: Detections, calibration: Calibration | None, config: Config) -> Detections:
    """Give scored candidates (which are filled in) their probability and class, and merge what is one cell."""
    rows["probability"] = probabilities(rows, calibration)
    rows["is_mitotic_figure"] = rows["probability"] >= config.classifier_threshold
    return merge(rows, config.merge_iou)


def candidates(
    slide: Slide, model: Model, progress: Progress | None = None, tissue: TissueMask | None = None
) -> Generator[tuple[Detections, NDArray[np.uint8]], None, None]:
    """Yield each tile's candidates in level-0 pixels with their crops (n, side, side, 3)."""
    about, config = model.bundle.description, model.config
    scale = grid_scale(slide.spacing.x_um, about.detector.spacing_um, about.detector.spacing_tolerance)
    chosen = tiles_to_read(slide, model, tissue)

    def read(tile: Tile) -> tuple[HaloedTile, NDArray[np.uint8]]:
        shown = HaloedTile(tile, read_haloed(slide, tile, scale))
        return shown, shown.batch

    with closing(ahead(read, chosen)) as batches:
        looks = counted(model.detector.map(batches), len(chosen), progress)
        share = about.second_look.share if about.second_look else None
        for (tile, rgb), raw in look_again(
            model.looking_again, looks, config.views, config.detector_confidence, model.repeating, share
        ):
            rows = read_candidates(raw, tile, config.detector_confidence, config.nms_iou)
            images = crops(rgb, moved(rows, 1.0, (HALO_PX, HALO_PX)), about.classifier)
            yield inside(moved(rows, scale, (tile.x_px * scale, tile.y_px * scale)), images, slide)


def counted(looks: Iterable[Look], total: int, progress: Progress | None) -> Iterator[Look]:
    """Pass on and report each."""
    for done, look in enumerate(looks, start=1):
        yield look
        if progress:
            progress(done, total)


def tiles_to_read(slide: Slide, model: Model, tissue: TissueMask | None) -> list[Tile]:
    """Return the tiles that hold tissue, all of them where that is not known, in the order in which reading is fast."""
    part = model.bundle.description.detector
    scale = grid_scale(slide.spacing.x_um, part.spacing_um, part.spacing_tolerance)
    grid = (math.ceil(slide.width_px / scale), math.ceil(slide.height_px / scale))
    chosen = [
        tile
        for tile in tiles(*grid, part.tile_px, model.config.overlap)
        if tissue is None or tissue.touches(tile.x_px * scale, tile.y_px * scale, tile.side_px * scale)
    ]
    return by_bands(chosen, slide.band_px / scale)


def grid_scale(slide_um: float, network_um: float, tolerance: float) -> float:
    """Return level-0 pixels per grid pixel: 1 where the slide's spacing is near enough to the network's."""
    ratio = network_um / slide_um
    return 1.0 if abs(ratio - 1) <= tolerance else ratio


def read_haloed(slide: Slide, tile: Tile, scale: float) -> NDArray[np.uint8]:
    """Read a tile with ``HALO_PX`` grid pixels more on every side; white where the image ends."""
    side = tile.side_px + 2 * HALO_PX
    return slide.read((tile.x_px - HALO_PX) * scale, (tile.y_px - HALO_PX) * scale, side, side, scale)


def moved(rows: Detections, scale: float, offset_px: tuple[float, float]) -> Detections:
    """Return a copy whose boxes are scaled about the origin and then shifted by (x, y)."""
    out = rows.copy()
    for name, shift in (("x1", offset_px[0]), ("x2", offset_px[0]), ("y1", offset_px[1]), ("y2", offset_px[1])):
        out[name] = rows[name] * scale + shift
    return out


def inside(rows: Detections, images: NDArray[np.uint8], slide: Slide) -> tuple[Detections, NDArray[np.uint8]]:
    """Clip boxes to the slide and drop those whose centre lay in the padding, with their crops."""
    x, y = (rows["x1"] + rows["x2"]) / 2, (rows["y1"] + rows["y2"]) / 2
    keep = (x <= slide.width_px - 1) & (y <= slide.height_px - 1)
    rows = rows[keep]
    for name, length in (
        ("x1", slide.width_px),
        ("x2", slide.width_px),
        ("y1", slide.height_px),
        ("y2", slide.height_px),
    ):
        rows[name] = rows[name].clip(0, length - 1)
    return rows, images[keep]
