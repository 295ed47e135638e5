"""Writes the model bundle: its networks as ONNX with half-precision storage, and ``bundle.yaml``.

python -m training.export --run runs/first --data ../shared/data --output model
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
import yaml
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mitosis.bundle import DESCRIPTION, Description, read_bundle
from mitosis.errors import InputError
from training.data.crops import CONTEXT
from training.data.images import SPACING_TOLERANCE, SPACING_UM
from training.mine_candidates import TILE_PX, load_detector
from training.networks.convnext import CLASSES, IMAGENET_MEAN, IMAGENET_STD, INPUT_PX, MeanOfViews, MitosisClassifier
from training.warm_start import SMALL, Stage, mean_with_bundle, save_parameters

OPSET = 17
MAKERS = {"detector.pt": "training.train_detector", "classifier.pt": "training.train_classifier"}


def export_onnx(model: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Write a network as ONNX with a free batch size; batch normalisation is folded into the convolutions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer warns of Python branches on shapes, which are fixed here
        torch.onnx.export(
            model,
            (torch.zeros(shape),),
            str(path),
            input_names=["images"],
            output_names=["output"],
            dynamic_axes={"images": {0: "batch"}, "output": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def store_half(path: Path) -> None:
    """Store large weights in half precision, each cast back when loaded: half the size, arithmetic unchanged.

    Runtimes fold the casts, so nothing is slower; the weights are rounded to 11 bits, which is what the parity test
    measures.
    """
    model = onnx.load(path)
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < SMALL or np.abs(values).max() > 6e4:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def load_classifier(run: Path) -> tuple[MitosisClassifier, str]:
    """Rebuild the trained classifier with its averaged weights, and return its architecture's name."""
    saved = torch.load(run / "classifier.pt", map_location="cpu", weights_only=True)
    model = MitosisClassifier(saved["architecture"])
    model.load_state_dict(saved["average"])
    return model.eval(), saved["architecture"]


class RawCandidates(nn.Module):
    """The detector with its decoded candidates as the only output: (B, 5, n)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        model.model[-1].export = True  # type: ignore[index, union-attr]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in 0..1 -> (B, 5, n)."""
        out: torch.Tensor = self.model(x)
        return out


def export_detector(run: Path, mean_with: Path | None, stage: Stage, path: Path) -> tuple[dict[str, Tensor], str]:
    """Write a run's detector, or the mean of it and a bundle's; return its parameters and its architecture."""
    model = load_detector(run)
    if mean_with:
        model.load_state_dict(mean_with_bundle(model.state_dict(), mean_with, stage))
    parameters = {name: value.clone() for name, value in model.state_dict().items()}
    detector = RawCandidates(model.to(memory_format=torch.contiguous_format).fuse(verbose=False))
    export_onnx(detector, (1, 3, TILE_PX, TILE_PX), path)
    store_half(path)
    return parameters, model.architecture


def describe_part(path: Path, architecture: str, **fields: Any) -> dict[str, Any]:
    """Return the part of ``bundle.yaml`` that speaks of one file."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"file": path.name, "sha256": digest, "architecture": architecture, **fields}


def check_replaceable(folder: Path) -> None:
    """Refuse a folder with anything but a bundle in it, for it would be deleted. Raises InputError."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the bundle with --output")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DESCRIPTION).is_file():
        raise InputError(
            f"{folder}: holds files but no {DESCRIPTION}, so it is no bundle to replace; choose another --output"
        )


def check_trained(run: Path, *files: str) -> None:
    """Raise InputError where a run lacks one of the files."""
    for name in files:
        if not (run / name).is_file():
            raise InputError(f"{run / name}: not there; {MAKERS[name]} makes it, or copy that of another run")


def training_data(data: Path | None, start: Path | None) -> str:
    """Say what the networks learnt from, as far as it is known.

    Args:
        data: folder that they were trained on, whose ``windows.json`` may describe it.
        start: bundle that the training began from; what it learnt from is in the weights too.

    """
    said = json.loads((data / "windows.json").read_text()).get("info", {}).get("description") if data else None
    text = str(said or "not stated")
    if start:
        old = read_bundle(start).description
        text += f"; started from {old.name} {old.version}: {old.training_data}"
    return text


def main(
    run: Annotated[Path, typer.Option(help="Folder with detector.pt and classifier.pt")],
    output: Annotated[Path, typer.Option(help="The bundle's folder; written whole, replacing an older bundle")],
    name: str = "mitosis-default",
    version: str = "0.1.0",
    data: Annotated[
        Path | None, typer.Option(help="Folder that was trained on; its windows.json says what it is")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="The bundle that the training started from, if any")] = None,
    mean_with: Annotated[
        Path | None, typer.Option(help="A bundle that the training started from: the mean of both detectors is written")
    ] = None,
    second_look: Annotated[
        Path | None, typer.Option(help="Run of a larger detector, for all looks at a tile but the first")
    ] = None,
    mean_second_look_with: Annotated[Path | None, typer.Option(help="As --mean-with, for the larger detector")] = None,
    second_look_share: Annotated[
        float | None,
        typer.Option(help="The larger detector's share of the mean of all looks, up to 1; else each look counts alike"),
    ] = None,
    about_data: Annotated[
        str | None, typer.Option("--training-data", help="What was trained on, in words; in place of --data, --start")
    ] = None,
) -> None:
    """Export the networks and describe them."""
    if mean_second_look_with and not second_look:
        raise typer.BadParameter("--mean-second-look-with needs --second-look, the run to take the mean of")
    if second_look_share is not None and not (second_look and 0 < second_look_share <= 1):
        raise typer.BadParameter("--second-look-share is above 0 and up to 1, and needs --second-look")
    check_replaceable(output)
    check_trained(run, "detector.pt", "classifier.pt")
    if second_look:
        check_trained(second_look, "detector.pt")
    learnt_from = about_data or training_data(data, start)
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    classifier, architecture = load_classifier(run)
    parameters: dict[Stage, dict[str, Tensor]] = {"classifier": classifier.state_dict()}
    file = partial / "detector.onnx"
    parameters["detector"], detector = export_detector(run, mean_with, "detector", file)
    export_onnx(MeanOfViews(classifier), (1, 3, INPUT_PX, INPUT_PX), partial / "classifier.onnx")
    store_half(partial / "classifier.onnx")
    larger: dict[str, Any] = {}
    if second_look:
        larger_file = partial / "second-look.onnx"
        parameters["second_look"], name_of_larger = export_detector(
            second_look, mean_second_look_with, "second_look", larger_file
        )
        weighed = {} if second_look_share is None else {"share": second_look_share}
        larger["second_look"] = describe_part(larger_file, name_of_larger, **weighed)
    save_parameters(partial, parameters)
    description = {
        "format": 1,
        "name": name,
        "version": version,
        "licence": "AGPL-3.0-only",
        "training_data": learnt_from,
        "class_names": list(CLASSES),
        "detector": describe_part(
            file,
            detector,
            tile_px=TILE_PX,
            spacing_um=SPACING_UM,
            spacing_tolerance=SPACING_TOLERANCE,
        ),
        "classifier": describe_part(
            partial / "classifier.onnx",
            architecture,
            input_px=INPUT_PX,
            context=CONTEXT,
            mean=list(IMAGENET_MEAN),
            std=list(IMAGENET_STD),
        ),
    } | larger
    Description.model_validate(description)
    (partial / DESCRIPTION).write_text(yaml.safe_dump(description, sort_keys=False))
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)
    print(f"training data: {learnt_from}")
    for written in sorted(output.iterdir()):
        print(f"{written}  {written.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
