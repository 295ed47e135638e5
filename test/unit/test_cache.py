"""Compiled networks are kept for the next run, belong to one bundle, and never make a run fail."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from openvino import CompiledModel

from mitosis.bundle import read_bundle
from mitosis.cache import cache_of, default_cache
from mitosis.cpu import CpuUse, compile_network
from mitosis.network import NetworkFile
from mitosis.pipeline import Model, load_model
from mitosis.provenance import bundle_settings


def output(model: Model) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), np.uint8)
    return next(iter(model.detector.map([(None, pixels)])))[1]


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_second_run_finds_what_the_first_compiled(root: Path, tmp_path: Path) -> None:
    first = output(load_model(root / "model", use=CpuUse(cache=tmp_path)))
    kept = files(tmp_path)
    assert len(kept) == 3
    second = output(load_model(root / "model", use=CpuUse(cache=tmp_path)))
    assert files(tmp_path) == kept
    np.testing.assert_array_equal(first, second)


def test_damaged_files_are_replaced(root: Path, tmp_path: Path) -> None:
    first = output(load_model(root / "model", use=CpuUse(cache=tmp_path)))
    for path in files(tmp_path):
        path.chmod(0o600)
        path.write_bytes(path.read_bytes()[:5000])
    np.testing.assert_array_equal(output(load_model(root / "model", use=CpuUse(cache=tmp_path))), first)


def test_a_cache_that_fails_while_compiling_is_done_without(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk."""

    def on_a_full_disk(network: NetworkFile, use: CpuUse) -> CompiledModel:
        if use.cache is not None:
            raise RuntimeError("no space left on device")
        return compile_network(network, use)

    monkeypatch.setattr("mitosis.cpu.compile_network", on_a_full_disk)
    assert output(load_model(root / "model", use=CpuUse(cache=tmp_path))).shape[1] == 5


@pytest.mark.parametrize("part", ["detector", "classifier", "second_look"])
def test_another_bundle_has_another_folder(root: Path, tmp_path: Path, part: str) -> None:
    shutil.copytree(root / "model", tmp_path / "model")
    text = (tmp_path / "model/bundle.yaml").read_text()
    bundle = read_bundle(tmp_path / "model")
    network = getattr(bundle.description, part)
    with (tmp_path / "model" / network.file).open("ab") as file:
        file.write(b"\x3a\x00")  # the same network, other bytes
    changed = hashlib.sha256((tmp_path / "model" / network.file).read_bytes()).hexdigest()
    (tmp_path / "model/bundle.yaml").write_text(text.replace(network.sha256, changed))
    assert bundle_settings(read_bundle(tmp_path / "model").description) != bundle_settings(bundle.description)
    places = [cache_of(one, tmp_path / "cache") for one in (bundle, read_bundle(tmp_path / "model"))]
    assert places[0] != places[1]
    assert all(place is not None and place.is_dir() for place in places)


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_used_is_done_without(
    root: Path, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert cache_of(read_bundle(root / "model"), tmp_path / place) is None
    assert [r.levelname for r in caplog.records] == ["WARNING"]  # since it was asked for
    if place == "file":
        assert output(load_model(root / "model", use=CpuUse(cache=tmp_path / place))).shape[1] == 5


def test_a_folder_of_somebody_else_is_not_trusted(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: tmp_path.stat().st_uid + 1)
    assert cache_of(read_bundle(root / "model"), tmp_path) is None


def test_each_user_has_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    assert default_cache().name == "mitosis-ada"
    monkeypatch.setattr("getpass.getuser", lambda: {}["no such user"])
    assert default_cache().name.removeprefix("mitosis-").isdigit()
