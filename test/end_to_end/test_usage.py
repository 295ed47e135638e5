"""Wrong options, as processes: the last line on stderr is the message. And the help, at 80 columns."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CLI = ("-m", "mitosis.cli")
DETECT = (*CLI, "detect")


def run(root: Path, *arguments: object, columns: int = 80) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": str(columns), "PYTHONPATH": str(root)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=120, check=False)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((*DETECT, "a.png"), "^Error: Missing option '--output'"),
        ((*DETECT, "--output", "o", "a.png", "--hotspots", "-1"), "^Error: .*'--hotspots'.*1"),
        ((*DETECT, "--output", "o", "a.png", "--spacing", "fine"), "^Error: .*'--spacing'"),
        ((*DETECT, "--output", "o", "a.png", "--hotspot-area", "inf"), "^Error: .*'--hotspot-area'"),
        ((*CLI, "detekt"), "^Error: No such command 'detekt'"),
        (("process.py", "--device", "abacus"), "^Error: .*'--device'"),
        (("process.py", "--spacings", "1"), "^Error: No such option"),
    ],
)
def test_the_last_line_is_the_message(root: Path, command: tuple[str, ...], message: str) -> None:
    result = run(root, *command)
    assert result.returncode == 2
    assert re.search(message, result.stderr.splitlines()[-1]), result.stderr


def test_a_binary_configuration(root: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00\x01")
    result = run(root, *DETECT, "a.png", "--output", tmp_path, "--config", tmp_path / "c.yaml")
    assert result.returncode == 2
    assert "c.yaml: cannot be read as YAML" in result.stderr.splitlines()[-1]
    (tmp_path / "c.yaml").write_text("overlap: 2024-13-45\n")
    result = run(root, *DETECT, "a.png", "--output", tmp_path, "--config", tmp_path / "c.yaml")
    assert result.returncode == 2
    assert "c.yaml: cannot be read as YAML" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("views", ["3", "0"])
def test_looks_are_one_two_or_four(root: Path, tmp_path: Path, views: str) -> None:
    result = run(root, *DETECT, "a.png", "--output", tmp_path, "--views", views)
    assert result.returncode == 2
    assert f"--views {views}: stage 1 looks 1, 2 or 4 times" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("columns", [60, 80])
def test_help_names_every_option_whole(root: Path, columns: int) -> None:
    text = run(root, *DETECT, "--help", columns=columns).stdout
    for option in ("--adaptive-threshold", "--no-tissue-mask", "--hotspot-shape", "--scheduler", "--precision"):
        assert re.search(rf"{option}\b", text), option
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= columns
    assert re.search(r"--version +\w+", run(root, *CLI, "--help", columns=columns).stdout)
