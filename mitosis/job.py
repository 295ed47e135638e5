"""What one call of ``mitosis detect`` is to do, and the doing of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mitosis.adaptive import adaptive_part
from mitosis.bundle import Bundle
from mitosis.cluster import process_on_cluster
from mitosis.cluster_worker import Recipe
from mitosis.config import Config
from mitosis.cpu import CpuUse, Precision
from mitosis.errors import InputError
from mitosis.gpu import Device
from mitosis.inputs import find_slides
from mitosis.output.table import check_parquet
from mitosis.pipeline import load_model
from mitosis.provenance import runtime_of
from mitosis.rerun import Record
from mitosis.results import Options, process_slides


@dataclass(frozen=True)
class Job:
    """Images, networks and settings. ``record`` is the run that is done once more, if one is."""

    images: list[Path]
    output: Path
    bundle: Bundle
    device: Device
    precision: Precision
    config: Config
    options: Options
    overwrite: bool
    scheduler: str | None
    cache: Path
    record: Record | None = None

    def like(self, record: Record) -> Job:
        """Return the job with a record's settings, and its image where none is named; raises BundleError, InputError.

        A device or a precision that was asked for stays.
        """
        record.check_bundle(self.bundle)
        precision, device = self.precision, self.device
        if record.on_cpu and device is Device.AUTO:
            device = Device.CPU
        if record.on_cpu and device is Device.CPU and precision is Precision.AUTO:
            precision = record.precision
        images = self.images or [record.checked_image()]
        return replace(
            self, images=images, device=device, precision=precision, config=record.config, options=record.options,
            record=record,
        )  # fmt: skip

    def run(self) -> None:
        """Fill all slides' folders; raises MitosisError."""
        paths = find_slides(self.images)
        if not paths:
            raise InputError("no image is named; name images, folders, globs or a CSV with a column 'path'")
        if self.record:
            self.record.check_apart(self.output / path.stem for path in paths)
        if self.options.parquet:
            check_parquet()
        if self.options.adaptive_threshold:
            adaptive_part(self.bundle)
        folder = self.bundle.folder
        if self.scheduler:
            recipe = Recipe.of(folder, self.device, self.config, self.precision, self.cache)
            process_on_cluster(self.scheduler, paths, self.output, recipe, self.options, self.overwrite)
            if self.record:
                self.record.check_written(self.output / path.stem for path in paths)
        else:
            model = load_model(folder, self.device, self.config, CpuUse(self.precision, cache=self.cache))
            if self.record:
                self.record.check_runtime(runtime_of(model))
            process_slides(paths, self.output, model, self.options, self.overwrite)
        if self.record:
            for path in filter(self.record.shows, paths):
                self.record.compare(self.output / path.stem)
