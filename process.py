"""Grand Challenge's entry point: one case from /input to /output; or, without inputs.json, every image in /input.

Locally:  python process.py --input test/input/interf0 --output /tmp/out
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from mitosis.config import one_line
from mitosis.cpu import CpuUse
from mitosis.errors import InputError
from mitosis.gpu import Device
from mitosis.inputs import images_in
from mitosis.output.atomic import remove
from mitosis.output.grand_challenge import FILE_NAME
from mitosis.pipeline import Model, load_model
from mitosis.results import Options, process_case, process_slides
from mitosis.serving import PORT, CaseServer
from mitosis.spacing import fallback
from mitosis.terminal import run_command

log = logging.getLogger("process")

SLUG = "histopathology-region-of-interest-cropout"
CASE_SUFFIXES = (".tif", ".tiff", ".mha")
PLATFORM_MODEL = Path("/opt/ml/model")  # where the platform unpacks a model tarball; wins over the bundle in the image
OWN_MODEL = Path(__file__).parent / "model"
SERVES = os.environ.get("MITOSIS_API_METHOD") == "invoke"  # what the image was built for


def case_image(folder: Path) -> Path:
    """Return the one image of a challenge case; raises InputError when inputs.json does not lead to exactly one."""
    description = folder / "inputs.json"
    try:
        sockets = json.loads(description.read_text())
        found: dict[str, Path] = {
            value["interface"]["slug"]: folder / value["interface"]["relative_path"] for value in sockets
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{description}: is no list of inputs ({one_line(error)}); send the case again") from error
    if SLUG not in found:
        raise InputError(f"{description}: has no input '{SLUG}' but {sorted(found)}; configure that interface")
    place = found[SLUG]
    images = sorted(p for p in place.glob("*") if p.suffix.lower() in CASE_SUFFIXES)
    if len(images) != 1:
        names = ", ".join(p.name for p in images) or "none"
        raise InputError(
            f"{place}: needs exactly one of {', '.join(CASE_SUFFIXES)}, found {names}; send the case again"
        )
    return images[0]


def process(folder: Path, output: Path, model: Model, spacing_um: float | None) -> None:
    """Process whatever ``folder`` holds, a challenge case or images.

    ``spacing_um`` is for images that state none; SpacingError where one states another.
    """
    if (folder / "inputs.json").exists():
        process_one(folder, output, model, spacing_um)
    else:
        process_slides(images_in(folder), output, model, Options(spacing_um=spacing_um))


def process_one(folder: Path, output: Path, model: Model, spacing_um: float | None) -> None:
    """Process the challenge case that ``folder`` holds now. A failed one leaves no earlier one's result."""
    remove(output / FILE_NAME)
    process_case(case_image(folder), output / FILE_NAME, model, fallback(spacing_um))


def default_model() -> Path:
    """Return the platform's model folder unless it is empty or absent, else the bundle that came with this program.

    A tarball that is no bundle must not silently give way to the built-in one, so any file in the folder counts.
    """
    return PLATFORM_MODEL if PLATFORM_MODEL.is_dir() and any(PLATFORM_MODEL.iterdir()) else OWN_MODEL


def main(
    input_: Annotated[Path, typer.Option("--input", help="A challenge case, or a folder of images")] = Path("/input"),
    output: Annotated[Path, typer.Option(help="Where results go")] = Path("/output"),
    model: Annotated[Path | None, typer.Option(help="Bundle; default /opt/ml/model, else the one built in")] = None,
    spacing: Annotated[
        float | None,
        typer.Option(
            help="Micrometres per pixel of images that do not say",
            envvar="MITOSIS_SPACING_UM",
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="Where the networks run")] = Device.AUTO,
    serve: Annotated[bool, typer.Option(help=f"Stay up: GET /health, POST /invoke on port {PORT}")] = SERVES,
    port: Annotated[int, typer.Option(help="For --serve")] = PORT,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for compiled networks; default: they are not kept", envvar="MITOSIS_CACHE"),
    ] = None,
    debug: Annotated[bool, typer.Option(help="Show tracebacks")] = False,
) -> None:
    """Find mitotic figures in a challenge case, or in every image of a folder."""

    def run() -> None:
        remove(output / FILE_NAME)  # first of all: whatever fails, no earlier case's result is left
        if not serve and not input_.is_dir():  # said before the seconds that loading takes
            raise InputError(f"{input_}: no such folder; mount one there or pass --input")
        loaded = load_model(model or default_model(), device, use=CpuUse(cache=cache))
        if serve:
            CaseServer(lambda: process_one(input_, output, loaded, spacing), port=port).serve_forever()
        else:
            process(input_, output, loaded, spacing)

    run_command(run, debug)


if __name__ == "__main__":
    # Plain text: the platform shows the last line on stderr, and of a box that is its frame.
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(main)
    app()
