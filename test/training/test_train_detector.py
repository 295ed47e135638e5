"""Stage 1's training as a process: resumed after its end, and over two processes as torchrun starts them."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

ARGUMENTS = ["-m", "training.train_detector", "--profile", "cpu", "--workers", "0"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data folder with one drawn window and one patch."""
    for name, side in (("windows", 704), ("patches", 128)):
        (tmp_path / name).mkdir()
        image = np.full((side, side, 3), 230, np.uint8)
        cv2.circle(image, (64, 64), 9, (60, 20, 60), -1)
        cv2.imwrite(str(tmp_path / name / "a.png"), image)
    annotation = {"image_id": 1, "bbox": [39, 39, 89, 89]}
    labels = [annotation | {"category_id": 1}, annotation | {"category_id": 2, "bbox": [300, 300, 350, 350]}]
    window = {"id": 1, "file_name": "a.png", "case": "A"}
    (tmp_path / "windows.json").write_text(json.dumps({"images": [window], "annotations": labels}))
    (tmp_path / "patches.csv").write_text("file,source,slide,x,y\na.png,S,,,\n")
    return tmp_path


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
