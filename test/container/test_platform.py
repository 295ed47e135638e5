"""What the platform does to the container: input, model, memory, places to write, signals, serving."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from challenge_case import BAD_CASES, RESULT, last_line, make_case, make_metaimage_case, noise
from engine import EXTRA, PYTHON, engine, mounts, run, running

from mitosis.output.grand_challenge import read_points

pytestmark = pytest.mark.timeout(2400)  # the first test builds the image

GIB = 2**30
TERMINATED = 143
INVOKE = """
from urllib.error import HTTPError
from urllib.request import Request, urlopen
print(urlopen('http://127.0.0.1:4743/health').status)
try:
    print(urlopen(Request('http://127.0.0.1:4743/invoke', method='POST')).status)
except HTTPError as error:
    print(error.code)
"""


def drawn_case(root: Path, folder: Path) -> None:
    shutil.copytree(root / "test/input/interf0", folder / "in")


@pytest.mark.parametrize(("spoil", "message"), BAD_CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_bad_cases(image: str, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    """An exit code, one clear last line on stderr, and nothing in the output."""
    make_case(tmp_path / "in")
    spoil(tmp_path / "in")
    result = run(image, tmp_path)
    assert result.returncode not in (0, 70, 125, 126, 127)
    assert last_line(result).startswith("error: /input/")
    assert message in last_line(result)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_metaimage(image: str, tmp_path: Path) -> None:
    make_metaimage_case(tmp_path / "in")
    result = run(image, tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / RESULT).exists()


def test_input_is_a_symbolic_link(image: str, root: Path, tmp_path: Path) -> None:
    """The platform puts a link in the place of the image's own empty folder."""
    drawn_case(root, tmp_path)
    script = f"rmdir /input && ln -s /mnt/case /input && exec {PYTHON} /opt/app/process.py"
    volumes = ["-v", f"{tmp_path}/in:/mnt/case:ro", "-v", f"{tmp_path}/out:/output"]
    (tmp_path / "out").mkdir()
    shell = ["--user", "0", "--entrypoint", "/bin/sh"]
    result = engine(
        "run", "--rm", "--network", "none", "--tmpfs", "/tmp", *EXTRA, *shell, *volumes, image, "-c", script
    )
    assert result.returncode == 0, result.stderr
    assert read_points(tmp_path / "out" / RESULT).is_mitotic_figure.any()


def test_the_platforms_bundle_wins(image: str, root: Path, tmp_path: Path) -> None:
    """Another bundle in /opt/ml/model is the one that runs."""
    (tmp_path / "in").mkdir()
    shutil.move(make_case(tmp_path / "case"), tmp_path / "in")
    shutil.copytree(root / "model", tmp_path / "model")
    about = yaml.safe_load((tmp_path / "model/bundle.yaml").read_text())
    (tmp_path / "model/bundle.yaml").write_text(yaml.safe_dump(about | {"name": "uploaded"}))
    result = run(image, tmp_path, volumes=(f"{tmp_path}/model:/opt/ml/model:ro",))
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out/a/run.json").read_text())["settings"]["bundle"]["name"] == "uploaded"


@pytest.mark.parametrize("what", ["classifier.onnx", "bundle.yaml"])
def test_a_damaged_bundle_is_refused_by_name(image: str, root: Path, tmp_path: Path, what: str) -> None:
    """It is not replaced by the bundle in the image."""
    make_case(tmp_path / "in")
    shutil.copytree(root / "model", tmp_path / "model")
    (tmp_path / "model" / what).write_bytes(b"damaged")
    result = run(image, tmp_path, volumes=(f"{tmp_path}/model:/opt/ml/model:ro",))
    assert result.returncode == 4
    assert f"/opt/ml/model/{what}: " in last_line(result)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("gib", [7, 3])
def test_a_memory_limit(image: str, root: Path, tmp_path: Path, gib: int) -> None:
    drawn_case(root, tmp_path)
    result = run(image, tmp_path, "--ulimit", f"data={gib * GIB}:{gib * GIB}")
    assert result.returncode == 0, result.stderr
    assert read_points(tmp_path / "out" / RESULT).is_mitotic_figure.any()


def test_a_memory_that_does_not_suffice(image: str, root: Path, tmp_path: Path) -> None:
    """One clear line and no killed process."""
    drawn_case(root, tmp_path)
    result = run(image, tmp_path, "--ulimit", f"data={GIB // 2}:{GIB // 2}")
    assert result.returncode == 7
    assert "the memory is full; this process may take 0.5 GiB" in last_line(result)
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_written_elsewhere(image: str, root: Path, tmp_path: Path) -> None:
    """As root on a writable root file system, too, where everything could be written."""
    drawn_case(root, tmp_path)
    name = f"mitosis-diff-{tmp_path.name}"
    options = ["--name", name, "--user", "0", "--network", "none", "--tmpfs", "/tmp", *EXTRA]
    try:
        result = engine("run", *options, *mounts(tmp_path), image)
        assert result.returncode == 0, result.stderr
        changes = engine("diff", name).stdout.splitlines()
    finally:
        engine("rm", "-f", name)
    assert [line for line in changes if not line.startswith("C /etc")] == []  # the engine's own: host names
    assert [p.name for p in (tmp_path / "out").iterdir()] == [RESULT]


def test_sigterm_leaves_nothing(image: str, tmp_path: Path) -> None:
    """`stop` sends SIGTERM to the container's first process, in the middle of detection."""
    make_case(tmp_path / "in", rgb=noise(8000))
    with running(image, tmp_path) as name:
        while "runtime" not in engine("logs", name).stderr:
            time.sleep(0.2)
        started_s = time.monotonic()
        assert engine("stop", "-t", "60", name).returncode == 0
        assert time.monotonic() - started_s < 50
        assert int(engine("inspect", "--format", "{{.State.ExitCode}}", name).stdout) == TERMINATED
    assert list((tmp_path / "out").iterdir()) == []


def test_invoke(image: str, root: Path, tmp_path: Path) -> None:
    """The server answers over the container's own loopback: one case well, then one that is broken."""
    drawn_case(root, tmp_path)
    serving = ("-e", "MITOSIS_API_METHOD=invoke")  # as API_METHOD=invoke builds it
    with running(image, tmp_path, serving) as name:
        for _ in range(300):
            first = engine("exec", name, PYTHON, "-c", INVOKE)
            if first.returncode == 0:
                break
            time.sleep(0.5)
        assert first.stdout.split() == ["200", "201"], first.stderr
        assert read_points(tmp_path / "out" / RESULT).is_mitotic_figure.any()
        (tmp_path / "in/inputs.json").write_text("{")
        assert engine("exec", name, PYTHON, "-c", INVOKE).stdout.split() == ["200", "422"]
        assert list((tmp_path / "out").iterdir()) == []
