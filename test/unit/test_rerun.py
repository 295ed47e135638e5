"""What decides a result is in run.json's settings, and ``--like`` holds a run to all of it."""

import json
import logging
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from mitosis import __version__
from mitosis.bundle import Bundle, Calibration, read_bundle
from mitosis.config import Config
from mitosis.cpu import Precision
from mitosis.errors import BundleError, InputError
from mitosis.gpu import Device
from mitosis.job import Job
from mitosis.pipeline import Model
from mitosis.provenance import bundle_settings, digest, ends, finished_result, settings
from mitosis.rerun import Record, read_record
from mitosis.results import Options

CPU = {"detector": "OpenVINO 2026.1 CPU bf16", "classifier": "OpenVINO 2026.1 CPU bf16"}
CUDA = dict.fromkeys(CPU, "ONNX Runtime 1.32.0 CUDA f32 H100 sm_90")


class Named:
    """A network that says what it is."""

    name = CPU["detector"]


@pytest.fixture(scope="module")
def bundle(root: Path) -> Bundle:
    return read_bundle(root / "model")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.tiff"
    path.write_bytes(b"image")
    return path


@pytest.fixture
def record(bundle: Bundle, image: Path, tmp_path: Path) -> Record:
    return Record(
        tmp_path / "run.json", image, 5, ends(image), Options(hotspots=2), Config(overlap=0.3), __version__,
        bundle_settings(bundle.description), CPU, {},
    )  # fmt: skip


@pytest.fixture
def job(bundle: Bundle, tmp_path: Path) -> Job:
    return Job(
        [], tmp_path, bundle, Device.AUTO, Precision.AUTO, Config(), Options(), overwrite=False, scheduler=None,
        cache=tmp_path,
    )  # fmt: skip


def changed(bundle: Bundle, **parts: Any) -> Bundle:
    return bundle.model_copy(update={"description": bundle.description.model_copy(update=parts)})


def others(bundle: Bundle) -> list[tuple[str, Bundle]]:
    """Return bundles of the same networks that give other results, each with the part that differs."""
    about = bundle.description
    found = [
        ("detector", changed(bundle, detector=about.detector.model_copy(update={name: value})))
        for name, value in (("spacing_um", 0.5), ("spacing_tolerance", 0.0), ("tile_px", 1024))
    ]
    found += [
        ("classifier", changed(bundle, classifier=about.classifier.model_copy(update={name: value})))
        for name, value in (("context", 2.0), ("mean", (0.5,) * 3), ("std", (0.5,) * 3), ("input_px", 96))
    ]
    calibration = Calibration(detector_weight=1, classifier_weight=2, bias=3)
    return [
        *found,
        ("calibration", changed(bundle, calibration=None)),
        ("calibration", changed(bundle, calibration=calibration)),
    ]


def test_a_changed_bundle_is_not_skipped(bundle: Bundle, image: Path, tmp_path: Path) -> None:
    def wanted(one: Bundle) -> dict[str, Any]:
        return settings(image, Model(one, Config(), Named(), Named()), asdict(Options()))  # type: ignore[arg-type]

    content = {"settings": wanted(bundle), "files": {}, "result": {"candidates": 1}}
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert finished_result(tmp_path, wanted(bundle)) == {"candidates": 1}
    for part, other in others(bundle):
        assert finished_result(tmp_path, wanted(other)) is None, part


def test_like_refuses_a_bundle_that_gives_other_results(bundle: Bundle, record: Record) -> None:
    record.check_bundle(bundle)
    for part, other in others(bundle):
        with pytest.raises(BundleError, match=rf"is not the bundle mitosis-default .* differs in {part}; .*--model"):
            record.check_bundle(other)


def test_like_restores_all_that_decides(job: Job, record: Record, image: Path) -> None:
    again = job.like(record)
    assert (again.config, again.options, again.images) == (Config(overlap=0.3), Options(hotspots=2), [image])
    assert (again.device, again.precision) == (Device.CPU, Precision.BF16)
    mixed = {"detector": CPU["detector"], "classifier": CPU["classifier"].replace("bf16", "f32")}
    assert job.like(replace(record, runtime=mixed)).precision is Precision.AUTO


def test_what_is_asked_for_beside_like_stays(job: Job, record: Record) -> None:
    assert replace(job, precision=Precision.F32).like(record).precision is Precision.F32
    on_gpu = replace(job, device=Device.CUDA).like(record)
    assert (on_gpu.device, on_gpu.precision) == (Device.CUDA, Precision.AUTO)
    of_gpu = job.like(replace(record, runtime=CUDA))
    assert (of_gpu.device, of_gpu.precision) == (Device.AUTO, Precision.AUTO)


def test_another_runtime_is_warned_of(record: Record, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    record.check_runtime(CPU)
    folders = [tmp_path / name for name in ("same", "unseen", "other", "another")]
    for folder, runtime in zip(folders, (CPU, None, CUDA, CUDA), strict=True):
        if runtime:
            folder.mkdir()
            (folder / "run.json").write_text(json.dumps({"runtime": runtime}))
    record.check_written(folders[:2])
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        record.check_written(folders)
        record.check_runtime(CUDA)
    assert [text.getMessage().count("numbers may differ") for text in caplog.records] == [1, 1]


def content_of(record: Record) -> dict[str, Any]:
    """Return what a run.json of this record holds."""
    about = {"bytes": record.image_bytes, "ends_sha256": record.image_ends}
    then = {"image": about, "choices": asdict(record.options), "version": record.version}
    then |= {"config": record.config.model_dump(), "bundle": record.bundle}
    return {"settings": then, "slide": {"path": str(record.image)}, "runtime": record.runtime, "files": record.files}


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_records_image_is_known_wherever_it_lies(record: Record, image: Path, tmp_path: Path) -> None:
    moved, other = tmp_path / "moved.tiff", tmp_path / "other.tiff"
    moved.write_bytes(image.read_bytes())
    other.write_bytes(b"imagf")
    assert record.shows(image) and record.shows(moved)
    assert not record.shows(other) and not record.shows(tmp_path / "gone.tiff")


def test_an_option_that_is_not_known_is_refused(record: Record, tmp_path: Path) -> None:
    content = content_of(record)
    content["settings"]["choices"]["stain_normalisation"] = True
    with pytest.raises(InputError, match=r"other\.json: .*stain_normalisation.*another version"):
        read_record(write(tmp_path / "other.json", content))


def test_files_of_the_users_own_are_not_compared(
    record: Record, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "new").mkdir()
    for name in ("detections.csv", "notes.txt"):
        (tmp_path / "new" / name).write_text(name)
    with caplog.at_level(logging.INFO):
        replace(record, files={"detections.csv": digest(tmp_path / "new/detections.csv")}).compare(tmp_path / "new")
    assert "all 1 files are the same" in caplog.text


def test_a_record_is_not_compared_with_itself(record: Record, tmp_path: Path) -> None:
    record.check_apart([tmp_path / "elsewhere"])
    with pytest.raises(InputError, match=r"holds the very run of .*choose another --output"):
        record.check_apart([tmp_path / "elsewhere", tmp_path])


def test_another_image_of_the_same_size_and_time_is_not_taken_for_it(bundle: Bundle, tmp_path: Path) -> None:
    """As archives with one time for all files leave them: scan.tiff of another patient."""
    found = []
    for patient in ("A", "B"):
        (tmp_path / patient).mkdir()
        path = tmp_path / patient / "scan.tiff"
        path.write_text(f"image of {patient}")
        os.utime(path, (10**9, 10**9))
        found.append(settings(path, Model(bundle, Config(), Named(), Named()), {}))  # type: ignore[arg-type]
    assert found[0]["image"]["modified_ns"] == found[1]["image"]["modified_ns"]
    assert found[0] != found[1]


def test_a_record_of_other_form_is_refused(record: Record, tmp_path: Path) -> None:
    written = content_of(record)
    assert read_record(write(tmp_path / "good.json", written)) == replace(record, path=tmp_path / "good.json")
    spoilt = (written | {"files": None}, written | {"settings": written["settings"] | {"bundle": {}}})
    texts = (json.dumps(content).encode() for content in spoilt)
    for number, content in enumerate((b"[]", b'{"settings": []}', os.urandom(99), *texts)):
        path = tmp_path / f"{number}.json"
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"{number}\.json: is no run\.json"):
            read_record(path)


def test_nothing_to_compare_with_is_said(record: Record, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not to be seen here"):
        record.compare(tmp_path / "gone")
