"""report.html: self-contained, escaped, bounded; in a real browser the slider recounts."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mitosis.detections import empty_detections
from mitosis.hotspot import find_hotspots
from mitosis.output.report import GALLERY, page_data, write_report
from mitosis.pipeline import load_model
from mitosis.quality import ink_share, sharpness
from mitosis.slide import open_slide
from mitosis.tissue import find_tissue

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NAME = 'drawn <b>&"case.png'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of results of the drawn case under a name that would break a careless page."""
    base = tmp_path_factory.mktemp("report")
    source = next((ROOT / "test/input/interf0").rglob("*.tif*"))
    with open_slide(source) as slide:
        rgb = slide.read(0, 0, slide.width_px, slide.height_px)
    cv2.imwrite(str(base / NAME), rgb[..., ::-1])
    command = [sys.executable, "-m", "mitosis.cli", "detect", str(base / NAME), "--spacing", "0.25"]
    subprocess.run([*command, "--output", str(base / "out"), "--no-overlay"], check=True, cwd=ROOT)
    return base / "out" / Path(NAME).stem


def probabilities(folder: Path) -> np.ndarray:
    lines = (folder / "detections.csv").read_text().splitlines()
    return np.array([float(line.split(",")[1]) for line in lines[1:]])


def test_page_is_self_contained_and_escaped(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "drawn <b>" not in page
    assert "drawn &lt;b&gt;&amp;" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert "given by hand" in page
    assert len(re.findall("<figure", page)) == min(len(probabilities(folder)), 2 * GALLERY)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; CI installs one")
def test_slider_recounts_in_a_browser(folder: Path, tmp_path: Path) -> None:
    scores = probabilities(folder)
    for threshold in (0.3, 0.8):
        dom, errors = browse(folder / "report.html", f"threshold={threshold}", tmp_path)
        count = int(re.search(r'id="count">(\d+)<', dom)[1])
        assert count == (scores >= threshold).sum()
        assert len(re.findall(r'<figure[^>]*class="yes"', dom)) == count
        assert "CONSOLE" not in errors


def browse(page: Path, fragment: str, profile: Path) -> tuple[str, str]:
    """Return the page as the browser has it after its script ran, and what the browser said."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    options += ["--no-first-run", "--enable-logging=stderr", f"--user-data-dir={profile}", "--dump-dom"]
    url = f"{page.as_uri()}#{fragment}"
    result = subprocess.run([str(CHROMIUM), *options, url], capture_output=True, text=True, timeout=120)
    return result.stdout, result.stderr


def test_twenty_thousand_detections_still_open(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a.png"), rng.integers(60, 250, (2000, 2000, 3), np.uint8))
    rows = empty_detections(20_000)
    rows["x1"], rows["y1"] = rng.uniform(0, 1950, (2, len(rows)))
    rows["x2"], rows["y2"] = rows["x1"] + 50, rows["y1"] + 50
    rows["detector_score"] = rows["classifier_score"] = rows["probability"] = rng.random(len(rows))
    rows["is_mitotic_figure"] = rows["probability"] >= 0.5
    with open_slide(tmp_path / "a.png", 0.25) as slide:
        write_report(tmp_path / "report.html", slide, load_model(ROOT / "model"), rows, [], find_tissue(slide))
    assert (tmp_path / "report.html").stat().st_size < 5_000_000


def test_page_counts_as_the_files_do() -> None:
    rows = empty_detections(3)
    rows["probability"] = (0.26, 0.2599, 0.9)
    rows["x2"] = rows["y2"] = 20
    spots = find_hotspots(np.full((3, 2), 10.0), rows["probability"], 0.26, (100, 100), (0.25, 0.25))
    assert page_data(rows, spots) == {"p": [260, 259, 900], "spot": [1, 1, 1]}


def test_blur_and_ink_are_measured() -> None:
    rng = np.random.default_rng(1)
    detail = np.clip(rng.normal(150, 30, (96, 96, 3)), 60, 255).astype(np.uint8)
    assert sharpness(cv2.GaussianBlur(detail, (0, 0), 4)) < 0.1 * sharpness(detail)
    tissue = np.full((100, 100, 3), (200, 120, 180), np.uint8)
    assert ink_share(tissue) == 0.0
    tissue[:10] = (20, 160, 60)
    assert ink_share(tissue) == pytest.approx(0.1)
