"""Writes the model bundle: both networks as ONNX with half-precision storage, and ``bundle.yaml``.

python -m training.export --run runs/first --output model
"""

from __future__ import annotations

import hashlib
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
from torch import nn

from mitosis.bundle import DESCRIPTION, Description
from training.data.crops import CONTEXT
from training.mine_candidates import TILE_PX, load_detector
from training.networks.convnext import CLASSES, IMAGENET_MEAN, IMAGENET_STD, INPUT_PX, MeanOfViews, MitosisClassifier
from training.warm_start import save_parameters

OPSET = 17
SPACING_UM = 0.25
SPACING_TOLERANCE = 0.15  # the magnification jitter of the training covers it (0.22 to 0.29 um a pixel)
SMALL = 1024  # initialisers with fewer values stay in single precision: biases and norms cost nothing


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


def describe_part(path: Path, architecture: str, **fields: Any) -> dict[str, Any]:
    """Return the part of ``bundle.yaml`` that speaks of one file."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"file": path.name, "sha256": digest, "architecture": architecture, **fields}


def main(
    run: Annotated[Path, typer.Option(help="Folder with detector.pt and classifier.pt")],
    output: Annotated[Path, typer.Option(help="The bundle's folder; written whole, replacing an older bundle")],
    name: str = "mitosis-default",
    version: str = "0.1.0",
) -> None:
    """Export both networks and describe them."""
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    saved = torch.load(run / "detector.pt", map_location="cpu", weights_only=True)
    classifier, architecture = load_classifier(run)
    save_parameters(partial, {"detector": saved["average"], "classifier": classifier.state_dict()})
    detector = RawCandidates(load_detector(run).to(memory_format=torch.contiguous_format).fuse(verbose=False))
    export_onnx(detector, (1, 3, TILE_PX, TILE_PX), partial / "detector.onnx")
    export_onnx(MeanOfViews(classifier), (1, 3, INPUT_PX, INPUT_PX), partial / "classifier.onnx")
    for file in ("detector.onnx", "classifier.onnx"):
        store_half(partial / file)
    description = {
        "format": 1,
        "name": name,
        "version": version,
        "licence": "AGPL-3.0-only",
        "training_data": "MITOS-ATYPIA-14 (Hamamatsu, cases H03 H04 H05 H14 H17); AMi-Br and AtNorM-MD patches",
        "class_names": list(CLASSES),
        "detector": describe_part(
            partial / "detector.onnx",
            f"yolo11{saved['scale']} {saved['variant']}",
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
    }
    Description.model_validate(description)
    (partial / DESCRIPTION).write_text(yaml.safe_dump(description, sort_keys=False))
    shutil.rmtree(output, ignore_errors=True)
    partial.rename(output)
    for written in sorted(output.iterdir()):
        print(f"{written}  {written.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
