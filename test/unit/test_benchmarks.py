"""What the benchmarks compute themselves, and that one runs as its README says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.against_others import shared
from benchmarks.published_loop import TILE_PX, starts, suppress_in_python
from mitosis.merging import suppress


def test_the_published_suppression_is_greedy() -> None:
    rng = np.random.default_rng(3)
    corner = rng.uniform(0, 400, (150, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(20, 90, (150, 2))], axis=1)
    scores = rng.permutation(150) / 150
    rows = [(*box, score) for box, score in zip(boxes.tolist(), scores.tolist(), strict=True)]
    kept = suppress_in_python(rows, 0.3)
    assert [row[4] for row in kept] == scores[suppress(boxes, scores, 0.3)].tolist()
    assert 1 < len(kept) < 150


def test_the_published_tiles_cover_everything() -> None:
    for length_px in (1, 358, 513, 7215):
        covered = np.zeros(length_px, bool)
        for start in starts(length_px):
            covered[start : start + TILE_PX] = True
        assert covered.all()


def test_shared_points() -> None:
    assert shared([[0.0, 0.0], [100.0, 100.0]], [[20.0, 20.0], [140.0, 100.0]], 0.25) == "1 of 2"
    assert shared([], [[1.0, 1.0]], 0.25) == "0 of 1"


def test_peak_memory_sees_an_allocation(root: Path) -> None:
    """In a process of its own, which has held little before."""
    code = "import numpy; from benchmarks.memory import peak_mb; b = peak_mb(); x = numpy.ones(200_000_000, 'u1'); "
    code += "del x; print(peak_mb() - b)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert 150 < float(done.stdout) < 250


def test_ours_as_a_contender(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "region.png"
    Image.fromarray(np.full((1100, 1100, 3), 235, np.uint8)).save(path)
    command = [sys.executable, "-m", "benchmarks.rivals", "ours", str(path), "--model", str(root / "model")]
    command += ["--spacing", "0.25", "--confidence", "0.2"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["points"] == []
    assert 0 < result["seconds"] < 60
    assert result["peak_mb"] > 50
