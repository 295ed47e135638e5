"""A quantised bundle is an ordinary bundle, computes in integers, and still finds what it found."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import openvino
import pytest

from mitosis.bundle import read_bundle
from mitosis.config import Config
from mitosis.detections import centres_px
from mitosis.errors import InputError
from mitosis.pipeline import detect, load_model
from mitosis.slide import open_slide
from training.quantise import integer_convolutions, layer_number, main

sys.path.insert(0, str(Path(__file__).parents[1]))
from make_case import PLACE, Plan, draw, labels

WINDOWS, WINDOW_PX = 6, 704


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training data of drawn windows."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "windows").mkdir()
    document: dict[str, list] = {"images": [], "annotations": []}  # type: ignore[type-arg]
    for seed in range(WINDOWS):
        plan = Plan(seed, WINDOW_PX, WINDOW_PX, mitoses=2, look_alikes=2)
        image, objects = draw(plan)
        name = f"{seed}.png"
        cv2.imwrite(str(folder / "windows" / name), image[..., ::-1])
        one = labels(plan, objects)
        document["images"].append(one["images"][0] | {"id": seed, "file_name": name, "split": "train"})
        document["annotations"] += [a | {"image_id": seed} for a in one["annotations"]]
        document["categories"] = one["categories"]
    (folder / "windows.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def quantised(root: Path, windows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quantised") / "model"
    main(root / "model", windows, target, WINDOWS)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("name", ["detector", "second_look"])
def test_it_computes_in_integers(quantised: Path, root: Path, name: str) -> None:
    bundle, old = read_bundle(quantised), read_bundle(root / "model")
    part = getattr(bundle.description, name)
    assert part.architecture == f"{getattr(old.description, name).architecture} int8"
    assert bundle.description.operating_point == old.description.operating_point
    file = quantised / part.file
    assert file.stat().st_size < (root / "model" / part.file).stat().st_size
    core = openvino.Core()
    model = core.read_model(file)
    model.reshape((1, 3, 512, 512))
    # Beside fp32: where the rest is bf16, OpenVINO 2026.4 takes most of them back to fp32.
    layers = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).get_runtime_model().get_ops()
    convolutions = [op.get_rt_info() for op in layers if op.get_rt_info()["layerType"] == "Convolution"]
    integers = [info for info in convolutions if info["runtimePrecision"] in ("u8", "i8")]
    assert len(integers) == integer_convolutions(onnx.load(file)) > 20


@pytest.mark.slow
def test_it_finds_what_it_found(quantised: Path, root: Path) -> None:
    """Nine in ten of the confident candidates of the drawn case, at the same place."""
    image = next((root / "test/input/interf0" / PLACE).iterdir())
    found = []
    for folder in (root / "model", quantised):
        model = load_model(folder, config=Config(classifier_threshold=0.0))
        with open_slide(image) as slide:
            found.append(detect(slide, model))
    before, after = found
    confident = centres_px(before[before["detector_score"] >= 0.4])
    assert len(confident) >= 10
    distance = np.linalg.norm(confident[:, None] - centres_px(after)[None], axis=2).min(axis=1)
    assert (distance < 15).mean() >= 0.9


def test_it_replaces_only_a_bundle(root: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no bundle"):
        main(root / "model", tmp_path, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("name", "number"),
    [("/model/model.23/cv2.0/Conv", 23), ("/model/model.2/m.0/cv1/conv/Conv", 2), ("Identity", -1), ("", -1)],
)
def test_layer_number(name: str, number: int) -> None:
    assert layer_number(name) == number
