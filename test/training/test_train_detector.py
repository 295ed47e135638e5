"""Stage 1's training: taken up where it ended, over two processes under torchrun, taught by another run."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from tiny_data import write_training_data

from mitosis.bundle import read_bundle
from training.mine_candidates import load_detector
from training.networks.yolo11 import MitosisDetector, architecture_name
from training.profiles import DETECTOR_PROFILES
from training.train_detector import TILE_PX, Teachers, build, main, train_step
from training.warm_start import FILE_NAME

ARGUMENTS = ["-m", "training.train_detector", "--profile", "cpu", "--workers", "0"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder with one drawn window and one patch."""
    return write_training_data(tmp_path)


# Two steps of one tile in each process, after which each writes the weights that it has come to.
TWO_STEPS = """
import os
from dataclasses import replace
import torch, typer
from training import profiles, train_detector

rank, count = os.environ.get("RANK", "alone"), int(os.environ.get("WORLD_SIZE", "1"))
settings = replace(profiles.CPU_DETECTOR, batch=count, epoch_tiles=2 * count, epochs=1, warm_up_steps=1)
profiles.DETECTOR_PROFILES["cpu"] = settings

class Noted(train_detector.Training):
    def learn(self, *arguments):
        loss = super().learn(*arguments)
        torch.save({name: p.detach() for name, p in self.model.named_parameters()}, f"{rank}.pt")
        return loss

train_detector.Training = Noted
typer.run(train_detector.main)
"""


@pytest.mark.slow
def test_two_processes_train_one_network(root: Path, data: Path) -> None:
    """Both come to the same weights, though they see different tiles, and not to those that the first's alone give."""
    (data / "two_steps.py").write_text(TWO_STEPS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--"]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    for name, python in (("together", torchrun), ("alone", [sys.executable])):
        options = ["two_steps.py", *ARGUMENTS[2:], "--variant", "stock", "--data", ".", "--run", name]
        done = subprocess.run([*python, *options], cwd=data, env=environment, capture_output=True, text=True)
        assert done.stdout.count("done: 2 steps") == 1, done.stderr
    first, second, alone = (torch.load(data / f"{name}.pt", weights_only=True) for name in ("0", "1", "alone"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    rate = DETECTOR_PROFILES["cpu"].learning_rates[0]
    assert torch.cat([(value - alone[name]).abs().flatten() for name, value in first.items()]).mean() > 0.1 * rate


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "part"), [((), "detector"), (("--scale", "s"), "second_look")])
def test_it_goes_on_as_the_network_it_starts_from(root: Path, data: Path, asked: tuple[str, ...], part: str) -> None:
    bundle = root / "model"
    if not (bundle / FILE_NAME).exists():
        pytest.skip("the default bundle was exported without parameters to train on")
    options = ["--data", str(data), "--run", str(data / "run"), "--hours", "1e-9", "--start", str(bundle), *asked]
    done = subprocess.run([sys.executable, *ARGUMENTS, *options], capture_output=True, text=True)
    assert "100% of the parameters" in done.stdout, done.stderr
    state = torch.load(data / "run/detector.pt", weights_only=True)
    assert getattr(read_bundle(bundle).description, part).architecture == architecture_name(
        state["variant"], state["scale"]
    )


@pytest.mark.slow
def test_a_run_goes_on_where_it_ended_until_as_many_epochs_as_asked_for(
    root: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two_steps = replace(DETECTOR_PROFILES["cpu"], batch=2, epoch_tiles=4)
    monkeypatch.setitem(DETECTOR_PROFILES, "cpu", two_steps)

    def train(epochs: int, profile: str = "cpu", seed: int = 0, start: Path | None = None) -> dict[str, Any]:
        main(data, data / "run", profile, "stock", "n", epochs=epochs, start=start, seed=seed, workers=0)
        return torch.load(data / "run/detector.pt", weights_only=True)  # type: ignore[no-any-return]

    first = train(1)
    assert (first["step"], first["profile"], first["epochs"], first["teachers"]) == (2, "cpu", 1, 0)
    capsys.readouterr()
    second = train(2, seed=1, start=root / "model")  # both of which would begin elsewhere
    said = capsys.readouterr().out
    assert "epochs 2, 1 until now" in said and "--start is ignored" in said and "done: 4 steps" in said
    assert second["step"] == second["updates"] == second["optimiser"]["state"][0]["step"] == 4
    assert second["spent_s"] > first["spent_s"]
    for name in dict(MitosisDetector("stock", "n").named_parameters()):
        torch.testing.assert_close(second["model"][name], first["model"][name], rtol=0, atol=3e-4)  # small first steps
    with pytest.raises(typer.BadParameter, match="begun with --profile cpu, not gpu"):
        train(2, profile="gpu")
    keys = ("variant", "scale", "seed", "model", "average", "updates", "optimiser", "step", "spent_s")
    torch.save({key: second[key] for key in keys}, data / "run/detector.pt")  # as older versions wrote it
    assert train(2)["step"] == 4
    load_detector(data / "run")


def save_run(run: Path, model: MitosisDetector, variant: str, scale: str) -> Path:
    run.mkdir()
    torch.save({"variant": variant, "scale": scale, "average": model.state_dict()}, run / "detector.pt")
    return run


def test_teachers_of_several_kinds_give_their_mean(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kinds = [("stock", "n"), ("improved", "n")]
    models = [MitosisDetector(*kind) for kind in kinds]  # type: ignore[arg-type]
    for model, bias in zip(models, (2.0, -1.0), strict=True):  # their opinions differ
        for branch in model.model[-1].cv3:
            branch[-1].bias.data.fill_(bias)
    runs = [save_run(tmp_path / kind[0], model, *kind) for kind, model in zip(kinds, models, strict=True)]
    teachers, tiles = Teachers(runs, torch.device("cpu")), torch.rand(2, 3, TILE_PX, TILE_PX)
    probabilities = teachers.probabilities(tiles)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        apart = [model.eval()(tiles)[0][:, 4:].float() for model in models]  # decoded: boxes, then probabilities
    assert (apart[0] - apart[1]).min() > 0.5
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
