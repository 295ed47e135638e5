"""Stage 1's training as a process: resumed after its end, and over two processes as torchrun starts them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_data import write_training_data

from mitosis.bundle import read_bundle
from training.networks.yolo11 import architecture_name
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
