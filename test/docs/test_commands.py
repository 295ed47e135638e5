"""Every command in the pages of docs/ is run: the ```sh blocks of a page, in order, in one folder, as a user would.

Inputs are parts of the drawn case. What cannot run here stands in a block of another kind (```text for a command line,
```groovy for QuPath). `sbatch` is a stand-in that runs the job at once on this machine.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

DRAWN = "test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {"sh", "text", "groovy", "json", "python"}  # of blocks; only sh is run
RUN_PAGES = ["one-slide.md", "cohort.md", "qupath.md", "retraining.md"]
HOURS = "0.003"  # of each training
TAGS = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}  # 0.25 um a pixel

SBATCH = """#!/usr/bin/env bash
script="$(mktemp)" # a copy, as SLURM takes: the file goes when sbatch returns
cp "${@: -1}" "$script"
nohup bash "$script" >>slurm-job.log 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/usr/bin/env bash
kill "$@" || true
"""


class Shell:
    """Runs blocks one after another in a folder; what they leave running in the background ends with it."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment, self.groups = folder, environment, list[int]()

    def run(self, block: str) -> str:
        """Run one block and return what it printed; it must succeed."""
        log = self.folder.parent / f"block-{len(self.groups)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", block], cwd=self.folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
            self.groups.append(process.pid)
            code = process.wait(timeout=300)
        said = log.read_text()
        assert code == 0, f"{block}\n{said}"
        return said

    def end(self) -> None:
        """End what still runs."""
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def shell(root: Path, tmp_path: Path) -> Iterator[Shell]:
    """Return a shell in a folder with the files that the pages speak of, and the program on its path."""
    folder, programs = tmp_path / "here", tmp_path / "bin"
    (folder / "slides").mkdir(parents=True)
    programs.mkdir()
    rgb = tifffile.imread(root / DRAWN)
    places = {"slide.tiff": (0, 0), "slides/one.tiff": (700, 0), "slides/two.tiff": (0, 700)}
    for name, (x, y) in places.items():
        tifffile.imwrite(folder / name, rgb[y : y + 768, x : x + 1024], photometric="rgb", **TAGS)
    Image.fromarray(np.ascontiguousarray(rgb[:600, :800])).save(folder / "photo.png")
    shutil.copytree(root / "test/input/interf0", folder / "case")
    shutil.copytree(root / "model", folder / "model")
    write_labelled_cases(root, folder / "MIDOGpp", rgb)
    for name, content in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (programs / name).write_text(content)
        (programs / name).chmod(0o755)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    # One thread each: torch's threads spin, and on a machine with other work seconds become minutes.
    settings = {
        "OMP_NUM_THREADS": "1",
        "PATH": path,
        "PYTHONPATH": str(root),
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "HOURS": HOURS,
    }
    shell = Shell(folder, os.environ | settings)
    yield shell
    shell.end()


def write_labelled_cases(root: Path, folder: Path, rgb: NDArray[np.uint8]) -> None:
    """Write the drawn case as 24 labelled ones of two kinds in MIDOG++'s form, each twice: two are val, five test."""
    folder.mkdir()
    planted = json.loads((root / "test/planted.json").read_text())
    document = {"categories": planted["categories"], "images": [], "annotations": []}
    for number, (_, row, column) in enumerate(np.ndindex(2, 3, 4), start=1):
        x0, y0 = 512 * column, 512 * row
        tifffile.imwrite(folder / f"{number:03}.tiff", rgb[y0 : y0 + 512, x0 : x0 + 512], photometric="rgb", **TAGS)
        about = {"id": number, "file_name": f"{number:03}.tiff", "width": 512, "height": 512}
        document["images"].append(about | {"tumor_type": ("drawn", "sketched")[number % 2]})
        for annotation in planted["annotations"]:
            x1, y1, x2, y2 = annotation["bbox"]
            if x0 <= (x1 + x2) / 2 < x0 + 512 and y0 <= (y1 + y2) / 2 < y0 + 512:
                box = [x1 - x0, y1 - y0, x2 - x0, y2 - y0]
                kind = {"image_id": number, "category_id": annotation["category_id"]}
                document["annotations"].append(kind | {"bbox": box})
    (folder / "MIDOG++.json").write_text(json.dumps(document))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the page's fenced blocks as (kind, content)."""
    return FENCE.findall(page.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN_PAGES)
def test_every_command_of_the_page_runs(root: Path, shell: Shell, name: str) -> None:
    page = root / "docs" / name
    if "--start model" in page.read_text() and not (root / "model/parameters.safetensors").exists():
        pytest.skip("the default bundle was exported without parameters to train on")
    ran = [shell.run(content) for kind, content in blocks(page) if kind == "sh"]
    assert len(ran) == sum(line == "```sh" for line in page.read_text().splitlines())
    assert ran


def test_no_command_hides(root: Path) -> None:
    """All blocks are of a known kind, pages with commands are run, and nothing else hides a command of ours."""
    for page in sorted((root / "docs").glob("*.md")):
        text = page.read_text()
        assert 2 * len(blocks(page)) == sum(line.startswith("```") for line in text.splitlines()), page.name
        for kind, content in blocks(page):
            assert kind in KINDS, f"{page.name}: a block of kind '{kind}'"
            assert kind != "sh" or page.name in RUN_PAGES, f"{page.name}: its commands are not run"
            if page.name in RUN_PAGES and kind == "text":
                assert not re.search(r"^(mitosis|python) ", content, re.MULTILINE), f"{page.name}: {content}"


def test_the_tree_has_a_line_for_every_file(root: Path) -> None:
    tree = (root / "README.md").read_text().split("## Tree")[1].split("```")[1]
    told, wing = [], ""
    for name, file in re.findall(r"^(?:(\w+)/ .*| +(\S+\.py)\b.*)$", tree, re.MULTILINE):
        wing = name or wing
        told += [(wing, Path(file).name)] if file else []
    wings = ("mitosis", "training", "benchmarks")
    files = [(wing, path.name) for wing in wings for path in (root / wing).rglob("*.py") if path.stem != "__init__"]
    assert sorted(told) == sorted(files)
