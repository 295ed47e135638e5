"""The container's scripts: linted, and run against a fake engine that records how it was called."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPTS = ("build.sh", "test.sh", "export.sh")
FAKE = """#!/usr/bin/env bash
echo "$@" >>"$CALLS"
case "$1 $2" in
  "image inspect")
    [ -z "${NO_IMAGE:-}" ] || exit 1
    if [[ "$4" == *Size* ]]; then echo 900000000; else echo "${IMAGE_ID:-sha256:abc}"; fi ;;
  "run --rm") [ -z "${FAIL_RUN:-}" ] || exit 3 ;;
  "save "*) [ -z "${FAIL_SAVE:-}" ] || exit 1; echo image ;;
esac
"""


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """Return a copy of what the scripts touch, with a fake `docker` in bin/."""
    for name in (*SCRIPTS, "image.sh", "pyproject.toml"):
        shutil.copy(root / name, tmp_path / name)
    shutil.copytree(root / "model", tmp_path / "model")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(FAKE)
    (tmp_path / "bin/docker").chmod(0o755)
    return tmp_path


def call(project: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = (
        "ENGINE",
        "BUILDER",
        "BASE_IMAGE",
        "BUILD_ARGS",
        "RUN_ARGS",
        "IMAGE",
        "BUNDLE",
        "TARGET",
        "DEVICE",
        "OUTPUT",
        "API_METHOD",
        "DIST",
        "SKIP_BUILD",
        "MEMORY",
    )
    clean = {name: value for name, value in os.environ.items() if name not in settings}
    clean |= {"PATH": f"{project}/bin:{os.environ['PATH']}", "CALLS": str(project / "calls")} | environment
    return subprocess.run([project / script], env=clean, capture_output=True, text=True, check=False)


def calls(project: Path) -> str:
    return (project / "calls").read_text()


def test_build_then_test_then_export(project: Path) -> None:
    result = call(project, "build.sh", BASE_IMAGE="base:1", BUILD_ARGS="--no-cache --pull")
    assert result.returncode == 0, result.stderr
    assert "--build-arg BASE_IMAGE=base:1 --target runtime -t mitosis:" in calls(project)
    assert calls(project).splitlines()[0].endswith(" --no-cache --pull .")
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


def test_an_image_that_serves(project: Path) -> None:
    """The platform knows it by the label; without one it calls an image once for each case."""
    assert call(project, "build.sh").returncode == 0
    assert "api-method" not in calls(project)
    assert call(project, "build.sh", API_METHOD="invoke").returncode == 0
    assert "--build-arg API_METHOD=invoke --label org.grand-challenge.api-method=invoke" in calls(project)
    assert call(project, "test.sh", API_METHOD="invoke").returncode == 0
    assert "-e MITOSIS_API_METHOD=exec" in calls(project).splitlines()[-1]  # as a server it would never end
    refused = call(project, "build.sh", API_METHOD="rest")
    assert (refused.returncode, "choose exec or invoke" in refused.stderr) == (1, True)


def test_images_of_two_tags_have_two_archives(project: Path) -> None:
    for tag in ("mitosis:gpu", "mitosis:cpu"):
        assert call(project, "test.sh", SKIP_BUILD="1", IMAGE=tag).returncode == 0
        assert call(project, "export.sh", IMAGE=tag).returncode == 0
    names = sorted(path.name.rsplit("_", 2)[0] for path in project.glob("dist/mitosis*.tar.gz"))
    assert names == ["mitosis_cpu", "mitosis_gpu"]


def test_what_fails_now_is_not_exported_because_it_passed_before(project: Path) -> None:
    assert call(project, "test.sh", SKIP_BUILD="1").returncode == 0
    assert call(project, "test.sh", SKIP_BUILD="1", FAIL_RUN="1").returncode == 1
    assert call(project, "export.sh").returncode == 1


def test_the_check_sees_the_mounted_bundles_threshold(project: Path) -> None:
    assert call(project, "test.sh", SKIP_BUILD="1").returncode == 0
    runs = [line for line in calls(project).splitlines() if line.startswith("run ")]
    assert len(runs) == 2
    assert all(f"-v {project}/model:/opt/ml/model:ro" in line for line in runs)


def test_an_image_of_a_changed_checkout_says_so(project: Path) -> None:
    def commit() -> str:
        assert call(project, "build.sh").returncode == 0
        return calls(project).splitlines()[-2].split("--build-arg COMMIT=")[1].split()[0]

    assert commit() == "unknown"
    for arguments in (
        ("init", "-q"),
        ("add", "build.sh"),
        ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"),
    ):
        subprocess.run(["git", "-C", project, *arguments], check=True)
    assert len(clean := commit()) >= 7
    (project / "build.sh").write_text((project / "build.sh").read_text() + "\n")
    assert commit() == f"{clean}-dirty"
    (project / "inner").mkdir()
    for name in (*SCRIPTS, "image.sh", "pyproject.toml"):
        shutil.copy(project / name, project / "inner" / name)
    shutil.copytree(project / "model", project / "inner/model")
    assert call(project / "inner", "build.sh", PATH=f"{project}/bin:{os.environ['PATH']}").returncode == 0
    assert "COMMIT=unknown" in (project / "inner/calls").read_text()


def test_a_failing_container_is_not_exported(project: Path) -> None:
    assert call(project, "test.sh", SKIP_BUILD="1", FAIL_RUN="1").returncode == 1
    assert call(project, "export.sh").returncode == 1


@pytest.mark.parametrize("what", ["the image", "the bundle"])
def test_what_has_changed_since_the_test_is_not_exported(project: Path, what: str) -> None:
    assert call(project, "test.sh", SKIP_BUILD="1").returncode == 0
    changes = {}
    if what == "the image":
        changes = {"IMAGE_ID": "sha256:other"}
    else:
        (project / "model/classifier.onnx").write_bytes(b"other weights")
    refused = call(project, "export.sh", **changes)
    assert refused.returncode == 1
    assert "./test.sh has not passed" in refused.stderr
    assert not list(project.glob("dist/*.gz"))


def test_the_bundles_tarball_does_not_depend_on_times(project: Path) -> None:
    """Its files lie at the top, where the platform unpacks it; parameters to train on do not travel."""
    (project / "model/parameters.safetensors").write_bytes(b"weights")
    assert call(project, "test.sh", SKIP_BUILD="1").returncode == 0
    found = []
    for _ in range(2):
        assert call(project, "export.sh").returncode == 0
        found.append((project / "dist/model.tar.gz").read_bytes())
        os.utime(project / "model/bundle.yaml", (0, 10**9))
    assert found[0] == found[1]
    with tarfile.open(project / "dist/model.tar.gz") as tar:
        assert "./bundle.yaml" in tar.getnames()
        assert "./parameters.safetensors" not in tar.getnames()


def test_an_interrupted_export_leaves_nothing(project: Path) -> None:
    assert call(project, "test.sh", SKIP_BUILD="1").returncode == 0
    failed = call(project, "export.sh", FAIL_SAVE="1")
    assert failed.returncode == 1
    assert "could not save" in failed.stderr
    assert [p.name for p in (project / "dist").iterdir()] == ["tested"]


def test_other_stages(project: Path) -> None:
    assert call(project, "build.sh", TARGET="train", IMAGE="mitosis-train:1").returncode == 0
    assert "--target train -t mitosis-train:1 ." in calls(project)
    (project / "elsewhere").mkdir(mode=0o700)
    result = call(project, "build.sh", TARGET="export", OUTPUT="elsewhere", DEVICE="tensorrt")
    assert result.returncode == 0
    assert "wrote the bundle elsewhere" in result.stdout
    assert (project / "elsewhere").stat().st_mode & 0o777 == 0o755
    assert "--build-arg DEVICE=tensorrt" in calls(project)
    assert "--target export --output type=local,dest=elsewhere ." in calls(project)


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


def test_a_bundle_that_the_builder_cannot_see(project: Path) -> None:
    """Is refused with the reason; one that is only mounted or exported may lie anywhere."""
    for folder in ("runs/other/model", "runs/default/model"):
        shutil.copytree(project / "model", project / folder)
    for bundle in ("runs/other/model", str(project / "runs/other/model"), "model/../runs/other/model"):
        refused = call(project, "build.sh", BUNDLE=bundle)
        assert refused.returncode == 1
        assert ".dockerignore" in refused.stderr
    assert not (project / "calls").exists()
    for bundle in ("runs/default/model", "./runs/default/model", str(project / "runs/default/model"), "model/"):
        assert call(project, "build.sh", BUNDLE=bundle).returncode == 0
        assert f"BUNDLE={bundle.removeprefix(str(project) + '/').removeprefix('./')} " in calls(project)
    for bundle in ("runs/other/model", f"../{project.name}/runs/other/model"):
        assert call(project, "test.sh", BUNDLE=bundle, SKIP_BUILD="1").returncode == 0


def test_lint(root: Path) -> None:
    tools = Path(sys.executable).parent
    scripts = [root / name for name in (*SCRIPTS, "image.sh", ".ci/run", ".ci/prepare-engine")]
    assert subprocess.run([tools / "shellcheck", "--external-sources", *scripts], check=False).returncode == 0
    assert subprocess.run([tools / "hadolint", root / "Dockerfile"], check=False).returncode == 0
