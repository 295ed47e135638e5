"""Quantises a bundle's detectors to 8-bit integers after training, with NNCF, calibrated on training windows.

    python -m training.quantise --bundle model --data ../shared/data --output model-int8
    python -m benchmarks.precision --data ../shared/data --model model --model model-int8

Only convolutions of 3 x 3 and 7 x 7 become integers. Those of 1 x 1, sigmoids, the detect head, and what the improved
network multiplies pixel by pixel (EMA and the aggregation of LSConv) stay as they were: they cost little and lose most.
The classifier, which sees a handful of crops, stays whole. The result is an ordinary bundle; its thresholds and
calibration are the old ones, so measure it.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import nncf
import numpy as np
import onnx
import onnxruntime
import typer
import yaml
from numpy.typing import NDArray
from onnx import ModelProto

from mitosis.bundle import DESCRIPTION, Description, read_bundle
from mitosis.cpu import OpenVinoNetwork
from mitosis.errors import BundleError
from mitosis.network import NetworkFile, prepare_pixels
from training.data.images import LabelledWindow, load_windows
from training.export import check_replaceable, store_half

logging.getLogger("nncf").setLevel(logging.WARNING)  # it names every layer that it leaves alone

ATTENTION = ("/attn/", "/attention/")  # EMA, in the names of its nodes
SUFFIX = "int8"
CHECKED_TILES, LARGEST_CHANGE = 8, 0.5  # of a score: beyond it the network computes something else

Batch = NDArray[np.float32]


def simplified(path: Path) -> ModelProto:
    """Load a network with a batch of 1 and everything constant computed: the quantiser must see weights.

    Half-precision storage, folded norms and attention's block matrices all become plain constants. The batch is fixed,
    since integers with a free shape crash OpenVINO on CPUs with AMX (openvino#37577).
    """
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / "simplified.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.shape_inference.infer_shapes(onnx.load(options.optimized_model_filepath))


def calibration_tiles(windows: list[LabelledWindow], side_px: int, count: int) -> Iterator[Batch]:
    """Yield a tile (1, 3, side, side) from a random place of each of ``count`` windows."""
    rng = np.random.default_rng(0)
    for index in rng.permutation(len(windows))[:count]:
        rgb = windows[index].rgb
        y, x = (int(rng.integers(0, length - side_px + 1)) for length in rgb.shape[:2])
        yield prepare_pixels(rgb[None, y : y + side_px, x : x + side_px])


def head_nodes(model: ModelProto) -> list[str]:
    """Return the names of the detect head's nodes: those of the last numbered layer of the network."""
    numbered = [(layer_number(node.name), node.name) for node in model.graph.node]
    last = max(number for number, _ in numbered)
    return [name for number, name in numbered if number == last]


def layer_number(name: str) -> int:
    """Return the layer that a node of the exported YOLO belongs to, -1 for none: ``/model/model.23/cv2/..`` is 23."""
    for part in name.split("/"):
        if part.startswith("model.") and part.removeprefix("model.").isdigit():
            return int(part.removeprefix("model."))
    return -1


def pointwise_nodes(model: ModelProto) -> list[str]:
    """Return the names of the 1 x 1 convolutions.

    In 8 bits they move scores by up to 0.49 (YOLO11s, bundle 0.10.0; 0.04 the others), and OpenVINO 2026.4 has no
    implementation of some beside bf16: "No suitable implementations" at load.
    """
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv" and any(a.name == "kernel_shape" and set(a.ints) == {1} for a in node.attribute)
    ]


def quantise(model: ModelProto, tiles: list[Batch]) -> ModelProto:
    """Return the model with 8-bit convolutions of 3 x 3 and 7 x 7."""
    others = sorted({node.op_type for node in model.graph.node} - {"Conv"})  # a rounded variance has no inverse root
    attention = [node.name for node in model.graph.node if any(part in node.name for part in ATTENTION)]
    names = {*head_nodes(model), *pointwise_nodes(model), *attention}
    ignored = nncf.IgnoredScope(names=sorted(names), types=others, validate=False)
    name = model.graph.input[0].name
    return nncf.quantize(  # type: ignore[no-any-return]
        model,
        nncf.Dataset(tiles, lambda tile: {name: tile}),
        preset=nncf.QuantizationPreset.MIXED,  # SiLU is not symmetric
        subset_size=len(tiles),
        ignored_scope=ignored,
    )


def integer_convolutions(model: ModelProto) -> int:
    """Count the convolutions whose input and weights are integers."""
    restored = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return sum(node.op_type == "Conv" and restored.issuperset(node.input[:2]) for node in model.graph.node)


def largest_score_change(before: Path, after: Path, tiles: list[Batch]) -> float:
    """Run both detectors as inference will, and return the largest difference of a score; NaN where one has NaN."""
    scores = []
    for file in (before, after):
        network = OpenVinoNetwork(NetworkFile(file, tiles[0].shape))
        scores.append(np.concatenate([raw[0, 4] for _, raw in network.map((None, tile) for tile in tiles)]))
    return float(np.abs(scores[0] - scores[1]).max())


def quantised_part(file: Path, tiles: list[Batch]) -> ModelProto:
    """Return one of a bundle's detectors in 8 bits and say what that did; raises BundleError where it ruins it."""
    quantised = quantise(simplified(file), tiles)
    with TemporaryDirectory() as folder:
        trial = Path(folder) / file.name
        onnx.save(quantised, trial)
        change = largest_score_change(file, trial, tiles[:CHECKED_TILES])
    if not change < LARGEST_CHANGE:  # NaN, too
        raise BundleError(f"{file}: a score changed by {change:.2f}; this network cannot be quantised so")
    layers, integer = sum(node.op_type == "Conv" for node in quantised.graph.node), integer_convolutions(quantised)
    print(f"{file.name}: {integer} of {layers} convolutions in 8 bits; scores change by {change:.2f} at most")
    return quantised


def write_bundle(source: Path, target: Path, detectors: dict[str, ModelProto]) -> None:
    """Copy a bundle with other detectors, by their keys in the description."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shutil.copy(read_bundle(source).classifier_file, partial)
    description = yaml.safe_load((source / DESCRIPTION).read_text())
    description["name"] += f"-{SUFFIX}"
    description.pop("metrics", None)  # those of other weights
    for key, model in detectors.items():
        part = description[key]
        path = partial / part["file"]
        onnx.save(model, path)
        store_half(path)  # what stayed real numbers
        part["architecture"] += f" {SUFFIX}"
        part["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    Description.model_validate(description)
    (partial / DESCRIPTION).write_text(yaml.safe_dump(description, sort_keys=False))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def main(
    bundle: Annotated[Path, typer.Option(help="The bundle to quantise")],
    data: Annotated[Path, typer.Option(help="Folder with windows.json and windows/")],
    output: Annotated[Path, typer.Option(help="The new bundle's folder; replaces an older one")],
    count: Annotated[int, typer.Option(help="Training windows to calibrate on")] = 300,
) -> None:
    """Write a bundle with 8-bit detectors."""
    check_replaceable(output)
    found = read_bundle(bundle)
    tiles = list(calibration_tiles(load_windows(data), found.description.detector.tile_px, count))
    detectors = {"detector": quantised_part(found.detector_file, tiles)}
    if found.second_look_file:
        detectors["second_look"] = quantised_part(found.second_look_file, tiles)
    write_bundle(bundle, output, detectors)
    before, after = (sum(f.stat().st_size for f in folder.glob("*.onnx")) / 1e6 for folder in (bundle, output))
    print(f"{output}: {before:.1f} -> {after:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
