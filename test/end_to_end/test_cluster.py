"""``mitosis detect --scheduler`` on a real cluster of worker processes, one of which dies at work."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from distributed import Client
from entry import detect, start_detect

SLIDES = 4


class Cluster:
    """A scheduler and worker processes on this machine, as a user starts them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, dict[str, subprocess.Popen[bytes]]()
        found = folder / "scheduler.json"
        self.start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", found)
        while not found.exists():
            assert self.processes["scheduler"].poll() is None
            time.sleep(0.1)
        self.address: str = json.loads(found.read_text())["address"]

    def start(self, kind: str, *arguments: object, name: str = "") -> None:
        command = [sys.executable, "-m", "dask", kind, *map(str, arguments)]
        with (self.folder / f"{name or kind}.log").open("wb") as log:
            self.processes[name or kind] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def add_worker(self, name: str, nthreads: int = 1) -> None:
        """Add a worker without a nanny: killed, it stays dead."""
        options = ("--no-nanny", "--no-dashboard", "--nthreads", nthreads, "--memory-limit", "0")
        self.start("worker", self.address, "--name", name, *options, name=name)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def slides(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of slides: the drawn case, shifted."""
    folder = tmp_path_factory.mktemp("slides")
    rgb = tifffile.imread(root / "test/input/interf0/images/histopathology-roi-cropout/synthetic-region.tiff")
    for index in range(SLIDES):
        shifted = np.roll(rgb, 97 * index, axis=1)
        tags = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(folder / f"slide{index}.tiff", shifted, photometric="rgb", **tags)
    return folder


def content(folder: Path) -> dict[str, Any]:
    """Return every file of the results; of run.json and summary.csv all but the times."""
    files: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        files[name] = path.read_bytes()
        if path.name == "run.json":
            files[name] = json.loads(path.read_text())
            del files[name]["seconds"], files[name]["began"]
        elif path.name == "summary.csv":
            rows = list(csv.DictReader(path.open(newline="")))
            files[name] = [row | {"seconds": None, "status": row["status"].replace("skipped", "done")} for row in rows]
    return files


def table(err: str) -> list[list[str]]:
    """Return the summary table's cells up to the seconds.

    Without the remarks: a slide whose worker died between its last file and its report is found finished by the next.
    """
    return [[cell.strip() for cell in line.split("│")][:6] for line in err.splitlines() if line.startswith("│")]


def kill_at_work(cluster: Cluster, victim: str, process: subprocess.Popen[str], output: Path) -> None:
    """SIGKILL a worker that has just begun a slide, after the first slide of all is finished."""
    before: set[str] = set()
    with Client(cluster.address, set_as_default=False) as client:
        workers = {about["name"]: address for address, about in client.scheduler_info(n_workers=-1)["workers"].items()}
        while True:
            assert process.poll() is None, process.communicate()[1]
            now = set(client.processing()[workers[victim]])
            if now - before and list(output.glob("*/run.json")):
                break
            before = now
            time.sleep(0.02)
        cluster.processes[victim].send_signal(signal.SIGKILL)
        cluster.processes[victim].wait()
        while workers[victim] in client.nthreads():
            time.sleep(0.1)
        removals = [event for _, event in client.get_events("all") if event.get("action") == "remove-worker"]
        assert len(removals) == 1
        assert removals[0]["processing-tasks"], "it had no slide when it died"


@pytest.mark.slow
def test_a_worker_dies_and_the_results_are_those_of_a_local_run(cluster: Cluster, slides: Path, tmp_path: Path) -> None:
    """A broken slide among them fails by name, on a cluster as at home; started again, finished slides are skipped."""
    (tmp_path / "broken.tiff").write_bytes(b"II*\0nonsense")
    given = (slides, tmp_path / "broken.tiff")
    local, far = tmp_path / "local", tmp_path / "far"
    code_here, err_here = detect(*given, "--output", local)
    for name in ("a", "b"):
        cluster.add_worker(name)
    with Client(cluster.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    process = start_detect(*given, "--output", far, "--scheduler", cluster.address)
    kill_at_work(cluster, "a", process, far)
    _, err = process.communicate(timeout=300)
    assert (process.returncode, code_here) == (2, 2), err
    assert err.splitlines()[-1] == err_here.splitlines()[-1]
    assert "1 of 5 images failed" in err.splitlines()[-1]
    assert table(err) == table(err_here)
    assert content(far) == content(local)
    code, err = detect(slides, "--output", far, "--scheduler", cluster.address)
    assert code == 0, err
    assert err.count("finished before, skipped") == SLIDES


@pytest.mark.slow
def test_a_worker_of_several_threads_takes_one_slide_at_a_time(cluster: Cluster, slides: Path, tmp_path: Path) -> None:
    cluster.add_worker("wide", nthreads=4)
    process, most = start_detect(slides, "--output", tmp_path, "--scheduler", cluster.address), 0
    with Client(cluster.address, set_as_default=False) as client:
        while process.poll() is None:
            most = max([most, *map(len, client.processing().values())])
            time.sleep(0.05)
    assert process.returncode == 0, process.communicate()[1]
    assert most == 1


@pytest.mark.slow
def test_like_on_a_cluster(cluster: Cluster, slides: Path, tmp_path: Path) -> None:
    """The precision is the record's, the files are compared, and what differs is said as at home."""
    assert detect(slides / "slide0.tiff", "--output", tmp_path / "first", "--precision", "f32")[0] == 0
    record = tmp_path / "first/slide0/run.json"
    cluster.add_worker("a")
    code, err = detect("--like", record, "--output", tmp_path / "second", "--scheduler", cluster.address)
    assert code == 0, err
    assert "all 6 files are the same" in " ".join(err.split())
    assert "numbers may differ" not in " ".join(err.split())
    run = json.loads(record.read_text())
    run["runtime"]["detector"] = "OpenVINO 2020.1 CPU f32"
    record.write_text(json.dumps(run))
    again = ("--like", record, "--output", tmp_path / "second", "--scheduler", cluster.address)
    assert "numbers may differ" in " ".join(detect(*again)[1].split())
    run["settings"]["bundle"]["classifier"]["context"] = 2.0
    record.write_text(json.dumps(run))
    code, err = detect(*again)
    assert code == 4
    assert "differs in classifier" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("address", "code", "advice"),
    [
        ("nonsense://here:1", 2, "tcp://host:port"),
        ("tcp://127.0.0.1:1", 5, "no Dask scheduler answers"),
        ("nowhere.json", 2, "--scheduler-file"),
    ],
)
def test_no_scheduler(tmp_path: Path, address: str, code: int, advice: str) -> None:
    found, err = detect(tmp_path / "a.tiff", "--output", tmp_path, "--scheduler", address)
    assert found == code, err
    assert f"--scheduler {address}" in err.splitlines()[-1]
    assert advice in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
def test_the_scheduler_is_lost(cluster: Cluster, slides: Path, tmp_path: Path, busy: bool) -> None:
    """While no worker has joined and the client waits, and while the only slide is on its worker."""
    if busy:
        cluster.add_worker("a")
    one = slides / "slide0.tiff"
    process = start_detect(one, "--output", tmp_path / "out", "--scheduler", cluster.address)
    with Client(cluster.address, set_as_default=False) as client:
        while busy and not any(client.processing().values()):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
    assert process.stderr is not None
    if not busy:
        assert "no worker has joined" in next(line for line in process.stderr if "worker" in line)
    assert process.poll() is None
    cluster.processes["scheduler"].kill()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 5, err
    assert "the scheduler was lost" in err.splitlines()[-1]


def test_without_the_extra(tmp_path: Path) -> None:
    """The message names what to install, where `distributed` cannot be imported."""
    code = "import sys; sys.modules['distributed'] = None; from mitosis.cli import main; main()"
    arguments = ["detect", tmp_path / "a.tiff", "--output", tmp_path, "--scheduler", "tcp://127.0.0.1:1"]
    result = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 5
    assert "mitosis[cohort]" in result.stderr.splitlines()[-1]
