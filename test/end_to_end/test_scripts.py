"""The container's scripts: linted, and run against a fake engine that records how it was called."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = ("build.sh", "test.sh", "export.sh")
FAKE = """#!/usr/bin/env bash
echo "$@" >>"$CALLS"
case "$1 $2" in
  "image inspect")
    [ -z "${NO_IMAGE:-}" ] || exit 1
    if [[ "$4" == *Size* ]]; then echo 900000000; else echo sha256:abc; fi ;;
  "run --rm") [ -z "${FAIL_RUN:-}" ] || exit 3 ;;
  "save "*) echo image ;;
esac
"""


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """Return a copy of what the scripts touch, with a fake `docker` in bin/."""
    for name in (*SCRIPTS, "pyproject.toml"):
        shutil.copy(root / name, tmp_path / name)
    shutil.copytree(root / "model", tmp_path / "model")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(FAKE)
    (tmp_path / "bin/docker").chmod(0o755)
    return tmp_path


def call(project: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = ("ENGINE", "BUILDER", "BASE_IMAGE", "BUILD_ARGS", "RUN_ARGS", "IMAGE")
    clean = {name: value for name, value in os.environ.items() if name not in settings}
    clean |= {"PATH": f"{project}/bin:{os.environ['PATH']}", "CALLS": str(project / "calls")} | environment
    return subprocess.run([project / script], env=clean, capture_output=True, text=True, check=False)


def calls(project: Path) -> str:
    return (project / "calls").read_text()


def test_build_then_test_then_export(project: Path) -> None:
    result = call(project, "build.sh", BASE_IMAGE="base:1", BUILD_ARGS="--no-cache --pull")
    assert result.returncode == 0, result.stderr
    assert "--build-arg BASE_IMAGE=base:1 --no-cache --pull -t mitosis:" in calls(project)
    assert "900 MB" in result.stdout
    refused = call(project, "export.sh")
    assert refused.returncode == 1
    assert "./test.sh has not passed" in refused.stderr
    assert not list(project.glob("dist/*.gz"))
    result = call(project, "test.sh", SKIP_BUILD="1", MEMORY="3g")
    assert result.returncode == 0, result.stderr
    assert "run --rm --network none --memory 3g --read-only --tmpfs /tmp" in calls(project)
    result = call(project, "export.sh")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("sha256") == 2
    assert len(list(project.glob("dist/*.tar.gz"))) == 2


def test_a_failing_container_is_not_exported(project: Path) -> None:
    assert call(project, "test.sh", SKIP_BUILD="1", FAIL_RUN="1").returncode == 1
    assert call(project, "export.sh").returncode == 1


def test_no_image(project: Path) -> None:
    result = call(project, "export.sh", NO_IMAGE="1")
    assert "run ./build.sh" in result.stderr


def test_an_engine_that_is_not_there(project: Path) -> None:
    result = call(project, "build.sh", ENGINE="no-such-engine")
    assert result.returncode == 1
    assert "ENGINE=docker or ENGINE=podman" in result.stderr


def test_no_bundle(project: Path) -> None:
    shutil.rmtree(project / "model")
    assert "make train" in call(project, "build.sh").stderr


def test_lint(root: Path) -> None:
    tools = Path(sys.executable).parent
    scripts = [root / name for name in (*SCRIPTS, ".ci/run", ".ci/prepare-engine")]
    assert subprocess.run([tools / "shellcheck", *scripts], check=False).returncode == 0
    assert subprocess.run([tools / "hadolint", root / "Dockerfile"], check=False).returncode == 0
