"""Bundles: a missing, damaged or misunderstood one is refused by name; configuration is strict."""

import shutil
from pathlib import Path

import pytest
import yaml

from mitosis.bundle import read_bundle
from mitosis.config import Config, OperatingPoint, read_config
from mitosis.errors import BundleError, InputError


@pytest.fixture
def folder(tmp_path: Path, root: Path) -> Path:
    return Path(shutil.copytree(root / "model", tmp_path / "model"))


def test_the_default_bundle_is_whole(root: Path) -> None:
    bundle = read_bundle(root / "model")
    assert bundle.description.licence == "AGPL-3.0-only"
    assert sum(f.stat().st_size for f in (root / "model").iterdir()) < 100e6


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle\.yaml.*--model"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("file", ["detector.onnx", "classifier.onnx", "second-look.onnx"])
def test_a_damaged_network_is_named(folder: Path, file: str) -> None:
    content = bytearray((folder / file).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / file).write_bytes(content)
    with pytest.raises(BundleError, match=f"{file}.*damaged"):
        read_bundle(folder)
    (folder / file).unlink()
    with pytest.raises(BundleError, match=f"{file}.*missing"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("surprise", 1),
        ("detector", {}),
        ("operating_point", {"merge_iou": 7}),
        ("class_names", ["mitotic figure", "not mitotic figure"]),  # would turn every verdict round
        ("class_names", ["not mitotic figure"]),
    ],
)
def test_a_description_that_is_not_understood(folder: Path, key: str, value: object) -> None:
    text = yaml.safe_load((folder / "bundle.yaml").read_text()) | {key: value}
    (folder / "bundle.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(BundleError, match=key):
        read_bundle(folder)


def test_configuration(tmp_path: Path, root: Path) -> None:
    assert read_config(root / "resources/config.yaml") == Config()
    assert Config().at(OperatingPoint(merge_iou=0.4)) == Config(merge_iou=0.4)
    (tmp_path / "c.yaml").write_text("overlap: 0.95")
    with pytest.raises(InputError, match=r"c\.yaml.*overlap"):
        read_config(tmp_path / "c.yaml")


def test_a_file_of_one_line_changes_one_field(tmp_path: Path, root: Path) -> None:
    bundles = Config(detector_confidence=0.05, classifier_threshold=0.22)
    (tmp_path / "c.yaml").write_text("classifier_threshold: 0.3")
    assert read_config(tmp_path / "c.yaml", bundles) == Config(detector_confidence=0.05, classifier_threshold=0.3)
    (tmp_path / "c.yaml").write_text("detector_confidence: 0.2")  # the paper's value, but stated
    assert read_config(tmp_path / "c.yaml", bundles) == Config(detector_confidence=0.2, classifier_threshold=0.22)
    assert read_config(root / "resources/config.yaml", bundles) == Config()  # states all fields
    (tmp_path / "c.yaml").write_text("# nothing yet")
    assert read_config(tmp_path / "c.yaml", bundles) == bundles


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\xff\xfe\x00", "cannot be read as YAML"),
        (b"overlap: [", "cannot be read as YAML"),
        (b"- overlap: 0.2", "is a list and not 'field: value' lines"),
        (b"[]", "is a list"),
        (b"0.3", "is a float"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(InputError, match=rf"c\.yaml: {message}.*leave --config out"):
        read_config(tmp_path / "c.yaml")
