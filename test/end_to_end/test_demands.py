"""What the platform demands of the process beside the result: memory, places, signals, the model folder, serving."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from challenge_case import RESULT, last_line, make_case, make_metaimage_case, no_spacing, noise
from entry import command, run
from numpy.typing import NDArray

from mitosis.output.grand_challenge import read_points
from process import OWN_MODEL, default_model

GIB, MIB = 2**30, 2**20
TERMINATED = 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def region(root: Path) -> NDArray[np.uint8]:
    """As large as the challenge's: 2.44 mm2, the drawn case side by side."""
    drawn = tifffile.imread(next((root / "test/input/interf0/images").rglob("*.tiff")))
    return np.tile(drawn, (4, 4, 1))[:5412, :7215]


@pytest.mark.slow
@pytest.mark.parametrize("gib", [7, 3])
@pytest.mark.parametrize("make", [make_case, make_metaimage_case])
def test_a_memory_limit(
    root: Path, tmp_path: Path, region: NDArray[np.uint8], gib: int, make: Callable[..., Path]
) -> None:
    make(tmp_path / "case", rgb=region)
    result = run(root, "--input", tmp_path / "case", "--output", tmp_path / "out", memory_bytes=gib * GIB)
    assert result.returncode == 0, result.stderr
    assert read_points(tmp_path / "out" / RESULT).is_mitotic_figure.any()


def test_a_memory_too_small_for_the_image(root: Path, tmp_path: Path) -> None:
    """A MetaImage can only be decoded whole: 1.5 GB, and as much again. One line, no killed process."""
    image = sitk.Image([22_000, 22_000], sitk.sitkVectorUInt8, 3)
    image.SetSpacing((0.00025, 0.00025))
    sitk.WriteImage(image, str(make_metaimage_case(tmp_path / "case")), True)
    result = run(root, "--input", tmp_path / "case", "--output", tmp_path / "out", memory_bytes=3 * GIB)
    assert result.returncode == 7
    assert "a.mha: the memory is full; this process may take 3.0 GiB" in last_line(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("mib", [600, 400])  # with less, numpy itself cannot be imported on some machines
def test_a_memory_too_small_for_the_networks(root: Path, tmp_path: Path, mib: int) -> None:
    make_case(tmp_path / "case")
    result = run(root, "--input", tmp_path / "case", "--output", tmp_path / "out", memory_bytes=mib * MIB)
    assert result.returncode == 7
    assert f"this process may take {mib / 1024:.1f} GiB" in last_line(result)
    assert not (tmp_path / "out").exists()


def test_a_failed_case_leaves_no_earlier_result(root: Path, tmp_path: Path) -> None:
    make_case(tmp_path / "case")
    assert run(root, "--input", tmp_path / "case", "--output", tmp_path / "out").returncode == 0
    no_spacing(tmp_path / "case")
    assert run(root, "--input", tmp_path / "case", "--output", tmp_path / "out").returncode == 3
    assert list((tmp_path / "out").iterdir()) == []


def test_a_run_that_cannot_begin_leaves_no_earlier_result(root: Path, tmp_path: Path) -> None:
    make_case(tmp_path / "case")
    assert run(root, "--input", tmp_path / "case", "--output", tmp_path / "out").returncode == 0
    damaged = tmp_path / "model"
    damaged.mkdir()
    assert run(root, "--input", tmp_path / "case", "--output", tmp_path / "out", "--model", damaged).returncode == 4
    assert list((tmp_path / "out").iterdir()) == []


def test_an_image_built_for_it_serves_without_arguments(root: Path, tmp_path: Path) -> None:
    arguments = command(root, "--input", tmp_path, "--output", tmp_path / "out", "--port", 0)
    environment = os.environ | {"MITOSIS_API_METHOD": "invoke"}
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert any("runtime" in line for line in process.stderr)
            with pytest.raises(subprocess.TimeoutExpired):  # an empty folder ends a run, and keeps no service waiting
                process.wait(1)
        finally:
            process.terminate()
        assert process.wait(60) == TERMINATED


def test_nothing_is_written_elsewhere(root: Path, tmp_path: Path) -> None:
    """Not to the home, the working or the program's folder, nor left in the one for temporary files."""
    for name in ("home", "work", "tmp"):
        (tmp_path / name).mkdir()
    make_case(tmp_path / "case")

    def program() -> set[Path]:
        return {*root.glob("*"), *(root / "mitosis").rglob("*"), *(root / "model").rglob("*")}

    before = program()
    environment = {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    arguments = command(root, "--input", tmp_path / "case", "--output", tmp_path / "out")
    subprocess.run(arguments, cwd=tmp_path / "work", env=os.environ | environment, check=True)
    assert program() == before
    assert [p for name in ("home", "work", "tmp") for p in (tmp_path / name).iterdir()] == []


def test_the_platforms_model_folder_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it is absent or empty; whatever lies there counts, since a wrong tarball must not be passed over."""
    monkeypatch.setattr("process.PLATFORM_MODEL", tmp_path / "model")
    assert default_model() == OWN_MODEL
    (tmp_path / "model").mkdir()
    assert default_model() == OWN_MODEL
    (tmp_path / "model/anything").touch()
    assert default_model() == tmp_path / "model"


def test_termination_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """SIGTERM in the middle of detection: no output, no temporary file."""
    make_case(tmp_path / "case", rgb=noise(8000))
    arguments = command(root, "--input", tmp_path / "case", "--output", tmp_path / "out")
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "runtime" not in process.stderr.readline():  # the models are loaded, detection begins
            pass
        time.sleep(0.5)
        process.terminate()
        assert process.wait(60) == TERMINATED
        assert process.stderr.read().splitlines()[-1] == "error: terminated; results finished so far are kept"
    assert not list(tmp_path.glob("out/*"))


@contextmanager
def serving(root: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run ``process.py --serve`` on a free port; gives the process and its address, once the model is loaded."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = command(root, "--serve", "--port", port, "--input", folder / "case", "--output", folder / "out")
    with subprocess.Popen(arguments, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(600):
                try:
                    assert ask(f"http://127.0.0.1:{port}/health") == 200
                    break
                except URLError:
                    time.sleep(0.1)
            yield process, f"http://127.0.0.1:{port}"
        finally:  # or a test that fails would wait for ever
            process.terminate()
        assert process.wait(60) == TERMINATED


def ask(url: str, method: str = "GET") -> int:
    """Return the status of an answer."""
    try:
        with urlopen(Request(url, method=method, data=b"" if method == "POST" else None), timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def ask_in_vain(url: str) -> None:
    """Ask for a case whose server ends before it answers."""
    with pytest.raises((ConnectionError, URLError)):
        ask(url, "POST")


def test_serving(root: Path, tmp_path: Path) -> None:
    """Two cases and a broken one through one loaded model; the broken one leaves no earlier result."""
    make_case(tmp_path / "case")
    with serving(root, tmp_path) as (_, address):
        for _ in range(2):
            assert ask(f"{address}/invoke", "POST") == 201
            assert (tmp_path / "out" / RESULT).exists()
        no_spacing(tmp_path / "case")
        assert ask(f"{address}/invoke", "POST") == 422
        assert not list((tmp_path / "out").iterdir())
        assert ask(f"{address}/other", "POST") == 404
        shutil.rmtree(tmp_path / "case")
        make_case(tmp_path / "case")
        assert ask(f"{address}/invoke", "POST") == 201
        (tmp_path / "case/inputs.json").unlink()
        assert ask(f"{address}/invoke", "POST") == 422
        assert not list((tmp_path / "out").iterdir())


def test_termination_while_serving(root: Path, tmp_path: Path) -> None:
    """SIGTERM during a case, which takes seconds even where nothing is found."""
    make_case(tmp_path / "case", rgb=noise(8000))
    with serving(root, tmp_path) as (process, address):
        Thread(target=ask_in_vain, args=(f"{address}/invoke",), daemon=True).start()
        time.sleep(0.7)
        assert process.poll() is None
    assert not list(tmp_path.glob("out/*"))
