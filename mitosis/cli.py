"""The command line: ``mitosis detect`` and ``mitosis evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mitosis import __version__
from mitosis.adaptive import adaptive_part
from mitosis.bundle import read_bundle
from mitosis.cache import default_cache
from mitosis.cluster import Recipe, process_on_cluster
from mitosis.config import Config, read_config
from mitosis.cpu import CpuUse, Precision
from mitosis.errors import InputError
from mitosis.evaluation import evaluate, render
from mitosis.gpu import Device, build_engine, find_gpu
from mitosis.hotspot import DEFAULT_AREA_MM2, Shape
from mitosis.inputs import find_slides
from mitosis.labels import read_labels
from mitosis.output.gallery import write_gallery
from mitosis.output.table import check_parquet
from mitosis.pipeline import load_model, network_files
from mitosis.places import shipped
from mitosis.rerun import read_record
from mitosis.results import Options, process_slides
from mitosis.terminal import run_command

DEFAULT_MODEL = shipped("model")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def mitosis(
    version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True)] = False,
) -> None:
    """Find mitotic figures in H&E images. For research use, not for diagnosis."""


@app.command("detect")
def detect_command(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Results go to OUTPUT/<image's stem>/")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Images, folders, globs, or a CSV with a column 'path'")
    ] = None,
    spacing: Annotated[
        float | None,
        typer.Option(help="Micrometres per pixel of images that do not say; 40x: about 0.25"),
    ] = None,
    model: Annotated[Path, typer.Option(help="Folder of the model bundle")] = DEFAULT_MODEL,
    device: Annotated[Device, typer.Option(help="Where the networks run")] = Device.AUTO,
    precision: Annotated[
        Precision, typer.Option(help="Arithmetic on a CPU; auto: bf16 where it has that, else f32")
    ] = Precision.AUTO,
    config: Annotated[
        Path | None, typer.Option(help="YAML with thresholds, see resources/config.yaml; wins over the bundle's")
    ] = None,
    hotspot_area: Annotated[float, typer.Option(help="Area of a hotspot in mm2", min=0.01)] = DEFAULT_AREA_MM2,
    hotspot_shape: Annotated[Shape, typer.Option(help="Outline of a hotspot; rectangles are 4:3")] = Shape.RECTANGLE,
    hotspots: Annotated[int, typer.Option(help="How many hotspots to rank", min=0)] = 3,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Repeat slides that are finished already")] = False,
    tissue_mask: Annotated[bool, typer.Option(help="Skip tiles of large slides that are empty glass")] = True,
    overlay: Annotated[bool, typer.Option(help="Draw overlay.png for images up to 64 megapixels")] = True,
    report: Annotated[bool, typer.Option(help="Write report.html")] = True,
    asap: Annotated[bool, typer.Option("--asap", help="Write asap.xml too, for the viewer ASAP")] = False,
    parquet: Annotated[bool, typer.Option("--parquet", help="Write detections.parquet too (extra 'parquet')")] = False,
    like: Annotated[
        Path | None, typer.Option(help="A run.json: its settings once more, and its image unless others are named")
    ] = None,
    adaptive_threshold: Annotated[
        bool,
        typer.Option("--adaptive-threshold", help="Let the threshold follow each slide's stain, see docs/one-slide.md"),
    ] = False,
    scheduler: Annotated[
        str | None, typer.Option(help="Run on a Dask cluster: tcp://host:port or its scheduler file")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for compiled networks; default: one among the temporary files")
    ] = None,
    debug: Annotated[bool, typer.Option(help="Show tracebacks and debug messages")] = False,
) -> None:
    """Detect mitotic figures; each image gets a folder OUTPUT/<stem> that is complete by itself.

    It holds report.html (open it in a browser), mitotic-figures.json (the challenge's, in millimetres),
    detections.csv, detections.geojson and hotspots.geojson (drag them into QuPath), overlay.png, and run.json (what was
    done, with what). OUTPUT/summary.csv has a line for each slide. Started again after an interruption, finished slides
    are skipped.

    Example:  mitosis detect slide.svs cohort/ --output results

    """

    def run() -> None:
        options = Options(
            spacing,
            overlay,
            hotspot_area,
            hotspots,
            report,
            asap,
            tissue_mask,
            hotspot_shape,
            parquet,
            adaptive_threshold,
        )
        settings = read_config(config) if config else None
        record = read_record(like) if like else None
        if record:
            refuse_with_like(context)
            settings, options = record.config, record.options
        paths = find_slides(images or ([record.checked_image()] if record else []))
        if not paths:
            raise InputError("no image is named; name images, folders, globs or a CSV with a column 'path'")
        if options.parquet:
            check_parquet()
        if options.adaptive_threshold:
            adaptive_part(read_bundle(model))
        if scheduler:
            process_on_cluster(
                scheduler, paths, output, Recipe.of(model, device, settings, precision), options, overwrite
            )
            return
        loaded = load_model(model, device, settings, CpuUse(precision, cache=cache or default_cache()))
        if record:
            record.check_model(loaded)
        process_slides(paths, output, loaded, options, overwrite)
        if record and not images:
            record.compare(output / record.image.stem)

    run_command(run, debug)


def refuse_with_like(context: typer.Context) -> None:
    """Raise InputError where an option is given that --like would silently overrule."""
    free = {"images", "output", "model", "device", "overwrite", "like", "scheduler", "debug"}
    for name in context.params.keys() - free:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise InputError(f"--{name.replace('_', '-')} contradicts --like, which settles it; leave one of them out")


@app.command("evaluate")
def evaluate_command(
    predictions: Annotated[Path, typer.Option(help="What `mitosis detect --output` wrote")],
    labels: Annotated[Path, typer.Option(help="Labels in MIDOG++'s JSON form")],
    split: Annotated[str | None, typer.Option(help="Only images of this split, e.g. test")] = None,
    gallery: Annotated[
        Path | None, typer.Option(help="Folder for pictures: hits, false alarms and misses drawn on each image")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, for --gallery, where they have moved since")
    ] = None,
    debug: Annotated[bool, typer.Option(help="Show tracebacks and debug messages")] = False,
) -> None:
    """Score detections as the challenge does: matches within 7.5 um, summed over images.

    Example:  mitosis evaluate --predictions results --labels frames.json --split test

    """

    def run() -> None:
        labelled = read_labels(labels, split)
        Console().print(render(evaluate(predictions, labelled)))
        if gallery:
            write_gallery(gallery, predictions, labelled, images)
            typer.echo(f"pictures: {gallery / 'cells.png'} and one of each image beside it")

    run_command(run, debug)


@app.command("build-engine")
def build_engine_command(
    model: Annotated[
        Path, typer.Option(help="Folder of the model bundle; engines go to MODEL/engines")
    ] = DEFAULT_MODEL,
    debug: Annotated[bool, typer.Option(help="Show tracebacks and debug messages")] = False,
) -> None:
    """Build TensorRT engines on this machine's NVIDIA card. Needed once per kind of card; not run on a GPU by us.

    Example:  mitosis build-engine --model model

    """

    def run() -> None:
        bundle, gpu = read_bundle(model), find_gpu()
        for network in network_files(bundle, Config()):
            typer.echo(build_engine(network, gpu))

    run_command(run, debug)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
