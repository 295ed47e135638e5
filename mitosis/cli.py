"""The command line: ``mitosis detect`` and ``mitosis evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mitosis import __version__
from mitosis.bundle import read_bundle
from mitosis.cache import default_cache
from mitosis.config import Config, read_config
from mitosis.cpu import Precision
from mitosis.errors import InputError
from mitosis.evaluation import evaluate, render
from mitosis.gpu import Device, build_engine, find_gpu
from mitosis.hotspot import DEFAULT_AREA_MM2, Shape
from mitosis.job import Job
from mitosis.labels import read_labels
from mitosis.output.gallery import write_gallery
from mitosis.pipeline import network_files
from mitosis.places import shipped
from mitosis.rerun import read_record
from mitosis.results import Options
from mitosis.terminal import run_command

DEFAULT_MODEL = shipped("model")

# Plain text: boxes would make the last line on stderr a frame, and cut options' names at 80 columns.
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Images = Annotated[
    list[Path] | None,
    typer.Argument(  # not checked here: an unreadable one fails by itself
        metavar="IMAGES", help="Images, folders, globs, or a CSV with a column 'path'", readable=False
    ),
]
Output = Annotated[Path, typer.Option(metavar="OUTPUT", help="Results go to OUTPUT/<image's stem>/")]
SpacingUm = Annotated[
    float | None,
    typer.Option(metavar="UM", help="Micrometres per pixel of images that do not say; 40x: about 0.25"),
]
BundleFolder = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the model bundle", show_default=False)]
OnDevice = Annotated[Device, typer.Option(help="Where the networks run")]
InPrecision = Annotated[
    Precision,
    typer.Option(
        help="Arithmetic on a CPU; auto: bf16 to search, where it has that, f32 to count (one look: all in bf16)"
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="YAML with thresholds, see resources/config.yaml; wins over the bundle's"),
]
Looks = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Stage 1's looks at a tile with candidates: 1 (fastest), 2 or 4; default: the bundle's"
    ),
]
HotspotArea = Annotated[float, typer.Option(metavar="MM2", help="Area of a hotspot in mm2", min=0.01, max=10_000)]
HotspotShape = Annotated[Shape, typer.Option(help="Outline of a hotspot; rectangles are 4:3")]
Hotspots = Annotated[int, typer.Option(metavar="N", help="How many hotspots to rank", min=1)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Repeat slides that are finished already")]
SkipGlass = Annotated[bool, typer.Option(help="Skip tiles of large slides that are empty glass")]
DrawOverlay = Annotated[bool, typer.Option(help="Draw overlay.png for images up to 64 megapixels")]
Report = Annotated[bool, typer.Option(help="Write report.html")]
Asap = Annotated[bool, typer.Option("--asap", help="Write asap.xml too, for the viewer ASAP")]
Parquet = Annotated[bool, typer.Option("--parquet", help="Write detections.parquet too (extra 'parquet')")]
Like = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="A run.json: its settings once more, and its image unless others are named"),
]
AdaptiveThreshold = Annotated[
    bool,
    typer.Option("--adaptive-threshold", help="Let the threshold follow each slide's stain, see docs/one-slide.md"),
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on a Dask cluster: tcp://host:port or its scheduler file")
]
Cache = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder for compiled networks; default: one among the temporary files"),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and debug messages")]


def show_version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def mitosis(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave", callback=show_version, is_eager=True)
    ] = False,
) -> None:
    """Find mitotic figures in H&E images. For research use, not for diagnosis."""


@app.command("detect")
def detect_command(
    context: typer.Context,
    output: Output,
    images: Images = None,
    spacing: SpacingUm = None,
    model: BundleFolder = DEFAULT_MODEL,
    device: OnDevice = Device.AUTO,
    precision: InPrecision = Precision.AUTO,
    config: ConfigFile = None,
    views: Looks = None,
    hotspot_area: HotspotArea = DEFAULT_AREA_MM2,
    hotspot_shape: HotspotShape = Shape.RECTANGLE,
    hotspots: Hotspots = 3,
    overwrite: Overwrite = False,
    tissue_mask: SkipGlass = True,
    overlay: DrawOverlay = True,
    report: Report = True,
    asap: Asap = False,
    parquet: Parquet = False,
    like: Like = None,
    adaptive_threshold: AdaptiveThreshold = False,
    scheduler: Scheduler = None,
    cache: Cache = None,
    debug: Debug = False,
) -> None:
    """Detect mitotic figures; each image gets a folder OUTPUT/<stem> that is complete by itself.

    It holds report.html (open it in a browser), mitotic-figures.json (the challenge's, in millimetres),
    detections.csv, detections.geojson and hotspots.geojson (drag them into QuPath), overlay.png, and run.json (what was
    done, with what). OUTPUT/summary.csv has a line for each slide. Started again after an interruption, finished slides
    are skipped.

    Example:  mitosis detect slide.svs cohort/ --output results

    """
    options = Options(
        spacing_um=spacing, overlay=overlay, hotspot_area_mm2=hotspot_area, hotspots=hotspots, report=report, asap=asap,
        tissue_mask=tissue_mask, hotspot_shape=hotspot_shape, parquet=parquet, adaptive_threshold=adaptive_threshold,
    )  # fmt: skip

    def run() -> None:
        if like:
            refuse_with_like(context)
        record, bundle = read_record(like) if like else None, read_bundle(model)
        usual = Config().at(bundle.description.operating_point)
        usual = read_config(config, usual) if config else usual
        job = Job(
            images=images or [], output=output, bundle=bundle, device=device, precision=precision,
            config=usual if views is None else usual.looking(views), options=options, overwrite=overwrite,
            scheduler=scheduler, cache=cache or default_cache(),
        )  # fmt: skip
        (job.like(record) if record else job).run()

    run_command(run, debug)


def refuse_with_like(context: typer.Context) -> None:
    """Raise InputError where an option is given that --like would silently overrule."""
    free = {"images", "output", "model", "device", "precision", "overwrite", "like", "scheduler", "cache", "debug"}
    for name in context.params.keys() - free:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            raise InputError(f"--{name.replace('_', '-')} contradicts --like, which settles it; leave one of them out")


@app.command("evaluate")
def evaluate_command(
    predictions: Annotated[Path, typer.Option(metavar="DIR", help="What `mitosis detect --output` wrote")],
    labels: Annotated[Path, typer.Option(metavar="FILE", help="Labels in MIDOG++'s JSON form")],
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Only images of this split, e.g. test")] = None,
    gallery: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for pictures: hits, false alarms and misses drawn on each image"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the images, for --gallery, where they have moved since"),
    ] = None,
    debug: Debug = False,
) -> None:
    """Score detections as the challenge does: matches within 7.5 um, summed over images.

    Example:  mitosis evaluate --predictions results --labels frames.json --split test

    """

    def run() -> None:
        labelled = read_labels(labels, split)
        Console(markup=False, emoji=False).print(render(evaluate(predictions, labelled)))
        if gallery:
            write_gallery(gallery, predictions, labelled, images)
            typer.echo(f"pictures: {gallery / 'cells.png'} and one of each image beside it")

    run_command(run, debug)


@app.command("build-engine")
def build_engine_command(
    model: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the model bundle; engines go to DIR/engines")
    ] = DEFAULT_MODEL,
    debug: Debug = False,
) -> None:
    """Build TensorRT engines on this machine's NVIDIA card. Needed once per kind of card; never run by us.

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
