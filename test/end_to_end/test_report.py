"""report.html: self-contained, escaped, bounded; in a real browser the slider recounts."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import CHROMIUM, Browser

from mitosis.detections import centres_px, empty_detections
from mitosis.hotspot import find_hotspots
from mitosis.output.report import GALLERY, page_data, write_report
from mitosis.pipeline import load_model
from mitosis.quality import fold_share, ink_share, sharpness
from mitosis.slide import open_slide
from mitosis.tissue import find_tissue

ROOT = Path(__file__).parents[2]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; CI installs one")
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
    command += ["--hotspot-area", "0.03", "--no-overlay"]
    subprocess.run([*command, "--output", str(base / "out")], check=True, cwd=ROOT)
    return base / "out" / Path(NAME).stem


def column(folder: Path, name: str) -> np.ndarray:
    """Return a numeric column of detections.csv; nothing is 0."""
    with (folder / "detections.csv").open(newline="") as file:
        return np.array([float(row[name] or 0) for row in csv.DictReader(file)])


def test_page_is_self_contained_and_escaped(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert "drawn <b>" not in page
    assert "drawn &lt;b&gt;&amp;" in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert "given by hand" in page
    assert len(re.findall("<figure", page)) == min(len(column(folder, "probability")), 2 * GALLERY)


@pytest.fixture
def page(folder: Path, tmp_path: Path) -> Iterator[Browser]:
    """Return the report, open in a browser; nothing may go wrong or leave the file while a test uses it."""
    with Browser(tmp_path) as browser:
        browser.open((folder / "report.html").as_uri())
        yield browser
        assert browser.problems() == []


def text(page: Browser, query: str) -> str:
    return str(page.run(f"document.querySelector({query!r}).textContent"))


def check_counts(page: Browser, folder: Path, threshold: float) -> None:
    """Hold everything on the page that follows the slider against the table."""
    kept = column(folder, "probability") >= threshold
    spots, tissue_mm2 = column(folder, "hotspot"), float(page.run("data.tissue"))
    hotspots = json.loads((folder / "run.json").read_text())["result"]["hotspots"]
    tissue_of = [spot["tissue_mm2"] for spot in hotspots]
    assert float(text(page, "output")) == pytest.approx(threshold)
    assert int(text(page, "#count")) == kept.sum()
    assert int(text(page, "#rejected")) == (~kept).sum()
    assert float(text(page, "#density")) == pytest.approx(kept.sum() / tissue_mm2, abs=0.006)
    for rank in (1, 2, 3):
        count = (kept & (spots == rank)).sum()
        assert int(text(page, f"td[data-spot='{rank}']")) == count
        cells = page.run(
            f"[...document.querySelectorAll(\"td[data-density='{rank}']\")].map(c => Number(c.textContent))"
        )
        assert cells == pytest.approx(
            [count / 0.03, count / tissue_of[rank - 1]], rel=1e-3, abs=0.006
        )  # run.json rounds
    shown = page.run("[...document.querySelectorAll('#counted figure')].map(f => Number(f.dataset.p))")
    assert len(shown) == kept.sum()  # the case has fewer candidates than the gallery's bound
    assert shown == sorted(shown, reverse=True)
    assert page.run("document.querySelectorAll('#look-alikes figure:not(.yes)').length") == (~kept).sum()


@needs_browser
def test_slider_recounts_by_keyboard(page: Browser, folder: Path) -> None:
    usual = float(text(page, "output"))
    check_counts(page, folder, usual)
    page.run("document.getElementById('threshold').focus()")
    page.press("ArrowRight", 40)
    stricter = float(text(page, "output"))
    assert stricter == pytest.approx(usual + 0.2)
    check_counts(page, folder, stricter)
    page.press("Home")
    check_counts(page, folder, 0.0)
    page.press("Tab")  # to the button beside it
    page.press("Enter")
    check_counts(page, folder, usual)


@needs_browser
def test_gallery_by_keyboard(page: Browser, folder: Path) -> None:
    """Enter enlarges, arrows go on, X overrules, Escape closes and gives the focus back."""
    count = int(text(page, "#count"))
    page.run("document.querySelector('#counted figure').focus()")
    page.press("Enter")
    assert page.run("document.getElementById('large').open")
    first = text(page, "#large-text")
    page.press("ArrowRight")
    assert text(page, "#large-text") != first
    page.press("x")
    assert int(text(page, "#reviewed")) == count - 1
    assert page.run("document.querySelectorAll('figure.veto').length") == 1
    page.press("Escape")
    page.until("!document.getElementById('large').open")
    page.until("document.activeElement.matches('figure.veto')")
    page.run("document.getElementById('threshold').focus()")
    page.press("End")  # the program now counts none; what was struck out is not added for that
    assert [text(page, "#count"), text(page, "#reviewed"), text(page, "#review-note")] == [
        "0", "0", "after your review: 0 struck out, 0 added",
    ]  # fmt: skip
    page.run("document.getElementById('reset').click()")
    assert int(text(page, "#reviewed")) == count - 1
    page.run("document.querySelector('figure.veto').focus()")
    page.press("x")
    assert page.run("document.getElementById('review').hidden")
    assert int(text(page, "#count")) == count


@needs_browser
def test_dots_and_print(page: Browser, folder: Path, tmp_path: Path) -> None:
    """Every candidate is drawn on the map, and the printed page has no controls but keeps the threshold."""
    painted = "[...document.getElementById('dots').getContext('2d').getImageData(0, 0, 1100, 825).data].some(v => v)"
    assert page.run(painted)
    page.send("Emulation.setEmulatedMedia", media="print")
    hidden = "getComputedStyle(document.querySelector('{}')).display === 'none'"
    assert page.run(hidden.format("#threshold"))
    assert page.run(hidden.format(".switches"))
    assert not page.run(hidden.format("output"))
    page.print_to(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


@needs_browser
def test_a_link_sets_the_threshold(folder: Path, tmp_path: Path) -> None:
    with Browser(tmp_path) as browser:
        browser.open((folder / "report.html").as_uri() + "#threshold=0.5")
        check_counts(browser, folder, 0.5)


@needs_browser
@pytest.mark.parametrize("threshold", [0.0745, 0.07453])
def test_a_threshold_off_the_sliders_steps(tmp_path: Path, threshold: float) -> None:
    """As a config or an adapted threshold may be: the page says what the files say, and again after going back."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((600, 600, 3), 180, np.uint8))
    rows = empty_detections(201)
    rows["x1"] = rows["y1"] = np.linspace(10, 500, len(rows))
    rows["x2"], rows["y2"] = rows["x1"] + 50, rows["y1"] + 50
    rows["probability"] = np.linspace(0.07, 0.09, len(rows))
    rows["probability"][:80] = np.linspace(0.0744, 0.0746, 80)
    rows["is_mitotic_figure"] = rows["probability"] >= threshold
    model = load_model(ROOT / "model")
    model = replace(model, config=model.config.model_copy(update={"classifier_threshold": threshold}))
    spots = find_hotspots(centres_px(rows), rows["probability"], threshold, (600, 600), (0.25, 0.25), 0.002)
    with open_slide(tmp_path / "a.png", 0.25) as slide:
        write_report(tmp_path / "report.html", slide, model, rows, spots, find_tissue(slide))

    def check(browser: Browser, kept: np.ndarray) -> None:
        assert int(text(browser, "#count")) == kept.sum()
        assert int(text(browser, "#rejected")) == (~kept).sum()
        for spot in spots:
            inside = kept & spot.holds(centres_px(rows))
            assert int(text(browser, f"td[data-spot='{spot.rank}']")) == inside.sum()
        shown = browser.run("document.querySelectorAll('#counted figure.yes').length")
        assert f"{shown} of {kept.sum()} shown" == text(browser, "#counted-note")

    with Browser(tmp_path / "profile") as browser:
        browser.open((tmp_path / "report.html").as_uri())
        assert [spot.count for spot in spots] == [int(text(browser, f"td[data-spot='{n}']")) for n in (1, 2)]
        check(browser, rows["is_mitotic_figure"])
        assert float(text(browser, "output")) == pytest.approx(threshold, abs=5e-5)
        browser.run("document.getElementById('threshold').focus()")
        browser.press("ArrowRight")
        stricter = float(text(browser, "output"))
        assert stricter == pytest.approx(threshold + 0.005, abs=5.1e-5)
        check(browser, rows["probability"] >= stricter)
        browser.press("Tab")
        browser.press("Enter")
        check(browser, rows["is_mitotic_figure"])
        assert browser.problems() == []


def test_twenty_thousand_detections_still_open(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a.png"), rng.integers(60, 250, (2000, 2000, 3), np.uint8))
    rows = empty_detections(20_000)
    rows["x1"], rows["y1"] = rng.uniform(0, 1950, (2, len(rows)))
    rows["x2"], rows["y2"] = rows["x1"] + 50, rows["y1"] + 50
    rows["detector_score"] = rows["classifier_score"] = rows["probability"] = rng.random(len(rows))
    model = load_model(ROOT / "model")
    rows["is_mitotic_figure"] = rows["probability"] >= model.config.classifier_threshold
    with open_slide(tmp_path / "a.png", 0.25) as slide:
        write_report(tmp_path / "report.html", slide, model, rows, [], find_tissue(slide))
    assert (tmp_path / "report.html").stat().st_size < 5_000_000
    if CHROMIUM:
        with Browser(tmp_path / "profile") as browser:
            browser.open((tmp_path / "report.html").as_uri())
            assert int(text(browser, "#count")) == rows["is_mitotic_figure"].sum()
            assert browser.run("document.querySelectorAll('figure').length") == 2 * GALLERY
            assert browser.problems() == []


def test_page_counts_as_the_files_do() -> None:
    rows = empty_detections(3)
    rows["probability"] = (0.26, 0.2599, 0.9)
    rows["is_mitotic_figure"] = rows["probability"] >= 0.26
    rows["x2"] = rows["y2"] = 20
    spots = find_hotspots(np.full((3, 2), 10.0), rows["probability"], 0.26, (100, 100), (0.25, 0.25))
    assert page_data(rows, spots) == {"p": [2600, 2599, 9000], "yes": [1, 0, 1], "spot": [1, 1, 1]}


def test_blur_and_ink_are_measured() -> None:
    rng = np.random.default_rng(1)
    detail = np.clip(rng.normal(150, 30, (96, 96, 3)), 60, 255).astype(np.uint8)
    assert sharpness(cv2.GaussianBlur(detail, (0, 0), 4)) < 0.1 * sharpness(detail)
    tissue = np.full((100, 100, 3), (200, 120, 180), np.uint8)
    assert ink_share(tissue) == 0.0
    tissue[:10] = (20, 160, 60)
    assert ink_share(tissue) == pytest.approx(0.1)


def test_folds_are_measured() -> None:
    """Two layers of tissue in a strip are flagged; a nest as dark, and a strip of another colour, are not."""
    rng = np.random.default_rng(2)
    tissue = np.clip(rng.normal((205, 150, 190), 12, (600, 800, 3)), 0, 255).astype(np.uint8)  # 4 um per pixel
    assert fold_share(tissue, 4.0) == 0.0
    twice = (tissue.astype(float) * np.roll(tissue, 37, axis=1) / 255).astype(np.uint8)
    folded = tissue.copy()
    folded[280:305, 100:700] = twice[280:305, 100:700]  # 100 um x 2.4 mm
    assert fold_share(folded, 4.0) == pytest.approx(25 * 600 / (600 * 800), rel=0.3)
    nest = tissue.copy()
    nest[200:300, 200:300] = twice[200:300, 200:300]
    assert fold_share(nest, 4.0) == 0.0
    epidermis = tissue.copy()
    epidermis[280:305, 100:700] = (70, 75, 140)  # haematoxylin: red light is held back most
    assert fold_share(epidermis, 4.0) == 0.0
