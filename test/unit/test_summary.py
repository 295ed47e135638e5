"""The table of many slides, and the bars while they run."""

import csv
import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from mitosis.errors import InputError, MemoryFullError, MitosisError, OutputError, SpacingError
from mitosis.results import Options
from mitosis.summary import Summary, begin, concluded, summary_table, to_csv
from mitosis.terminal import SlideProgress

NOTHING = {
    "mitotic_count": 0,
    "mitotic_figures": 0,
    "candidates": 3,
    "tissue_mm2": 12.5,
    "per_mm2_of_tissue": 0.0,
    "hotspots": [],
}
SOME = NOTHING | {
    "mitotic_count": 4,
    "mitotic_figures": 5,
    "candidates": 9,
    "per_mm2_of_tissue": 0.4,
    "hotspots": [{"area_mm2": 2.0, "per_mm2": 2.0}],
}
SLIDES = [
    Summary("a, b.svs", SOME, 3.21),
    Summary("none.svs", NOTHING, 1.0),
    Summary("before.svs", SOME, skipped=True),
    Summary("bad.svs", error=SpacingError("bad.svs: states no pixel spacing"), seconds=0.1),
]


def test_zero_is_zero_and_names_are_quoted() -> None:
    some, nothing, before, bad = csv.DictReader(io.StringIO(to_csv(SLIDES)))
    assert some["slide"] == "a, b.svs"
    assert (some["mitotic_count"], some["hotspot_mm2"], some["rejected_candidates"]) == ("4", "2.0", "4")
    assert (nothing["mitotic_count"], nothing["mitotic_figures"], nothing["per_mm2_of_tissue"]) == ("0", "0", "0.0")
    assert nothing["hotspot_mm2"] == ""
    assert (before["status"], before["mitotic_figures"], before["seconds"]) == ("skipped", "5", "")
    assert (bad["status"], bad["mitotic_figures"]) == ("failed", "")
    assert "no pixel spacing" in bad["reason"]


def test_the_end_of_a_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"1 of 4 images failed.*bad\.svs"):
        concluded(SLIDES, tmp_path)
    assert (tmp_path / "summary.csv").read_text() == to_csv(SLIDES)
    assert concluded(SLIDES[:3], tmp_path) == SLIDES[:3]
    with pytest.raises(SpacingError):  # a lone slide's own error, with its exit code
        concluded(SLIDES[3:], tmp_path)
    assert (tmp_path / "summary.csv").read_text() == to_csv(SLIDES[3:])


def test_slides_are_told_apart_at_80_columns() -> None:
    names = [f"TCGA-CR-7395-01A-01-TS1-{letter}.svs" for letter in "ABC"]
    reason = InputError("has I;16 pixels, not 8-bit RGB; save it as 8-bit RGB and name it with --spacing 0.25")
    failed = Summary("TCGA-CR-7395-01A-01-TS1-D.svs", error=reason)
    printed = io.StringIO()
    Console(width=80, file=printed).print(summary_table([*(Summary(name, SOME) for name in names), failed]))
    lines = [line.split("│") for line in printed.getvalue().splitlines() if line.startswith("│")]
    shown = "".join(cells[1].strip() for cells in lines)
    assert all(name in shown for name in names)
    assert "--spacing" in "".join(cells[-2].strip() for cells in lines)
    assert "…" not in printed.getvalue()


@pytest.mark.parametrize(
    ("kinds", "code"),
    [
        ([OutputError, OutputError], 6),
        ([MemoryFullError, MemoryFullError], 7),
        ([SpacingError, SpacingError], 3),
        ([SpacingError, InputError], 2),
        ([OutputError, InputError], 2),
        ([MemoryFullError, OutputError], 7),
    ],
)
def test_the_exit_code_is_that_of_the_failures(tmp_path: Path, kinds: list[type[MitosisError]], code: int) -> None:
    failures = [Summary(f"{i}.svs", error=kind(f"{i}.svs: no")) for i, kind in enumerate(kinds)]
    with pytest.raises(MitosisError, match=r"2 of 3 images failed.*first: 0\.svs: no") as caught:
        concluded([SLIDES[0], *failures], tmp_path)
    assert caught.value.exit_code == code


def test_no_older_table_stays_when_a_command_begins(tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("older")
    begin(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose a writable --output"):
        begin(tmp_path / "file")


def test_a_spreadsheet_reads_names_as_they_are(tmp_path: Path) -> None:
    """Excel takes a file of UTF-8 for the local code page unless it begins with the mark for that."""
    concluded([Summary("plain.svs", SOME)], tmp_path)
    assert (tmp_path / "summary.csv").read_bytes().startswith(b"slide,")
    concluded([Summary("Präparat µ.svs", SOME)], tmp_path)
    assert (tmp_path / "summary.csv").read_bytes().startswith(b"\xef\xbb\xbfslide,")
    assert "Präparat µ.svs" in (tmp_path / "summary.csv").read_text(encoding="utf-8-sig")


def test_names_are_no_markup(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Brackets stay as they are, in the table and beside the bars; a name that is not UTF-8 is written so as to be."""
    concluded([Summary(name, SOME) for name in ("a[b].svs", "c[/d].svs", ":x:.svs", "caf\udce9.svs")], tmp_path)
    with SlideProgress(1) as shown:
        shown.begin("e[/f].svs")
        shown._bar.refresh()
        shown.finish("e[/f].svs: done", False)
    err = capfd.readouterr().err
    for name in ("a[b].svs", "c[/d].svs", ":x:.svs"):
        assert name in err
    names = [line["slide"] for line in csv.DictReader((tmp_path / "summary.csv").open(encoding="utf-8-sig"))]
    assert names == ["a[b].svs", "c[/d].svs", ":x:.svs", "caf\\udce9.svs"]


def test_a_count_needs_a_hotspot() -> None:
    """Without any field the mitotic count would be 0 whatever is on the slide."""
    with pytest.raises(InputError, match=r"--hotspots 0: .*ask for 1 or more"):
        Options(hotspots=0)


def test_time_left_is_known_within_the_first_slide() -> None:
    shown = SlideProgress(2)
    slides, tiles = shown._bar.tasks
    with shown:
        tell = shown.begin("a.svs")
        for done in range(1, 4):
            time.sleep(0.01)
            tell(done, 4)
        assert (tiles.description, tiles.completed, tiles.total) == ("a.svs", 3, 4)
        assert slides.completed == 0.75
        assert slides.time_remaining is not None
        assert slides.time_remaining > 0
        shown.finish("a.svs: 3 mitotic figures", False)
        shown.begin("b.svs")
        assert (slides.completed, tiles.completed) == (1, 0)
