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
from mitosis.evaluation import evaluate, render
from mitosis.gpu import Device, build_engine, find_gpu
from mitosis.hotspot import DEFAULT_AREA_MM2
from mitosis.labels import read_labels
from mitosis.pipeline import load_model, network_shapes
from mitosis.results import Options, find_slides, process_slides
from mitosis.terminal import run_command

DEFAULT_MODEL = Path(__file__).parents[1] / "model"

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
    images: Annotated[
        list[Path],
        typer.Argument(help="Images, folders, globs, or a CSV with a column 'path'"),
    ],
    output: Annotated[Path, typer.Option(help="Results go to OUTPUT/<image's stem>/")],
    spacing: Annotated[
        float | None, typer.Option(help="Micrometres per pixel; needed where the file does not say (40x: about 0.25)")
    ] = None,
    model: Annotated[Path, typer.Option(help="Folder of the model bundle")] = DEFAULT_MODEL,
    device: Annotated[Device, typer.Option(help="Where the networks run")] = Device.AUTO,
    config: Annotated[
        Path | None, typer.Option(help="YAML with thresholds, see resources/config.yaml; wins over the bundle's")
    ] = None,
    hotspot_area: Annotated[float, typer.Option(help="Area of a hotspot in mm2", min=0.01)] = DEFAULT_AREA_MM2,
    hotspots: Annotated[int, typer.Option(help="How many hotspots to rank", min=0)] = 3,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Repeat slides that are finished already")] = False,
    tissue_mask: Annotated[bool, typer.Option(help="Skip tiles of large slides that are empty glass")] = True,
    overlay: Annotated[bool, typer.Option(help="Draw overlay.png for images up to 64 megapixels")] = True,
    report: Annotated[bool, typer.Option(help="Write report.html")] = True,
    asap: Annotated[bool, typer.Option("--asap", help="Write asap.xml too, for the viewer ASAP")] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for compiled networks; default: one among the temporary files")
    ] = None,
    debug: Annotated[bool, typer.Option(help="Show tracebacks and debug messages")] = False,
) -> None:
    """Detect mitotic figures; each image gets a folder OUTPUT/<stem> that is complete by itself.

    It holds report.html (open it in a browser), mitotic-figures.json (the challenge's, in millimetres),
    detections.csv, detections.geojson and hotspots.geojson (drag them into QuPath), overlay.png, and run.json (what was
    done, with what). Started again after an interruption, finished slides are skipped.

    Example:  mitosis detect slide.svs cohort/ --output results

    """

    def run() -> None:
        paths = find_slides(images)
        loaded = load_model(model, device, read_config(config) if config else None, cache or default_cache())
        options = Options(spacing, overlay, hotspot_area, hotspots, report, asap, tissue_mask)
        process_slides(paths, output, loaded, options, overwrite)

    run_command(run, debug)


@app.command("evaluate")
def evaluate_command(
    predictions: Annotated[Path, typer.Option(help="What `mitosis detect --output` wrote")],
    labels: Annotated[Path, typer.Option(help="Labels in MIDOG++'s JSON form")],
    split: Annotated[str | None, typer.Option(help="Only images of this split, e.g. test")] = None,
    debug: Annotated[bool, typer.Option(help="Show tracebacks and debug messages")] = False,
) -> None:
    """Score detections as the challenge does: matches within 7.5 um, summed over images.

    Example:  mitosis evaluate --predictions results --labels frames.json --split test

    """
    run_command(lambda: Console().print(render(evaluate(predictions, read_labels(labels, split)))), debug)


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
        for file, shape in network_shapes(bundle, Config()):
            typer.echo(build_engine(file, shape, gpu))

    run_command(run, debug)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
