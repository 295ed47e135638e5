"""Stage 1's training as a process: resumed after its end, over two processes under torchrun, taught by another run."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_data import write_training_data

from mitosis.bundle import read_bundle
from training.networks.yolo11 import MitosisDetector, architecture_name
from training.profiles import DETECTOR_PROFILES
from training.train_detector import TILE_PX, Teachers, build, main, train_step
from training.warm_start import FILE_NAME

ARGUMENTS = ["-m", "training.train_detector", "--profile", "cpu", "--workers", "0"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder with one drawn window and one patch."""
    return write_training_data(tmp_path)


@pytest.mark.slow
def test_two_processes_train_one_network_and_resume(data: Path) -> None:
    run = data / "run"
    options = ["--data", str(data), "--run", str(run), "--hours", "0.003"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    first = subprocess.run([*torchrun, "-m", "--", *ARGUMENTS[1:], *options], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("done:") == 1
    state = torch.load(run / "detector.pt", weights_only=True)
    assert state["step"] > 0
    again = subprocess.run([sys.executable, *ARGUMENTS, *options], capture_output=True, text=True)
    assert f"done: {state['step']} steps" in again.stdout, again.stderr


@pytest.mark.slow
def test_it_goes_on_as_the_network_it_starts_from(root: Path, data: Path) -> None:
    bundle = root / "model"
    if not (bundle / FILE_NAME).exists():
        pytest.skip("the default bundle was exported without parameters to train on")
    options = ["--data", str(data), "--run", str(data / "run"), "--hours", "1e-9", "--start", str(bundle)]
    done = subprocess.run([sys.executable, *ARGUMENTS, *options], capture_output=True, text=True)
    assert "100% of the parameters" in done.stdout, done.stderr
    state = torch.load(data / "run/detector.pt", weights_only=True)
    architecture = read_bundle(bundle).description.detector.architecture
    assert architecture == architecture_name(state["variant"], state["scale"])


@pytest.mark.slow
def test_a_run_is_as_many_epochs_as_asked_for(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_steps = replace(DETECTOR_PROFILES["cpu"], batch=2, epoch_tiles=4)
    monkeypatch.setitem(DETECTOR_PROFILES, "cpu", two_steps)
    main(data, data / "run", profile="cpu", variant="stock", scale="n", epochs=2, workers=0)
    assert torch.load(data / "run/detector.pt", weights_only=True)["step"] == 4


def save_run(run: Path, model: MitosisDetector, variant: str, scale: str) -> Path:
    run.mkdir()
    torch.save({"variant": variant, "scale": scale, "average": model.state_dict()}, run / "detector.pt")
    return run


def test_teachers_of_several_kinds_give_their_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kinds = [("stock", "n"), ("improved", "n")]
    models = [MitosisDetector(*kind) for kind in kinds]  # type: ignore[arg-type]
    runs = [save_run(tmp_path / kind[0], model, *kind) for kind, model in zip(kinds, models, strict=True)]
    teachers, tiles = Teachers(runs, torch.device("cpu")), torch.rand(2, 3, TILE_PX, TILE_PX)
    probabilities = teachers.probabilities(tiles)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        apart = [model.eval()(tiles)[0][:, 4:].float() for model in models]  # decoded: boxes, then probabilities
    torch.testing.assert_close(probabilities, torch.stack(apart).mean(0), atol=0.01, rtol=0.01)
    assert teachers and not Teachers([], torch.device("cpu"))


@pytest.mark.slow
def test_a_student_comes_nearer_to_its_teacher_than_labels_lead_it(tmp_path: Path) -> None:
    """The teacher sees a mitosis where the labels have none."""
    torch.manual_seed(0)
    profile, tiles = DETECTOR_PROFILES["cpu"], torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    teacher = MitosisDetector("stock", "n")
    for branch in teacher.model[-1].cv3:
        branch[-1].bias.data.fill_(2.0)
    taught_by = Teachers([save_run(tmp_path / "teacher", teacher, "stock", "n")], torch.device("cpu"))
    none = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    logits = {}
    for name, teachers in (("taught", taught_by), ("labels", Teachers([], torch.device("cpu")))):
        torch.manual_seed(1)
        student = build("stock", "n", profile)
        optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3)
        for _ in range(5):
            train_step(student, student, optimiser, teachers, tiles, none)
        with torch.no_grad():
            logits[name] = float(student(tiles.float() / 255)["scores"].mean())
    assert logits["taught"] > logits["labels"] + 0.05


@pytest.mark.slow
def test_it_learns_from_a_finished_run(data: Path) -> None:
    teacher = save_run(data / "teacher", MitosisDetector("improved", "n"), "improved", "n")
    options = ["--data", str(data), "--run", str(data / "run"), "--hours", "0.002", "--teacher", str(teacher)]
    done = subprocess.run([sys.executable, *ARGUMENTS, *options], capture_output=True, text=True)
    assert "done: " in done.stdout, done.stderr
